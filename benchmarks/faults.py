"""Does a run survive a fault at each of its writes? Each write fails once.

    python benchmarks/faults.py [--errors ENOSPC EIO] [--all-phases]

`train.py` runs in this process with a network of three convolutions: extraction, cross-entropy,
self-critical training, export, scores, and a push to a Hub on the loopback interface; with
`--all-phases`, also mirrored photos, fine-tuning and polishing. It writes through a file layer that
fails once at each step: opening a file for writing, a write (half of the bytes arrive), `fsync`, a
rename, or a new folder. With ENOSPC, all later writes of the same attempt fail, too, as on a full
disk.

The first attempt fails at its first step. The second attempt passes that step and fails at the next
one, and so on, until an attempt meets no fault. After each attempt, all files with a final name
must be whole, no temporary files may be left, and the message must be one line with a remedy. In
the end, all files must equal those of an undisturbed run: the features, the checkpoint and the
commit in every byte, and the training states in every number.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import gc
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
os.environ["PATH"] = ""  # no Java: the scores are stated below

import checkout  # noqa: F401 - finds the package
import hub_server

SERVER = contextlib.ExitStack()
HUB = SERVER.enter_context(hub_server.serve())
# huggingface_hub reads these once, when it is imported.
os.environ |= {"HF_ENDPOINT": HUB.url, "HF_TOKEN": hub_server.WRITER, "HF_HUB_DISABLE_XET": "1"}
os.environ |= {"NO_PROXY": "127.0.0.1"}

import keras  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from small_backbone import small_backbone  # noqa: E402

import train  # noqa: E402
from captioner.checkpoint import checkpoint_folder  # noqa: E402
from captioner.model.feature_cache import FeatureCache, FeatureError  # noqa: E402
from captioner.training import run, training_state  # noqa: E402

SIZES = {"rows": 2, "columns": 2, "channels": 8, "embedding_dim": 4, "units": 4}
SIZES["attention_units"] = 4
OPTIONS = (
    "--epochs 1 --cider-epochs 1 --batch-size 8 --deterministic --set training.min_count=1 "
    "--backbone-weights {data}/backbone.keras --dataset folder:{data} --output {output} "
    "--push-to-hub somebody/captions"
)
FEW = "--no-mirror"
ALL = "--mirror --finetune-from mixed9 --finetune-epochs 1 --set training.polish_epochs=1"
# What the run goes on without: the memory of checksums, and the plot after each epoch.
SPARE = ("verified.jsonl", "output/loss.png.tmp", "output/loss.png")
HALF = (".tmp", ".new", ".old", ".part", ".incomplete")


class Faults:
    """A file layer for everything below `root`. It fails at the first step that has not failed yet.

    A step is identified by its kind, its file, and its number in this attempt.
    """

    def __init__(self, root: Path, number: int, phases: str) -> None:
        self.root, self.number, self.phases = str(root), number, phases
        self.failed: set[str] = set()
        self.begin()

    def begin(self) -> None:
        self.seen: Counter[str] = Counter()
        self.struck = ""  # what failed first in this attempt

    def step(self, kind: str, path: object) -> None:
        name = os.fspath(path)
        if not name.startswith(self.root) or (kind == "mkdir" and os.path.isdir(name)):
            return
        what = f"{kind} {Path(name).relative_to(self.root)}"
        self.seen[what] += 1
        what = f"{what}, time {self.seen[what]}"
        full = self.number == errno.ENOSPC and bool(self.struck) and kind in ("write", "fsync")
        first = self.number and not self.struck and what not in self.failed
        if first:
            self.failed.add(what)
            if not name.endswith(SPARE):
                self.struck = what
        if first or full:
            raise OSError(self.number, os.strerror(self.number))

    def open(
        self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any
    ) -> Any:
        ours = isinstance(file, str | os.PathLike) and os.fspath(file).startswith(self.root)
        if not ours or not set(mode) & set("wax+") or options.get("opener"):
            return REAL_OPEN(file, mode, buffering, *more, **options)
        self.step("open", file)
        raw = FaultyFile(self, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        # Not a `FileIO`, because NumPy would write to that without calling `write`.
        buffered = io.BufferedRandom(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *more, **options)

    @contextlib.contextmanager
    def below_everything(self) -> Iterator[None]:
        def before(kind: str, real: Any, which: int) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                named = arguments[which]
                path = f"/proc/self/fd/{named}" if isinstance(named, int) else named
                self.step(kind, os.readlink(path) if isinstance(named, int) else path)
                return real(*arguments, **options)

            return call

        with contextlib.ExitStack() as stack:
            for place in (builtins, io):
                stack.enter_context(mock.patch.object(place, "open", self.open))
            for name, which in {"fsync": 0, "replace": 1, "rename": 1, "mkdir": 0}.items():
                call = before(name, getattr(os, name), which)
                stack.enter_context(mock.patch.object(os, name, call))
            yield


REAL_OPEN = open


class FaultyFile(io.FileIO):
    def __init__(self, faults: Faults, file: Any, mode: str) -> None:
        super().__init__(file, mode if "+" in mode else f"{mode}+")
        self.faults = faults

    def write(self, data: Any) -> int:
        try:
            self.faults.step("write", self.name)
        except OSError:
            super().write(bytes(data)[: len(data) // 2])
            raise
        return super().write(data)


def make_data(folder: Path) -> Path:
    folder.mkdir()
    lines = ["image,caption,split"]
    random = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(random.integers(0, 255, (80, 80, 3)).astype(np.uint8)).save(
            folder / f"{i}.png"
        )
        lines += [
            f"{i}.png,a {('red', 'green', 'blue')[i % 3]} thing,{'train' if i < 8 else 'val'}"
        ]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    (folder / "backbone.keras").touch()  # `small_backbone` needs none
    return folder


def patched(stack: contextlib.ExitStack) -> None:
    """Makes train.py use small sizes, a single shard, and scores that need no Java."""
    real = run.RunOptions

    def small(**options: Any) -> run.RunOptions:
        options["model"] = options.get("model", {}) | SIZES
        return real(**options, shard_images=12)

    def scores(*_: object, **__: object) -> dict[str, float]:
        return {"images": 4, "BLEU-4": 1.0, "CIDEr": 1.0}

    for place, name, value in (
        (run, "RunOptions", small),
        (run, "build_backbone", small_backbone),
        (checkpoint_folder, "build_backbone", small_backbone),
        (run, "require_metrics", lambda: None),
        (run, "evaluate", scores),
    ):
        stack.enter_context(mock.patch.object(place, name, value))


def command(data: Path, output: Path, faults: Faults) -> tuple[int, str]:
    """Runs train.py. Returns its exit status and its error messages."""
    given = [*OPTIONS.format(data=data, output=output).split(), *faults.phases.split()]
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["train.py", *given]),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        faults.below_everything(),
    ):
        code = train.main()
    keras.utils.clear_session()
    gc.collect()  # releases the lock of the folder, which the exception still holds
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    return code, "\n".join(lines)


def find_damage(output: Path) -> list[str]:
    """Describes the files with a final name that are not whole, and the temporary files."""
    found = [str(p) for p in output.rglob("*") if p.name.endswith(HALF)]
    for path in output.rglob("*.json"):
        json.loads(path.read_bytes())
    for path in output.glob("*.safetensors"):
        training_state._load(path)
    for stamp in output.rglob("stamp.json"):
        try:
            FeatureCache(stamp.parent, run.FeatureExtractor(small_backbone()).stamp())
        except FeatureError as error:
            if "were made with" not in str(error):  # of the fine-tuned network, or mirrored
                found.append(str(error))
    checkpoint = output / "checkpoint"
    if checkpoint.exists():
        found += [fault for _, fault in faults_of(checkpoint)]
        if not (checkpoint / "README.md").stat().st_size:
            found.append("an empty card")
    for repository in HUB.repositories.values():
        for commit in repository.commits.values():
            if commit.files and set(commit.files) < {"config.json", "decoder.safetensors"}:
                found.append("half a commit")
    return found


def faults_of(checkpoint: Path) -> Iterator[tuple[str, str]]:
    _, files = checkpoint_folder.read_config(checkpoint)
    return checkpoint_folder.find_faults(checkpoint, files)


def contents(output: Path) -> dict[str, Any]:
    """Everything that a run leaves on disk and on the Hub."""
    found: dict[str, Any] = {
        str(p.relative_to(output)): p.read_bytes()
        for p in output.rglob("*")
        if p.is_file() and p.name not in ("verified.jsonl", "run.lock")
    }
    for path in output.glob("*.safetensors"):
        # Without the names of variables, which Keras numbers across the whole process.
        arrays, told = training_state._load(path)
        found[path.name] = told, [arrays[name].tobytes() for name in sorted(arrays)]
    pushed = HUB.repositories["somebody/captions"].files
    return found | {f"hub/{name}": content for name, content in pushed.items()}


def attempt(data: Path, folder: Path, faults: Faults) -> bool:
    """Runs one attempt and checks what it left. Returns False if it met no fault."""
    faults.begin()
    code, message = command(data, folder / "output", faults)
    if not faults.struck:
        assert code == 0, message
        return False
    damage = find_damage(folder / "output") if (folder / "output").exists() else []
    assert not damage, f"{faults.struck}: {damage}"
    assert code, f"{faults.struck}: nobody noticed"
    assert len(message.splitlines()) == 1, f"{faults.struck}: {message!r}"
    remedies = ("make room", "check the disk", "another --")
    assert any(r in message.lower() for r in remedies), f"{faults.struck}: {message}"
    return True


def fails_everywhere(
    data: Path, folder: Path, number: int, phases: str, whole: dict[str, Any]
) -> int:
    """Repeats the command until it meets no fault, and compares. Returns how much was wrong."""
    shutil.rmtree(folder / "output")
    HUB.repositories.clear()
    faults, wrong, going_on, began = Faults(folder, number, phases), 0, True, time.monotonic()
    attempts: Counter[str] = Counter()
    while going_on:
        try:
            going_on = attempt(data, folder, faults)
        except AssertionError as failed:
            wrong += 1
            print(f"WRONG, {errno.errorcode[number]} at {failed}", flush=True)
        attempts[faults.struck.partition(" ")[0]] += going_on
        if attempts.total() % 10 == 0:
            print(f"... {attempts.total()}: {faults.struck}", flush=True)
    found = contents(folder / "output")
    differ = sorted(k for k in whole.keys() | found if whole.get(k) != found.get(k))
    told = ", ".join(f"{count} {kind}" for kind, count in attempts.items() if kind)
    print(
        f"{errno.errorcode[number]}: {attempts.total()} faults ({told}) in a row, "
        f"{time.monotonic() - began:.0f} s; files that differ in the end: {differ or 'none'}",
        flush=True,
    )
    return wrong + len(differ)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--errors", nargs="+", default=["ENOSPC", "EIO"])
    parser.add_argument("--all-phases", action="store_true")
    with SERVER:  # whose thread would keep the program alive after --help
        return run_all(parser.parse_args())


def run_all(options: argparse.Namespace) -> int:
    """Lets every write fail once. Gives the exit status."""
    phases = ALL if options.all_phases else FEW
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        patched(stack)
        folder = Path(name, "run")
        folder.mkdir()
        tempfile.tempdir = str(folder)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.run_functions_eagerly(True)  # to trace each run anew would take longer
        data = make_data(Path(name, "data"))
        attempt(data, folder, Faults(folder, 0, phases))
        whole = contents(folder / "output")
        print(f"undisturbed: {len(whole)} files, {time.process_time():.1f} s of CPU", flush=True)
        wrong = sum(
            fails_everywhere(data, folder, getattr(errno, error), phases, whole)
            for error in options.errors
        )
    print(f"{wrong} wrong; {time.process_time():.0f} s of CPU")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
