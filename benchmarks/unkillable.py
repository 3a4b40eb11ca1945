"""SIGKILL at random moments of a whole run: does it always finish, with the very same weights?

    python benchmarks/unkillable.py --coco COCO --backbone-weights FILE [--kills 20]

COCO is a folder in the official layout. It is served on the loopback interface, and `train.py`
downloads from there, extracts, trains (cross-entropy and self-critical), scores and exports: once
undisturbed, once killed at random and started again. Exits with 1 if the two differ in a bit.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import http_server as http  # noqa: E402 - it lives with the tests


def mirror(coco: Path, folder: Path) -> Path:
    """A server's folder: COCO's images, and its annotations as the zip that COCO offers."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2014").symlink_to((coco / "train2014").resolve())
    with zipfile.ZipFile(folder / http.ANNOTATIONS[1:], "w") as archive:
        name = "annotations/captions_train2014.json"
        archive.write(coco / name, name)
    return folder


def start(options: argparse.Namespace, folder: Path, url: str, log: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), "--dataset", "coco"]
    command += ["--data-dir", str(folder / "data"), "--output", str(folder / "output")]
    command += ["--backbone-weights", str(options.backbone_weights.resolve())]
    command += ["--images", str(options.images), "--epochs", "3", "--cider-epochs", "1"]
    command += ["--deterministic"]
    environment = os.environ | {"CAPTIONER_COCO_URL": url}
    with log.open("a") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def where(folder: Path) -> str:
    """How far a run has come, by what it has left."""
    output = folder / "output"
    for name, phase in (
        ("checkpoint", "after the export"),
        ("cider_state.safetensors", "after the self-critical epoch"),
        ("cider_best.safetensors", "in the self-critical epoch"),
        ("state.safetensors", "in training"),
        ("run.json", "in training"),
        ("features", "in extraction"),
    ):
        if (output / name).exists():
            return phase
    return "in the download" if (folder / "data").exists() else "at the start"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--backbone-weights", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served, log = mirror(options.coco, folder / "mirror"), folder / "log"
        with http.serve(served, default=http.slow(0.1)) as server:
            whole, killed = folder / "whole", folder / "killed"
            begin = time.monotonic()
            if start(options, whole, server.url, log).wait() != 0:
                print(log.read_text(), file=sys.stderr)
                return 1
            seconds = time.monotonic() - begin
            print(f"undisturbed: {seconds:.0f} s", flush=True)
            kills = 0
            while True:
                process = start(options, killed, server.url, log)
                try:
                    # Past the last kill, and now and then before, it may run to its end.
                    limit = rng.uniform(1, seconds / 2) if kills < options.kills else None
                    status = process.wait(limit)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
                    print(f"kill {kills} after {limit:.1f} s, {where(killed)}", flush=True)
                    continue
                if status != 0:
                    print(log.read_text(), file=sys.stderr)
                    return 1
                if kills >= options.kills:
                    break
                print("it ended before the kill: from the start again", flush=True)
                shutil.rmtree(killed)
        results = [
            (run / "output" / "checkpoint" / "decoder.safetensors").read_bytes()
            for run in (whole, killed)
        ]
        leftovers = [p.name for p in killed.rglob("*") if p.suffix in (".tmp", ".part", ".new")]
    same = results[0] == results[1]
    print(f"{kills} kills; weights {'bit-identical' if same else 'DIFFERENT'}; left: {leftovers}")
    return 0 if same and not leftovers else 1


if __name__ == "__main__":
    sys.exit(main())
