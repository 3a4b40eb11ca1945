"""Batches: what training sees of a data set."""

from pathlib import Path

import numpy as np
import pytest

from captioner.config import TrainingConfig
from captioner.data.datasets import Record
from captioner.data.vocabulary import END, PAD, START, Vocabulary
from captioner.model.backend import wants_few_shapes
from captioner.training.batches import CaptionBatches, pack, rows_for

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


def captions(row: np.ndarray) -> list[np.ndarray]:
    """The words of a row, cut before each <start>."""
    return np.split(row, np.flatnonzero(row == START))[1:]


def test_words_and_targets_are_the_images_own_captions(records, vocabulary):
    data = batches(records, vocabulary, epoch=0)
    for i in range(len(data)):
        x, targets = data[i]
        for image, rows, row_targets in zip(
            x["features"].ravel().astype(int), x["words"], targets, strict=True
        ):
            said = []
            for row, target in zip(rows, row_targets, strict=True):
                ends = np.cumsum([len(words) for words in captions(row)])
                for words, ids in zip(captions(row), np.split(target, ends), strict=False):
                    ids = ids[ids != PAD]
                    np.testing.assert_array_equal(words[1 : len(ids)], ids[:-1])
                    assert not words[len(ids) :].any()
                    said.append(" ".join(vocabulary.decode(ids)))
                    # Only a caption that was cut has no end.
                    assert (ids[-1] == END) == (said[-1] in records[image].captions)
            cut = [" ".join(c.split()[:6]) for c in records[image].captions]
            # What fills up the last batch has no words.
            assert len(said) == (2 if rows.any() else 0)
            assert set(said) <= set(cut)


def test_captions_share_rows_of_nearly_the_same_length():
    assert rows_for(5) == 3
    assert rows_for(1) == 1
    assert pack([8, 9, 11, 13, 16], 3) == [[4], [3, 0], [2, 1]]
    assert pack([5], 3) == [[0], [], []]


def test_padding_reaches_the_longest_caption_of_the_batch_only(records, vocabulary):
    data = batches(records, vocabulary, epoch=0)
    for i in range(len(data)):
        _, targets = data[i]
        spare = CaptionBatches.stride if wants_few_shapes() else 1
        assert targets[:, :, -spare:].any() and targets.shape[2] % spare == 0
    assert len({data[i][1].shape[2] for i in range(len(data))}) > 1


@pytest.mark.skipif(wants_few_shapes(), reason="JAX compiles each length by itself")
def test_the_first_two_batches_differ_in_length(records, vocabulary):
    """Keras would take a length that they share for the length of all."""
    for epoch in range(5):
        data = batches(records, vocabulary, epoch)
        assert data[0][1].shape != data[1][1].shape


def test_an_epoch_is_not_cut_before_its_last_batch(records, vocabulary):
    whole = batches(records, vocabulary, epoch=0)
    lengths = [np.shape(y)[-1] for _, y in (whole[i] for i in range(len(whole)))]
    possible = [done for done in range(1, len(whole) + 1) if whole.may_stop_after(done)]
    assert len(whole) - 1 not in possible and possible[-1] == len(whole)
    if not wants_few_shapes():  # otherwise other lengths may be padded to the same
        assert all(lengths[done] != lengths[done + 1] for done in possible[:-1])


def test_all_batches_have_the_full_size(records, vocabulary):
    data = batches(records, vocabulary, epoch=0)
    assert {data[i][1].shape[:2] for i in range(len(data))} == {(4, rows_for(2))}


def test_captions_without_words_are_left_out(vocabulary):
    silent = [
        Record("1", Path("1.jpg"), ("...", "w1 w2"), "train"),
        Record("2", Path("2.jpg"), ("!",), "train"),
    ]
    data = batches(silent, vocabulary, epoch=0)
    assert seen(data) == [1]
    assert int((data[0][1] == END).sum()) == 1
