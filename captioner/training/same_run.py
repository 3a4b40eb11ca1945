"""Tells whether an output folder has the run that is asked for, so that it may go on there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captioner.checkpoint.checkpoint_folder import read_json, write_json
from captioner.config import CaptionerConfig, TrainingConfig
from captioner.data.datasets import Record
from captioner.data.words import UNICODE
from captioner.errors import CaptionerError
from captioner.model import backend
from captioner.training import self_critical

RUN = "run.json"
# These options may change between two calls, because they do not affect what the folder has.
EXTENDABLE = ("cider_epochs", "cider_blend", "note")
# So may these, until self-critical training has begun.
EXTENDABLE_BEFORE = ("cider_learning_rate", "cider_overuse", "cider_captions")


class TrainingError(CaptionerError, RuntimeError):
    """The run cannot start or continue. The message says why, and what to do."""


def describe_run(
    config: CaptionerConfig, records: Sequence[Record], word_rule: str = UNICODE
) -> dict[str, Any]:
    """What must stay the same until the run is finished."""
    # UNICODE adds nothing, so that runs which began when it was the only rule can continue.
    digest = hashlib.sha256(b"" if word_rule == UNICODE else word_rule.encode())
    for r in sorted(records, key=lambda r: r.image_id):
        told = [r.image_id, r.split, r.captions]
        digest.update(json.dumps(told + [r.by] * bool(r.by)).encode())
    return asdict(config) | {"records": digest.hexdigest(), "backend": backend.name()}


def is_same_run(path: Path, now: dict[str, Any]) -> bool:
    """Whether the folder of `path` has this run already; False if it has none.

    Raises:
        TrainingError: The folder has a run with other options or other data.
    """
    before = _recorded(path)
    _check_same(path, before, now)
    return before is not None


def record_run(path: Path, now: dict[str, Any]) -> None:
    """Writes what the run is, if that is not there yet.

    Options that may change until self-critical training begins are written anew when they have
    changed, because it keeps those that it begins with.

    Raises:
        TrainingError: The folder has a run with other options or other data.
    """
    before = _recorded(path)
    _check_same(path, before, now)
    if before != now:
        write_json(path, now)


def _check_same(path: Path, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Raises `TrainingError` if the run `before`, in the folder of `path`, is another run."""
    if before is None:
        return
    begun = (path.parent / self_critical.STATE).exists()
    extendable = EXTENDABLE if begun else EXTENDABLE + EXTENDABLE_BEFORE
    for section, value in now.items():
        if before.get(section) == value:
            continue
        detail = section
        if isinstance(value, dict):
            old = before.get(section) or {}
            if section == "training":
                # Options that did not exist when the run began have their defaults.
                old = asdict(TrainingConfig()) | old
            detail = ", ".join(
                f"{section}.{k} was {old.get(k)!r}, now {v!r}"
                for k, v in value.items()
                if k not in extendable and old.get(k) != v
            )
            if not detail:
                continue
        raise TrainingError(
            f"{path.parent} holds another run ({detail}). Give the options of that run to go on "
            "with it, or another --output."
        )


def _recorded(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    remedy = "Move it out of the folder, and give the options that this run began with."
    return read_json(path, remedy)
