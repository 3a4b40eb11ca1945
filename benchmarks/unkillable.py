"""Does a run that is killed at random moments always finish, with exactly the same weights?

    python benchmarks/unkillable.py --coco COCO --backbone-weights FILE [--kills 20] [--finetune]

COCO is a folder in the official layout, which is served on the loopback interface. `train.py`
downloads it from there, extracts features, trains (cross-entropy and self-critical, with
`--finetune` also the last block of the network), scores and exports. This is done twice: once
undisturbed, and once with the run killed and started again, over and over. The kills are spread
over the phases of the run; each comes at a random moment of its phase. The program prints how many
kills each phase got. The exit status is 1 if the two runs differ in a single bit, or if files are
left behind.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import http_server as http  # noqa: E402 - it is a module of the tests

# Runs train.py, and prints on standard error which phase begins.
LAUNCH = """
import runpy, sys
from captioner.data import coco_download
from captioner.training import run

def announce(place, name, phase):
    call = getattr(place, name)
    def announced(*args, **options):
        print(f"phase: {phase}", file=sys.stderr, flush=True)
        return call(*args, **options)
    setattr(place, name, staticmethod(announced) if isinstance(place, type) else announced)

announce(coco_download, "download_coco", "download")
announce(run, "extract", "extraction")
announce(run.Vocabulary, "build", "vocabulary")
announce(run, "fit_cross_entropy", "training")
announce(run, "fit_end_to_end", "fine-tuning")
announce(run, "polish", "polishing")
announce(run, "fit_cider", "self-critical training")
announce(run, "_scores", "scores")
announce(run, "write_checkpoint", "export")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
START = "start"  # the name of the time before the first phase
COMPARED = ("decoder.safetensors", "vocabulary.json", "backbone.safetensors")


def mirror(coco: Path, folder: Path) -> Path:
    """Makes a folder to serve: COCO's images, and its annotations in a zip archive like COCO's."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2014").symlink_to((coco / "train2014").resolve())
    with zipfile.ZipFile(folder / http.ANNOTATIONS[1:], "w") as archive:
        name = "annotations/captions_train2014.json"
        archive.write(coco / name, name)
    return folder


@dataclass
class Attempt:
    """One process of `train.py` and its log."""

    process: subprocess.Popen
    log: Path

    def phases(self) -> list[str]:
        """The phases that have begun, in order."""
        return [START, *re.findall(r"^phase: (.*)$", self.log.read_text(), re.MULTILINE)]

    def kill(self) -> str:
        """Kills the process. Returns the phase that it was in."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.phases()[-1]


def start(options: argparse.Namespace, folder: Path, url: str) -> Attempt:
    command = [sys.executable, "-c", LAUNCH, str(ROOT / "train.py"), "--dataset", "coco"]
    command += ["--data-dir", str(folder / "data"), "--output", str(folder / "output")]
    command += ["--backbone-weights", str(options.backbone_weights.resolve())]
    command += ["--images", str(options.images), "--epochs", "3", "--cider-epochs", "1"]
    command += ["--deterministic"]
    if options.finetune:
        command += ["--finetune-from", "mixed10", "--finetune-epochs", "1"]
    # The variables are set here, because TensorFlow is imported before train.py could set them.
    environment = os.environ | {"CAPTIONER_COCO_URL": url, "TF_ENABLE_ONEDNN_OPTS": "0"}
    environment["PYTHONPATH"] = str(ROOT)
    log = folder.with_suffix(".log")
    with log.open("w") as file:
        return Attempt(subprocess.Popen(command, env=environment, stdout=file, stderr=file), log)


def undisturbed(attempt: Attempt) -> dict[str, float]:
    """The seconds of each phase of a run that is not killed. Exits if the run fails."""
    begun = {START: time.monotonic()}
    while attempt.process.poll() is None:
        for phase in attempt.phases():
            begun.setdefault(phase, time.monotonic())
        time.sleep(0.01)
    check(attempt)
    ends = [*list(begun.values())[1:], time.monotonic()]
    return {phase: end - begun[phase] for phase, end in zip(begun, ends, strict=True)}


def check(attempt: Attempt) -> None:
    if attempt.process.returncode != 0:
        sys.exit(f"{attempt.log.read_text()}\ntrain.py failed: see above")


def kill_in(attempt: Attempt, phase: str, delay: float) -> str | None:
    """Kills a run `delay` seconds after `phase` has begun. Returns the phase that it was in, or
    None if the run ended before."""
    while phase not in attempt.phases():
        if attempt.process.poll() is not None:
            break
        time.sleep(0.005)
    try:
        attempt.process.wait(delay)
    except subprocess.TimeoutExpired:
        return attempt.kill()
    check(attempt)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--backbone-weights", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--finetune", action="store_true")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, killed = folder / "whole", folder / "killed"
        served = mirror(options.coco, folder / "mirror")
        with http.serve(served, default=http.slow(0.1)) as server:
            seconds = undisturbed(start(options, whole, server.url))
            print(f"undisturbed: {sum(seconds.values()):.0f} s", flush=True)
            # The phases are in their order, so that each still has work to do when it is killed.
            phases = list(seconds)
            targets = [phases[i * len(phases) // options.kills] for i in range(options.kills)]
            if options.kills < len(phases):
                targets = sorted(rng.sample(phases, options.kills), key=phases.index)
            kills: Counter[str] = Counter()
            for phase in targets:
                # If a phase has several kills, each gets a part of its time, because the work that
                # was finished before a kill is not done again.
                limit = seconds[phase] / targets.count(phase)
                while True:
                    delay = rng.uniform(0, limit)
                    was_in = kill_in(start(options, killed, server.url), phase, delay)
                    if was_in is not None:
                        break
                    print(f"the run ended before the kill in the {phase}: trying again", flush=True)
                    limit /= 2
                kills[was_in] += 1
                print(
                    f"kill {kills.total()}, {delay:.2f} s after the beginning of the {phase}: in "
                    f"the {was_in}",
                    flush=True,
                )
            last = start(options, killed, server.url)
            last.process.wait()
            check(last)
        same = all(
            (whole / "output" / "checkpoint" / file).read_bytes()
            == (killed / "output" / "checkpoint" / file).read_bytes()
            for file in COMPARED
        )
        leftovers = [
            path.name
            for path in killed.rglob("*")
            if path.suffix in (".tmp", ".part", ".tag", ".new", ".old")
        ]
    print("\n| phase | undisturbed, s | kills |\n| --- | --- | --- |")
    for phase, duration in seconds.items():
        print(f"| {phase} | {duration:.1f} | {kills[phase]} |")
    verdict = "bit-identical" if same else "DIFFERENT"
    print(f"\n{kills.total()} kills; weights {verdict}; left behind: {leftovers or 'nothing'}")
    return 0 if same and not leftovers else 1


if __name__ == "__main__":
    sys.exit(main())
