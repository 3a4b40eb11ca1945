"""Whole runs on a small generated data set: results, and resumption after SIGKILL."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from captioner import Captioner

ROOT = Path(__file__).parents[2]
BACKBONE = ROOT / "assets" / "checkpoint" / "backbone.safetensors"
COLOURS = ("red", "green", "blue", "grey")

# What train.py does, with shards of 4 images, so that there is a middle to be killed in, and six
# batches in an epoch, so that there is a middle to be interrupted in.
DRIVER = """
import logging, os, signal, sys, time
from pathlib import Path
from captioner.config import TrainingConfig
from captioner.data.datasets import read_dataset
from captioner.model.features import FeatureExtractor
from captioner.training import cross_entropy, epoch_loop, run
from captioner.training.run import RunOptions, run_training
logging.basicConfig(level="INFO")
data, output, backbone, pause, end = sys.argv[1:]
build, begin = run.build_backbone, FeatureExtractor.start
# InceptionV3 on small photos, 2 x 2 features: most of the run would be the network otherwise.
run.build_backbone = lambda *given, **named: build(*given, image_size=107, **named)
def slowly(extractor, images):
    time.sleep(float(pause))
    return begin(extractor, images)
FeatureExtractor.start = slowly
run.ON_CPU = 4  # a full batch for each shard
save, after_step = epoch_loop.save_state, cross_entropy._StopAfterStep.on_train_batch_end
def save_and_die(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
def interrupted(callback, batch, logs):
    if batch == 0:
        os.kill(os.getpid(), signal.SIGINT)
    after_step(callback, batch, logs)
if end == "killed":
    epoch_loop.save_state = save_and_die
if end == "interrupted":
    cross_entropy._StopAfterStep.on_train_batch_end = interrupted
training = TrainingConfig(epochs=3, batch_size=2, warmup_steps=4, patience=99, mirror=True)
model = {"embedding_dim": 16, "units": 32, "attention_units": 16}
run_training(read_dataset("flickr8k", Path(data)), RunOptions(
    "flickr8k", Path(output), backbone, shard_images=4, training=training, model=model))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory, photo) -> Path:
    """Flickr8k's layout with 20 photos of one colour each, whose captions name it."""
    folder = tmp_path_factory.mktemp("flickr8k")
    tokens, lists = [], {"train": [], "dev": [], "test": []}
    for i in range(20):
        name, colour = f"{i}.jpg", i % 4
        pixels = np.asarray(photo(i, 64, 48)).astype(np.int16) // 3
        if colour < 3:
            pixels[:, :, colour] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name, quality=95)
        also = " again" * (i % 3)  # an epoch can only be cut between batches of different lengths
        said = [
            f"A {COLOURS[colour]} picture .",
            f"The {COLOURS[colour]} one is number {i}{also} .",
        ]
        tokens += [f"{name}#{n}\t{caption}" for n, caption in enumerate(said)]
        lists["train" if i < 12 else "dev" if i < 16 else "test"].append(name)
    (folder / "Flickr8k.token.txt").write_text("\n".join(tokens) + "\n")
    for split, names in lists.items():
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
    return folder


def start(data: Path, output: Path, end: str = "", pause: float = 0) -> subprocess.Popen:
    """Starts a run.

    Args:
        data: The folder of the data set.
        output: The output folder.
        end: With "killed", it dies when it has saved its first state; with "interrupted", Ctrl-C
            is pressed after the first batch.
        pause: The run waits for so many seconds before each batch of photos.
    """
    # Without Java the run skips the caption scores, which have a test of their own.
    environment = os.environ | {"PATH": str(Path(sys.executable).parent)}
    environment["PYTHONPATH"] = str(ROOT)
    environment["TF_ENABLE_ONEDNN_OPTS"] = "0"  # what train.py --deterministic does
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, (data, output, BACKBONE, pause, end))],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen) -> str:
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return said


def kill_when(process: subprocess.Popen, happened) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("run") / "output"
    return output, finish(start(data, output))


@pytest.mark.slow
def test_a_run_learns_and_leaves_a_working_checkpoint(finished, data):
    output, said = finished
    metrics = json.loads((output / "checkpoint" / "metrics.json").read_text())
    losses = [h["val_nll"] for h in metrics["history"]]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert "no caption scores" in said and "Java" in said
    captioner = Captioner.from_pretrained(output / "checkpoint")
    assert captioner.caption(data / "19.jpg", num_captions=1)[0].words
    # The vocabulary knows training captions only: photo 17 is in the test list.
    assert "11" in captioner.vocabulary and "17" not in captioner.vocabulary
    card = (output / "checkpoint" / "README.md").read_text()
    assert "Its weights were given with `--backbone-weights`" in card
    assert (output / "checkpoint" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "loss.png").read_bytes() == (output / "checkpoint" / "loss.png").read_bytes()
    assert said.count('(a reference: "A ') == 9, "three photos after each of three epochs"


@pytest.mark.slow
def test_killed_twice_and_interrupted_it_ends_with_the_very_same_weights(finished, data, tmp_path):
    whole, _ = finished
    output = tmp_path / "output"
    process = start(data, output, pause=1)
    kill_when(process, lambda: list(output.glob("features/shard-*.json")))
    kept = {p.name: p.read_bytes() for p in output.glob("features/shard-*")}
    assert len(list(output.glob("features/shard-*.json"))) < 3, "killed too late to show anything"

    process = start(data, output, "killed")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, said

    process = start(data, output, "interrupted")
    said, _ = process.communicate(timeout=200)
    assert "going on after epoch 1" in said and "stopping after this step" in said
    assert process.returncode != 0

    said = finish(start(data, output))
    done = re.search(r"going on after epoch 1, batch (\d+)", said)
    assert done and 0 < int(done[1]) < 6, said
    for name, content in kept.items():
        assert (output / "features" / name).read_bytes() == content
    for name in [p.name for p in (whole / "features").glob("shard-*")]:
        a, b = ((run / "features" / name).read_bytes() for run in (whole, output))
        assert a == b, name
    ours, theirs = (
        load_file(run / "checkpoint" / "decoder.safetensors") for run in (output, whole)
    )
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    ours, theirs = (
        json.loads((run / "checkpoint" / "metrics.json").read_text())["history"]
        for run in (output, whole)
    )
    assert len(ours) == 3
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)
    assert not list(output.rglob("*.tmp")), "leftovers"
