"""Training the backbone too, on a few small photos: `--finetune-from`."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import Photo
from safetensors.numpy import load_file
from small_backbone import small_backbone

import train
from captioner.config import TrainingConfig
from captioner.data.datasets import Record
from captioner.data.images import load_image, to_square
from captioner.data.vocabulary import Vocabulary
from captioner.model.backbone import backbone_arrays
from captioner.model.backbones import BACKBONES
from captioner.training import batches, cross_entropy, finetuning, run
from captioner.training.finetuning import PhotoBatches, Photos, TwoRates, thaw
from captioner.training.run import RunOptions, run_training

COLOURS = ("red", "green", "blue")
SIZES = {"rows": 2, "columns": 2, "embedding_dim": 8, "units": 16, "attention_units": 8}
SIZES["channels"] = 8
TRAINING = TrainingConfig(
    epochs=1,
    batch_size=4,
    warmup_steps=1,
    finetune_from="mixed9",
    finetune_image_size=75,  # smaller than the backbone's
    finetune_learning_rate=1e-2,
    decoder_learning_rate=1e-2,
)


@pytest.fixture(scope="module")
def records(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Twelve photos, eight to train on."""
    folder = tmp_path_factory.mktemp("photos")
    found = []
    for i in range(12):
        path = folder / f"{i}.png"
        photo(i, 60, 50).save(path)
        captions = (f"a {COLOURS[i % 3]} thing", "something" if i else "on the left")
        found.append(Record(str(i), path, captions, "train" if i < 8 else "val"))
    return found


@pytest.mark.parametrize(
    ("block", "convolutions"), [("mixed10", 9), ("mixed9", 18), ("mixed0", 89)]
)
def test_the_blocks_from_one_on_learn(random_backbone, block, convolutions) -> None:
    backbone = keras.models.clone_model(random_backbone)
    thaw(backbone, BACKBONES["inception_v3"].first_layer(backbone, block))
    kernels = backbone.trainable_variables
    assert len(kernels) == convolutions
    assert {v.name for v in kernels} == {"kernel"}
    last = {id(layer.kernel) for layer in backbone.layers if layer.name.startswith("conv2d")}
    assert {id(v) for v in kernels} <= last


def test_a_recipe_s_fine_tuning_can_be_left_out() -> None:
    assert train.parse(["--recipe", "finetuned", "--finetune-from", "none"]).finetune_from == ""
    assert train.parse([]).finetune_from is None


def test_photos_are_decoded_once_as_far_as_memory_allows(records, monkeypatch) -> None:
    decoded = []
    monkeypatch.setattr(
        finetuning, "load_image", lambda path: decoded.append(path) or load_image(path)
    )
    photos = Photos(records, 75, limit=2 * 75 * 75 * 3)
    for _ in range(2):
        plain = photos.gather(["3", "0", "1"])
    expected = [to_square(load_image(records[i].path), 75) for i in (3, 0, 1)]
    assert plain.dtype == np.uint8
    np.testing.assert_array_equal(plain, expected)
    assert decoded == [records[i].path for i in (3, 0, 1, 1)]


def batches_of(records, epoch: int | None, seed: int = 0) -> PhotoBatches:
    training = replace(TRAINING, seed=seed)
    vocabulary = Vocabulary.build(c for r in records for c in r.captions)
    return PhotoBatches(records, Photos(records, 75), vocabulary, training, epoch, 0, 0, 1, {})


def shown(records, epoch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """How each photo is shown in an epoch, by its id."""
    of_photos, found = batches_of(records, epoch, seed), {}
    for index in range(len(of_photos)):
        images = of_photos.order[index][0]
        inputs, _ = of_photos[index]
        assert inputs["shown"].shape == (4, 8) and not inputs["shown"][len(images) :].any()
        found |= dict(zip([of_photos.ids[i] for i in images], inputs["shown"], strict=False))
    return found


def test_photos_are_shown_in_other_ways_in_every_epoch(records) -> None:
    some = records[:6]  # the second batch has two empty places
    first = shown(some, 0)
    assert first.keys() == {r.image_id for r in some}
    for image_id, how in shown(some, 0).items():
        np.testing.assert_array_equal(how, first[image_id])
    for other in (shown(some, 1), shown(some, 0, seed=1)):
        assert all(np.abs(other[i] - first[i]).max() > 0.01 for i in first)
    mirrored = {i: sum(shown(some, e)[i][4] for e in range(20)) for i in ("0", "1")}
    assert mirrored["0"] == 0, "it names a side"
    assert 4 <= mirrored["1"] <= 16
    inputs, _ = batches_of(some, None)[0]
    assert "shown" not in inputs, "validation sees the photos as they are"


def test_batches_of_photos_have_few_lengths(records, monkeypatch) -> None:
    """For each of them, JAX compiles the whole network."""
    monkeypatch.setattr(batches, "wants_few_shapes", lambda: True)
    of_photos = batches_of(records, 0)
    lengths = {of_photos[i][1].shape[2] for i in range(len(of_photos))}
    assert lengths and {length % 24 for length in lengths} == {0}


def test_two_rates() -> None:
    layer = keras.layers.Dense(1, use_bias=False)
    other = keras.layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((2,)), layer, other])
    before = [np.array(v) for v in model.weights]
    model.compile(TwoRates(0.01, slow=layer.weights, ratio=0.1, weight_decay=0.0), "mse")
    model.train_on_batch(np.ones((1, 2)), np.full((1, 1), 10.0))
    # Adam's first step has the size of the learning rate.
    moved = [np.abs(np.array(v) - b).max() for v, b in zip(model.weights, before, strict=True)]
    assert moved == pytest.approx([0.001, 0.01], rel=1e-3)


@pytest.fixture
def tuned(records, monkeypatch):
    """`tuned(output)` trains and gives the checkpoint's weights of backbone and decoder by name."""
    monkeypatch.setenv("PATH", "")  # without Java there are no scores, which have their own tests
    monkeypatch.setattr(run, "build_backbone", small_backbone)

    def go(output: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        options = RunOptions("folder", output, "small", training=TRAINING, model=SIZES)
        folder = run_training(records, options)
        assert json.loads((folder / "config.json").read_text())["backbone"]["weights"] == "bundled"
        return load_file(folder / "backbone.safetensors"), load_file(folder / "decoder.safetensors")

    return go


@pytest.mark.slow
def test_the_checkpoint_has_the_tuned_backbone_also_of_a_run_that_was_stopped(
    tuned, tmp_path, monkeypatch
) -> None:
    backbone, decoder = tuned(tmp_path / "whole")
    original = backbone_arrays(small_backbone(""))
    changed = {name for name in original if np.any(backbone[name] != original[name])}
    kernels = [name for name in original if name.endswith(".kernel")]
    assert changed == set(kernels[1:])  # "mixed8" and the statistics are as they were

    # Its first phase is over, as when that run is stopped in fine-tuning.
    first = ("run.json", cross_entropy.STATE, cross_entropy.BEST)
    shutil.copytree(tmp_path / "whole" / "features", tmp_path / "stopped" / "features")
    for name in first:
        shutil.copy(tmp_path / "whole" / name, tmp_path / "stopped")

    gather, calls = Photos.gather, []

    def gather_and_interrupt(self, ids):
        calls.append(ids)
        if len(calls) == 5:  # in the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return gather(self, ids)

    with monkeypatch.context() as patched:
        patched.setattr(Photos, "gather", gather_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            tuned(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "checkpoint").exists()
    again, decoder_again = tuned(tmp_path / "stopped")
    for name in backbone:
        np.testing.assert_allclose(again[name], backbone[name], atol=1e-3, err_msg=name)
    for name in decoder:
        np.testing.assert_allclose(decoder_again[name], decoder[name], atol=1e-3, err_msg=name)
