"""Blanking what is attended to: a toy captioner that needs it, and one that does not."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from captioner.captioner import Caption, Captioner
from captioner.checkpoint import Checkpoint
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig
from captioner.datasets import Record
from captioner.faithfulness import (
    blank,
    choose_targets,
    faithfulness,
    most_attended,
    scattered,
    shifted,
)
from captioner.model import Annotations
from captioner.vocabulary import END, SPECIAL_TOKENS, START, Vocabulary

ROOT = Path(__file__).parents[1]
WORDS = [*SPECIAL_TOKENS, "a", "red", "grey", "patch", "here", "there", "where", "today"]
NEXT = {START: "a", 4: "red", 5: "patch", 6: "patch"}
CONFIDENCE = 6.0  # logit of "red" where red is seen; that of "grey" is half of it


class Toy(keras.Model):
    """Says "a red patch". It looks at red or at blue, and its evidence for "red" is what it looks
    at or, with `glance`, the whole photo at once."""

    def __init__(self, config: ModelConfig, looks_at: int, glance: bool) -> None:
        super().__init__()
        self.config = config
        self.looks_at, self.glance = looks_at, glance
        table = np.full((len(WORDS), len(WORDS)), -30.0, np.float32)  # logits after each word
        for word in range(len(WORDS)):
            following = NEXT.get(word)
            table[word, WORDS.index(following) if following else END] = 0.0
        table[4, 6] = CONFIDENCE / 2
        self.table = table
        self.built = True

    def encode(self, features):
        return Annotations(ops.relu(ops.cast(features, "float32")), features)

    def initial_state(self, annotations, captions):
        mean = ops.mean(annotations.vectors, axis=1)
        return ops.repeat(ops.expand_dims(mean, 1), captions, axis=1)

    def embedding(self, words):
        return ops.one_hot(words, len(WORDS))

    def step(self, annotations, state, embedded, bias=None):
        weights = ops.softmax(50 * annotations.vectors[:, None, :, self.looks_at], axis=-1)
        weights = weights + 0 * state[..., :1]
        return state, ops.matmul(weights, annotations.vectors), weights

    def project(self, state, context, embedded, training=False):
        red = 4 * state[..., :1] if self.glance else context[..., :1]
        evidence = CONFIDENCE * red * embedded[..., 4:5]
        return ops.matmul(embedded, self.table) + evidence * ops.one_hot(5, len(WORDS))


def toy_captioner(looks_at: int, glance: bool) -> Captioner:
    photo = keras.Input((16, 16, 3))
    backbone = keras.Model(photo, keras.layers.AveragePooling2D(2)(photo))  # a cell: 2 x 2 pixels
    sizes = ModelConfig(vocabulary_size=len(WORDS), rows=8, columns=8, channels=3)
    config = CaptionerConfig(sizes, BackboneConfig(image_size=75))
    model = Toy(sizes, looks_at, glance)
    return Captioner(Checkpoint(config, Vocabulary(WORDS), model, backbone), batch_size=16)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Record]:
    """Grey, with a red and a blue patch of a quarter of the photo each, in places of their own."""
    folder = tmp_path_factory.mktemp("photos")
    records = []
    for i, (red, blue) in enumerate([(0, 8), (2, 4), (8, 0), (6, 2), (4, 8), (0, 0)] * 3):
        pixels = np.full((16, 16, 3), 128, np.uint8)
        pixels[red : red + 8, :8] = (255, 0, 0)
        pixels[blue : blue + 8, 8:] = (0, 0, 255)
        if i % 2:
            pixels = pixels.swapaxes(0, 1)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        records.append(Record(str(i), folder / f"{i}.png", ("A red patch.",), "val"))
    return records


def test_attention_that_is_used(photos):
    found = faithfulness(toy_captioner(looks_at=0, glance=False), photos)
    assert (found["images"], found["content_words"]) == (18, 36)  # "red", "patch"; not "a"
    # Without its quarter no red is left: "red" falls from one known probability to another.
    # "patch" depends on nothing that is seen.
    half = CONFIDENCE / 2
    before, after = 1 / (1 + math.exp(-half)), 1 / (1 + math.exp(half))
    assert found["probability_drop"]["attended"] == pytest.approx((before - after) / 2, abs=0.01)
    drop = math.log(before / after) / 2
    assert found["log_prob_drop"]["attended"] == pytest.approx(drop, abs=0.02)
    for name, control in found["controls"].items():
        assert control["difference_95"][0] > 0, name
    # Any other quarter leaves some red in sight, which is enough.
    assert found["controls"]["scattered"]["ratio"] is None or (
        found["controls"]["scattered"]["ratio"] > 20
    )
    assert found["log_prob_drop"]["other_photo"] < 0.5 * drop


def test_attention_that_is_not_used(photos):
    """It looks at blue, and says "red" for the red it sees without looking."""
    found = faithfulness(toy_captioner(looks_at=2, glance=True), photos)
    assert found["log_prob_drop"]["attended"] == pytest.approx(0, abs=0.02)
    assert found["log_prob_drop"]["shifted"] > 0.05
    for name in ("shifted", "scattered"):
        control = found["controls"][name]
        assert control["ratio"] < 0.3 and control["ratio_95"][1] < 1, name
        assert control["difference_95"][1] < 0, name


def test_the_seed_decides(photos):
    captioner = toy_captioner(looks_at=2, glance=True)
    first = faithfulness(captioner, photos[:4], seed=3)
    assert faithfulness(captioner, photos[:4], seed=3) == first
    assert faithfulness(captioner, photos[:4], seed=4) != first
    assert set(faithfulness(captioner, photos[:1])["controls"]) == {"shifted", "scattered"}


def test_most_attended():
    attention = np.zeros((4, 4), np.float32)
    attention[1, 2], attention[3, 0], attention[0, 0], attention[2, 2] = 0.4, 0.3, 0.2, 0.1
    mask = most_attended(attention)
    assert set(zip(*map(list, np.nonzero(mask)), strict=True)) == {(1, 2), (3, 0), (0, 0), (2, 2)}
    assert most_attended(np.full((8, 8), 1 / 64)).sum() == 16


def test_random_quarters_are_fair():
    """Every cell is as likely as any other, and the shape stays, up to wrapping around."""
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 8), bool)
    mask[3:5, 0:8] = True
    moved = [shifted(mask, rng) for _ in range(4000)]
    assert all((m.all(axis=1).sum(), m.sum()) == (2, 16) for m in moved)
    np.testing.assert_allclose(np.mean(moved, axis=0), 0.25, atol=0.04)
    anywhere = [scattered(mask, rng) for _ in range(4000)]
    assert {int(m.sum()) for m in anywhere} == {16}
    np.testing.assert_allclose(np.mean(anywhere, axis=0), 0.25, atol=0.04)


def test_blank():
    pixels = np.random.default_rng(0).uniform(-1, 1, (299, 299, 3)).astype(np.float32)
    mask = np.zeros((8, 8), bool)
    mask[0, 7] = True
    blanked = blank(pixels, mask)
    changed = (blanked != pixels).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), columns.max()) == (0, 298)
    assert rows.max() + 1 == pytest.approx(299 / 8, abs=1)
    assert columns.min() == pytest.approx(299 * 7 / 8, abs=1)
    np.testing.assert_allclose(blanked[0, 298], pixels.mean(axis=(0, 1)), atol=1e-5)
    assert blanked.dtype == np.float32
    assert (blank(pixels, np.zeros((8, 8), bool)) == pixels).all()


def test_only_content_words_of_other_photos_are_compared():
    maps = np.random.default_rng(0).dirichlet(np.ones(64), 5).reshape(5, 8, 8)
    captions = [
        Caption("a dog in the snow", ["a", "dog", "in", "the", "snow"], [0.0] * 5, maps),
        Caption("the", ["the"], [0.0], maps[:1]),
        Caption("two men", ["two", "men"], [0.0] * 2, 1 - maps[:2]),
    ]
    targets = choose_targets(captions)
    assert [(t.image, t.word) for t in targets] == [(0, 1), (0, 4), (2, 0), (2, 1)]
    for target in targets:
        others = [t.masks["attended"] for t in targets if t.image != target.image]
        assert any((target.masks["other_photo"] == m).all() for m in others)


@pytest.mark.slow
def test_the_command_line(shared, tmp_path):
    checkpoint = shutil.copytree(ROOT / "assets" / "checkpoint", tmp_path / "checkpoint")
    arguments = ["--dataset", "flickr8k", "--data-dir", shared / "data" / "flickr8k", "--split"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "captioner.faithfulness",
            checkpoint,
            *map(str, arguments),
            "val",
            "--limit",
            "3",
            "--save",
        ],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["images"] == 3 and found["content_words"] >= 3
    assert found["log_prob_drop"]["attended"] > 0  # half the network's sight of it is gone
    assert json.loads((checkpoint / "metrics.json").read_text())["faithfulness"] == [found]
    assert "photos of Flickr8k, val" in (checkpoint / "README.md").read_text()
