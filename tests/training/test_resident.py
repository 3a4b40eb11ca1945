"""Features in the device's memory, and what happens where it is too small."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from captioner import machine
from captioner.model import backend
from captioner.training.resident import make_resident
from captioner.training.run import RunOptions, run_training
from captioner.training.same_run import TrainingError

FULL = RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nMore")


class ResourceExhaustedError(Exception):
    """Is called like TensorFlow's exception."""


class Features:
    """Takes the place of a feature cache."""

    def __contains__(self, image_id):
        return True

    def gather(self, image_ids):
        return np.zeros((len(image_ids), 4, 8), np.float16)


def raising(error: Exception) -> Callable[..., None]:
    def fill(*_: object) -> None:
        raise error

    return fill


@pytest.mark.parametrize("where", ["device", "main memory", "device that others use, too"])
def test_features_that_do_not_fit_stay_where_they_are(where, monkeypatch) -> None:
    monkeypatch.setattr(backend, "free_device_memory", lambda: 10**9)
    assert make_resident(["1", "2"], [Features()]).pool.shape == (2, 4, 8)
    if where == "device":
        monkeypatch.setattr(backend, "free_device_memory", lambda: 100)
    elif where == "main memory":
        monkeypatch.setattr(machine, "memory", lambda: 100)
    else:
        monkeypatch.setattr(backend, "on_device", raising(FULL))
    assert make_resident(["1", "2"], [Features()]) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FULL, r"^A chip has .* this run: .* allocate 9 bytes\. End"),
        (
            ResourceExhaustedError("Graph:\n\nat: allocate 9\nMore"),
            r"A chip .*at: allocate 9\. End",
        ),
        (MemoryError("Unable to allocate 9 GiB"), r"^this machine has .* allocate 9 GiB\. End"),
        (MemoryError(), r"^this machine has too little memory for this run\. End"),
    ],
)
def test_a_run_that_needs_too_much_memory_says_what_to_do(error, told, tmp_path, monkeypatch):
    monkeypatch.setattr("captioner.training.run._run_locked", raising(error))
    monkeypatch.setattr(backend, "accelerator", lambda: "A chip")
    told += r" .* --batch-size below 32, .*--features .*/features\.$"
    with pytest.raises(TrainingError, match=told):
        run_training([], RunOptions("folder", tmp_path))
