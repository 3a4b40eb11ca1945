"""Batches: what training sees of a data set."""

from pathlib import Path

import numpy as np
import pytest

from captioner.batches import CaptionBatches
from captioner.config import TrainingConfig
from captioner.datasets import Record
from captioner.vocabulary import END, PAD, START, Vocabulary

TRAINING = TrainingConfig(batch_size=4, captions_per_image=2, max_words=6)


class Features:
    """Stands for a feature cache: an image's features are its number."""

    def gather(self, image_ids):
        return np.array([[[float(i)]] for i in image_ids], np.float16)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    return [
        Record(
            str(i),
            Path(f"{i}.jpg"),
            tuple(" ".join(rng.choice(words, rng.integers(1, 10))) for _ in range(3)),
            "train",
        )
        for i in range(42)
    ]


@pytest.fixture(scope="module")
def vocabulary(records) -> Vocabulary:
    return Vocabulary.build(c for r in records for c in r.captions)


def batches(records, vocabulary, epoch=None, training=TRAINING) -> CaptionBatches:
    return CaptionBatches(records, Features(), vocabulary, training, epoch)


def seen(data: CaptionBatches) -> list[int]:
    rows = [int(f) for x, _ in (data[i] for i in range(len(data))) for f in x["features"].ravel()]
    return [row for row in rows if row]  # 0 is also what fills up the last batch


@pytest.mark.parametrize("epoch", [None, 0, 3])
def test_every_image_comes_once_an_epoch(records, vocabulary, epoch):
    assert sorted(seen(batches(records, vocabulary, epoch))) == list(range(1, 42))


def test_the_order_depends_on_seed_and_epoch_alone(records, vocabulary):
    first = seen(batches(records, vocabulary, epoch=1))
    assert first == seen(batches(records, vocabulary, epoch=1))
    assert first != seen(batches(records, vocabulary, epoch=2))
    other_seed = TrainingConfig(batch_size=4, captions_per_image=2, max_words=6, seed=1)
    assert first != seen(batches(records, vocabulary, epoch=1, training=other_seed))


def test_words_and_targets_are_the_images_own_captions(records, vocabulary):
    data = batches(records, vocabulary, epoch=0)
    for i in range(len(data)):
        x, targets = data[i]
        for row, image in enumerate(x["features"].ravel().astype(int)):
            if not targets[row].any():
                continue
            for words, target in zip(x["words"][row], targets[row], strict=True):
                length = int((target != PAD).sum())
                assert words[0] == START
                np.testing.assert_array_equal(words[1:length], target[: length - 1])
                assert not words[length + 1 :].any()
                text = " ".join(vocabulary.decode(target))
                cut = [" ".join(c.split()[:6]) for c in records[image].captions]
                assert text in cut
                # Only a caption that was cut has no end.
                full = text in records[image].captions
                assert (target[length - 1] == END) == full


def test_padding_reaches_the_longest_caption_of_the_batch_only(records, vocabulary):
    data = batches(records, vocabulary, epoch=0)
    for i in range(len(data)):
        _, targets = data[i]
        assert targets[:, :, -1].any()
    assert len({data[i][1].shape[2] for i in range(len(data))}) > 1


def test_the_first_two_batches_differ_in_length(records, vocabulary):
    """Keras would take a length that they share for the length of all."""
    for epoch in range(5):
        data = batches(records, vocabulary, epoch)
        assert data[0][1].shape != data[1][1].shape


def test_all_batches_have_the_full_size(records, vocabulary):
    data = batches(records, vocabulary, epoch=0)
    assert {data[i][1].shape[:2] for i in range(len(data))} == {(4, 2)}


def test_captions_without_words_are_left_out(vocabulary):
    silent = [
        Record("1", Path("1.jpg"), ("...", "w1 w2"), "train"),
        Record("2", Path("2.jpg"), ("!",), "train"),
    ]
    data = batches(silent, vocabulary, epoch=0)
    assert seen(data) == [1]
    assert int((data[0][1] == END).sum()) == 1
