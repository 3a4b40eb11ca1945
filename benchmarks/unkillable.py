"""Does a run that is killed at random moments always finish, with exactly the same weights?

    python benchmarks/unkillable.py --coco COCO --backbone-weights FILE [--kills 20] [--finetune]
    python benchmarks/unkillable.py --made-up --finetune --backend tensorflow|jax

COCO is a folder in the official layout, which is served on the loopback interface. `train.py`
downloads it from there, extracts features, trains (cross-entropy and self-critical, with
`--finetune` also the last block of the network), scores and exports. This is done twice: once
undisturbed, and once with the run killed and started again, over and over. The kills are spread
over the phases of the run; each comes at a random moment of its phase. `--also folder:DIR`, any
number of times, adds data sets. With `--made-up`, COCO is 24 pictures of noise, a second data set
has 12 more, and the network has three convolutions. The program prints how many kills each phase
got. The exit status is 1 if the two runs differ in a single bit, or if files are left behind.
"""

from __future__ import annotations

import argparse
import json
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import checkout
import http_server as http

# train.py, which says on standard error where it is. MADE_UP comes before it, if wanted.
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
announce(run, "write_checkpoint", "export")
announce(run, "_scores", "scores")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# A small network in InceptionV3's place. Of one that is traced, most of the time would go by there.
MADE_UP = """
import keras, small_backbone
from captioner.checkpoint import checkpoint_folder
from captioner.training import run

SIZES = {"rows": 2, "columns": 2, "channels": 8, "embedding_dim": 8, "units": 16}
real = run.RunOptions
def small(**options):
    model = options.get("model", {}) | SIZES | {"attention_units": 8}
    return real(**options | {"model": model, "shard_images": 8})
run.RunOptions = small
run.build_backbone = checkpoint_folder.build_backbone = small_backbone.small_backbone
if keras.backend.backend() == "tensorflow":
    import tensorflow
    tensorflow.config.run_functions_eagerly(True)
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


def make_up(folder: Path) -> Path:
    """COCO in its layout, of noise, and a folder of further photos with their captions."""
    http.make_mirror(folder / "coco", count=24)
    with zipfile.ZipFile(folder / "coco" / http.ANNOTATIONS[1:]) as archive:
        told = json.loads(archive.read("annotations/captions_train2014.json"))
    for number, annotation in enumerate(told["annotations"]):
        annotation["caption"] = said(number)
    name = folder / "coco" / "annotations" / "captions_train2014.json"
    name.write_text(json.dumps(told))
    (folder / "photos").mkdir()
    lines = ["image,caption,split"]
    for i in range(12):
        (folder / "photos" / f"{i}.jpg").write_bytes(http.picture(100 + i))
        lines.append(f"{i}.jpg,{said(i)},{'train' if i < 8 else 'val'}")
    (folder / "photos" / "captions.csv").write_text("\n".join(lines) + "\n")
    (folder / "none.keras").touch()
    return folder


def said(number: int) -> str:
    return f"some {('red', 'green', 'blue')[number % 3]} noise"


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
    launch = (MADE_UP if options.made_up else "") + LAUNCH
    command = [sys.executable, "-c", launch, str(checkout.ROOT / "train.py")]
    command += ["--dataset", f"coco:{folder / 'data'}", "--output", str(folder / "output")]
    for other in options.also:
        command += ["--dataset", other]
    command += ["--backbone-weights", str(options.backbone_weights.resolve())]
    command += ["--images", str(options.images), "--epochs", "3", "--cider-epochs", "1"]
    command += ["--deterministic"]
    if options.made_up:
        command += ["--batch-size", "4", "--set", "training.min_count=1"]
    if options.finetune:
        command += ["--finetune-from", "mixed10", "--finetune-epochs", "1"]
    # TensorFlow is imported before train.py gets to say this.
    environment = os.environ | {"CAPTIONER_COCO_URL": url, "TF_ENABLE_ONEDNN_OPTS": "0"}
    environment["PYTHONPATH"] = f"{checkout.ROOT}{os.pathsep}{checkout.ROOT / 'tests'}"
    if options.made_up:  # without Java there are no scores, which would take most of the time
        environment["PATH"] = str(Path(sys.executable).parent)
    if options.backend:
        environment["KERAS_BACKEND"] = options.backend
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


def kill_in_each(
    targets: Sequence[str],
    seconds: Mapping[str, float],
    rng: random.Random,
    begin: Callable[[], Attempt],
) -> Counter[str]:
    """Kills the run once for each of the phases in `targets`, which are in their order.

    Args:
        targets: The phases, some of them perhaps several times.
        seconds: How long each phase takes if it is not disturbed.
        rng: Chooses the moments.
        begin: Starts the run, or goes on with it.

    Returns:
        The number of kills in each phase.
    """
    kills: Counter[str] = Counter()
    for phase in targets:
        # If a phase has several kills, each gets a part of its time, because the work that
        # was finished before a kill is not done again.
        limit = seconds[phase] / targets.count(phase)
        while True:
            delay = rng.uniform(0, limit)
            was_in = kill_in(begin(), phase, delay)
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
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--coco", type=Path)
    data.add_argument("--made-up", action="store_true")
    parser.add_argument("--backbone-weights", type=Path, help="needed with --coco")
    parser.add_argument("--also", action="append", default=[], metavar="KIND:FOLDER")
    parser.add_argument("--backend", choices=("tensorflow", "jax"))
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--finetune", action="store_true")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.made_up:
            made = make_up(folder / "made-up")
            options.coco, options.backbone_weights = made / "coco", made / "none.keras"
            options.also.append(f"folder:{made / 'photos'}")
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
            kills = kill_in_each(targets, seconds, rng, lambda: start(options, killed, server.url))
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
