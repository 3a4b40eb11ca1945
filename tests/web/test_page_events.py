"""What the server answers the page: refusals, the note of doubt, captions that come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from captioner.captioner import Caption
from captioner.web import responses
from captioner.web.confidence import confidence_note, read_calibration
from captioner.web.page_events import PageEvents
from captioner.web.shown_models import ShownModel

BINS = [
    {"max_mean_log_prob": -0.5, "share_right": 0.8},
    {"max_mean_log_prob": -1.5, "share_right": 0.04},
    {"max_mean_log_prob": -1.0, "share_right": 0.31},
]


def caption(*log_probs: float) -> Caption:
    words = ["dog"] * len(log_probs)
    attention = np.full((len(words), 2, 3), 1 / 6, np.float32)
    return Caption(" ".join(words), words, list(log_probs), attention)


def write(folder: Path, calibration: Any) -> Path:
    (folder / "metrics.json").write_text(json.dumps({"calibration": calibration}))
    return folder


@pytest.mark.parametrize(
    ("log_probs", "note"),
    [
        ((-3.0, -1.0), "fewer than 1 in 10"),
        ((-1.2,), "about 3 in 10"),
        ((-0.7,), None),  # mostly right
        ((-0.1,), None),  # above all bins
        ((), None),
    ],
)
def test_the_note_says_what_was_measured(
    tmp_path: Path, log_probs: tuple[float, ...], note: str | None
) -> None:
    calibration = read_calibration(write(tmp_path, BINS))
    said = confidence_note(caption(*log_probs), calibration)
    assert said is None if note is None else note in said


@pytest.mark.parametrize(
    "calibration", [None, [], [{}], [{"max_mean_log_prob": 0, "share_right": 7}], "soon"]
)
def test_without_figures_there_is_no_note(tmp_path: Path, calibration: Any) -> None:
    assert read_calibration(write(tmp_path, calibration)) is None
    assert confidence_note(caption(-9.0), None) is None
    assert read_calibration(tmp_path / "nowhere") is None
    assert read_calibration(None) is None


def test_a_caption_comes_back_as_it_went() -> None:
    went = caption(-0.25, -1.5)
    came = responses.from_json(json.loads(json.dumps(responses.to_json(went))))
    assert (came.text, came.words, came.log_probs) == (went.text, went.words, went.log_probs)
    np.testing.assert_allclose(came.attention, went.attention, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"attention": []},
        {"attention": [[[]], [[]]]},
        {"attention": [[[-1.0]], [[1.0]]]},
        {"attention": [[[float("nan")]], [[1.0]]]},
        {"attention": np.ones((2, 40, 40)).tolist()},
        {"words": ["dog"] * 41},
        {"words": 7},
        {"log_probs": ["x", "y"]},
        {"log_probs": [float("-inf"), 0.0]},
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict) -> None:
    with pytest.raises(gr.Error, match="cannot be drawn"):
        responses.from_json(responses.to_json(caption(-0.25, -1.5)) | change)
    with pytest.raises(gr.Error, match="cannot be drawn"):
        responses.from_json(None)


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"kind": ["photo"]}, {"kind": "example", "number": "1"}, {"kind": "captions"}]
    + [{"kind": "completion", "photo": photo} for photo in (7, "http://127.0.0.1/", "data:,x")],
)
def test_a_request_that_makes_no_sense_is_refused(data: Any) -> None:
    event = gr.EventData(None, data)
    events = PageEvents([ShownModel(None)])  # no model is needed before the request makes sense
    (text, kept), *more = events.answer(None, None, event, 3, "sample", 0.5, 1.0, 0)
    assert json.loads(text)["message"] and json.loads(text)["done"]
    assert kept is None and not more
