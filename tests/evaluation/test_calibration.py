"""Groups of captions by probability, and the share of each that is right."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import Caption
from captioner.data.records import Record
from captioner.evaluation.calibration import (
    calibration,
    is_right,
    reliability_diagram,
    wilson_interval,
)


def caption(text: str, log_prob: float = -1.0) -> Caption:
    words = text.split()
    return Caption(text, words, [log_prob] * len(words), np.full((len(words), 1, 1), 1.0))


def record(*captions: str) -> Record:
    return Record("1", Path("1.jpg"), captions, "val")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a brown dog on the grass", True),  # dog and grass of three
        ("a brown cat on the grass", False),  # grass alone
        ("a dog with a ball", True),  # one of two
        ("a man with a ball", False),
    ],
)
def test_a_caption_is_right_if_half_of_its_content_words_were_said(text: str, right: bool) -> None:
    assert is_right(caption(text), record("A dog runs.", "Grass!")) == right


def test_the_least_probable_captions_come_first() -> None:
    people = record("a dog")
    sure = [caption("a dog", -0.1), caption("a dog", -0.2)]
    unsure = [caption("a cat", -2.0), caption("a dog", -1.0)]
    groups = calibration([people, people], [sure, unsure], groups=2)
    assert groups == [
        {
            "max_mean_log_prob": -1.0,
            "average_mean_log_prob": -1.5,
            "share_right": 0.5,
            "captions": 2,
        },
        {
            "max_mean_log_prob": -0.1,
            "average_mean_log_prob": -0.15,
            "share_right": 1.0,
            "captions": 2,
        },
    ]


def test_with_few_captions_there_are_few_groups() -> None:
    groups = calibration([record("a dog")], [[caption("a dog")]])
    assert [group["captions"] for group in groups] == [1]


def test_the_interval_holds_the_share_and_is_narrower_with_more_captions() -> None:
    low, high = wilson_interval(np.array([0.5, 0.5, 1.0]), np.array([10, 1000, 10]))
    assert (low[:2] < 0.5).all() and (high[:2] > 0.5).all()
    assert high[1] - low[1] < (high[0] - low[0]) / 5
    np.testing.assert_allclose([low[2], high[2]], [0.7225, 1.0], atol=1e-4)


def test_the_diagram_is_a_picture() -> None:
    groups = calibration([record("a dog")] * 9, [[caption("a dog", -n / 9)] for n in range(9)])
    with Image.open(io.BytesIO(reliability_diagram(groups))) as picture:
        assert picture.format == "PNG" and picture.size == (600, 480)
