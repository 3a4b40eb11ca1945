"""The whole of `train.py` under TensorFlow and JAX, in float32 and bfloat16, killed on their way.

Every phase of the recipes "best" and "finetuned" is taken: cross-entropy with mirrored photos,
fine-tuning from photos, polishing, and self-critical training.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_colours
from safetensors.numpy import load_file

from benchmarks.distribution import COMPILE_QUICKLY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # eight processes, on a machine that may be busy
    pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed"),
    pytest.mark.skipif(keras.backend.backend() == "jax", reason="it starts JAX by itself"),
]

PROGRAM = Path(__file__).parents[1] / "small_train.py"
OPTIONS = "--recipe finetuned --finetune-from mixed9 --mirror "
OPTIONS += "--epochs 1 --finetune-epochs 1 --cider-epochs 1 "
# The small network makes its weights up, but the option wants a file that is there.
OPTIONS += f"--batch-size 4 --deterministic --backbone-weights {PROGRAM} --dataset folder"
# After how many writes of a training state a run's first process is killed; its second one ends the
# run. The writes are the epoch, the fine-tuning epoch, the two polishing epochs and the
# self-critical epoch. One kill is enough for each run, if they are killed in different phases.
RUNS = {
    "tensorflow-float32": 2,
    "tensorflow-bfloat16": 5,
    "jax-float32": 1,
    "jax-bfloat16": 3,
}


@pytest.fixture(scope="module")
def data(photo, tmp_path_factory) -> Path:
    """Twelve photos, eight of them to train on."""
    return write_colours(
        tmp_path_factory.mktemp("data"), photo, ("a {} thing", "the {} one"), train=8
    )


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The folder with each run's output, and what the runs said after they were killed."""
    folder = tmp_path_factory.mktemp("runs")
    said = {}
    with ThreadPoolExecutor(2) as pool:
        for backend in ("tensorflow", "jax"):
            names = [name for name in RUNS if name.startswith(backend)]
            found = pool.map(lambda n: killed_and_finished(n, data, folder), names)
            said |= dict(zip(names, found, strict=True))
    return folder, said


def killed_and_finished(name: str, data: Path, folder: Path) -> str:
    backend, precision = name.split("-")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "PATH": str(Path(sys.executable).parent),  # without Java there are no scores to wait for
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / f"compiled-{name}"),
        "XLA_FLAGS": COMPILE_QUICKLY,
    }
    if name == "jax-bfloat16":
        environment["ON_DEVICE"] = "yes"
    if name == "jax-float32":
        others = (folder / n / "checkpoint" for n in RUNS if n.startswith("tensorflow"))
        environment["CHECKPOINTS"] = ":".join(map(str, others))
    options = [*OPTIONS.split(), "--data-dir", str(data), "--output", str(folder / name)]
    options += ["--mixed-precision"] * (precision == "bfloat16")
    codes, copies = [], []
    for kill in (RUNS[name], 0):
        done = subprocess.run(
            [sys.executable, PROGRAM, str(kill), folder / f"{name}.json", *options],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        codes.append(done.returncode)
        copies.append(done.stdout.count(" are on the device"))
    assert codes == [-signal.SIGKILL, 0], done.stdout
    # First the features, the photos and the features of the tuned network; then these alone,
    # because the phases before are over, and need none.
    assert copies == ([3, 1] if name == "jax-bfloat16" else [0, 0]), done.stdout
    return done.stdout


def test_every_phase_is_taken_and_none_twice(runs):
    folder, said = runs
    for name, done in RUNS.items():
        metrics = json.loads((folder / name / "checkpoint" / "metrics.json").read_text())
        lengths = [len(metrics[k]) for k in ("history", "tuning_history", "cider_history")]
        assert lengths == [1, 3, 2], name
        again = [
            "\nepoch 1 of 1" in f"\n{said[name]}",
            "fine-tuning epoch 1 of 1" in said[name],
            "polishing epoch 1 of 2" in said[name],
            "polishing epoch 2 of 2" in said[name],
            "CIDEr epoch 1:" in said[name],
        ]
        assert again == [False] * done + [True] * (5 - done), said[name]


def test_losses_agree_between_backends_and_precisions(runs):
    folder, _ = runs
    losses = {}
    for name in RUNS:
        metrics = json.loads((folder / name / "checkpoint" / "metrics.json").read_text())
        losses[name] = metrics["history"][0]["val_nll"]
        decoder = load_file(folder / name / "checkpoint" / "decoder.safetensors")
        assert {a.dtype for a in decoder.values()} == {np.dtype(np.float32)}
        assert all(np.isfinite(a).all() for a in decoder.values())
    # Dropout and the first weights are drawn by generators that differ between the backends.
    for backend in ("tensorflow", "jax"):
        exact, mixed = losses[f"{backend}-float32"], losses[f"{backend}-bfloat16"]
        assert 0 < abs(mixed - exact) < 0.02 * exact


def test_a_checkpoint_says_the_same_under_either_backend(runs, data):
    folder, _ = runs
    by_tensorflow = said_by(folder / "tensorflow-float32.json")
    by_tensorflow |= said_by(folder / "tensorflow-bfloat16.json")
    by_jax = said_by(folder / "jax-float32.json")
    assert by_tensorflow.keys() == by_jax.keys() - {str(folder / "jax-float32" / "checkpoint")}
    for checkpoint, captions in by_tensorflow.items():
        words = [c["words"] for c in captions]
        assert words == [c["words"] for c in by_jax[checkpoint]] and any(words)
        for ours, theirs in zip(captions, by_jax[checkpoint], strict=True):
            np.testing.assert_allclose(ours["log_probs"], theirs["log_probs"], atol=1e-4)


def said_by(path: Path) -> dict[str, list[dict]]:
    return json.loads(path.read_text())
