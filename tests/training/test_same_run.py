"""Which options may change between two calls of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.training import self_critical
from captioner.training.same_run import RUN, TrainingError, is_same_run, record_run

BEGUN = {"training": {"epochs": 2, "cider_epochs": 3, "cider_overuse": 0.2}, "dataset": "coco"}


def now(**changes: float) -> dict:
    return BEGUN | {"training": BEGUN["training"] | changes}


def test_a_phase_that_has_begun_keeps_its_options(tmp_path: Path) -> None:
    path = tmp_path / RUN
    assert not is_same_run(path, BEGUN)
    path.write_text(json.dumps(BEGUN))
    assert is_same_run(path, now(cider_epochs=9, cider_overuse=0.0))
    with pytest.raises(TrainingError, match=r"training\.epochs was 2, now 3"):
        is_same_run(path, now(epochs=3))
    (tmp_path / self_critical.STATE).touch()
    assert is_same_run(path, now(cider_epochs=9))
    with pytest.raises(TrainingError, match=r"training\.cider_overuse was 0\.2, now 0\.0"):
        is_same_run(path, now(cider_overuse=0.0))


def test_a_phase_keeps_the_options_that_it_begins_with(tmp_path: Path) -> None:
    path = tmp_path / RUN
    record_run(path, BEGUN)
    record_run(path, now(cider_overuse=0.0))
    (tmp_path / self_critical.STATE).touch()
    assert is_same_run(path, now(cider_overuse=0.0))
    with pytest.raises(TrainingError, match=r"training\.cider_overuse was 0\.0, now 0\.2"):
        is_same_run(path, BEGUN)
