"""Data that cannot be trained on is named before anything takes long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from captioner.data.checks import check_trainable
from captioner.data.datasets import DatasetError, Record


def photos(*captions: str, split: str = "train") -> list[Record]:
    return [Record(f"{split}{n}", Path(f"{split}{n}"), (c,), split) for n, c in enumerate(captions)]


VAL = photos("a dog", split="val")


@pytest.mark.parametrize(
    ("records", "min_count", "message"),
    [
        ([], 1, r"^0 training and 0 validation photos: .*at least five photos"),
        (photos("a dog", "a cat"), 1, r"^2 training and 0 validation photos: .*at least five"),
        (photos(*["a dog"] * 5), 1, r'^5 training and 0 validation .* give each photo a "split"'),
        (photos(*["a dog"] * 4, split="val"), 1, r'^0 training and 4 .* give each photo a "split"'),
        (photos(*["a dog"] * 20), 1, r'^20 training and 0 validation .* give each photo a "split"'),
        (VAL, 1, r"^0 training and 1 validation photos"),
        ([*VAL, *photos("a dog", split="test")], 1, r'^0 training and 1 .*give each photo a "spl'),
        ([*photos("!!!", "😀"), *VAL], 1, r"^no caption of the 2 training photos has a word"),
        ([*photos("a dog"), *photos("...", split="val")], 1, r"of the 1 validation photos has a w"),
        (
            [*photos("a dog"), *VAL, *(replace(r, dataset="b") for r in photos("", split="val"))],
            1,
            r"of the 1 validation photos of b has a word",
        ),
        (
            [*photos("a dog", "the cat"), *VAL],
            2,
            r"^no word occurs 2 times .*training\.min_count=1",
        ),
    ],
)
def test_what_is_missing_is_named(records: list[Record], min_count: int, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check_trainable(records, min_count)


def test_what_can_be_trained_on_passes() -> None:
    check_trainable([*photos("a dog", "a cat"), *VAL], 2)
    check_trainable([*photos("红色的狗在奔跑", "蓝色的狗在奔跑"), *photos("狗", split="val")], 2)
