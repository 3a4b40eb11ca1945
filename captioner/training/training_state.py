"""The state of a training run: variables and history in one file, from which it can continue.

Each file has the SHA-256 of its content, because otherwise a bit that a disk or a copy has changed
would become part of the weights. Files of earlier versions have none, and are not checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from captioner.errors import CaptionerError
from captioner.files import system_fault, write_bytes
from captioner.model.caption_model import CaptionModel, EndToEndModel

History = list[dict[str, float]]
Model = CaptionModel | EndToEndModel


class StateError(CaptionerError, RuntimeError):
    """A saved state cannot be used. The message names the file and the remedy."""


def save_weights(path: Path, model: Model) -> None:
    """Saves the weights of the model, without the state of training."""
    _save(path, model.named_weights, {})


def load_weights(path: Path, model: Model, state: Path) -> None:
    """Loads weights into the model.

    Args:
        path: The file that `save_weights` has written.
        model: Where they go.
        state: The state that says in which epoch they were written. The error message asks people
            to remove both files, because removing one alone does not help.

    Raises:
        StateError: The file is missing, damaged, or of another model.
    """
    try:
        arrays, _ = _load(path)
        for name, variable in model.named_weights.items():
            variable.assign(arrays[name])
    except Exception as error:  # safetensors, NumPy and Keras each have their own
        if fault := system_fault(error, path):
            raise StateError(fault) from error
        what = "damaged" if path.exists() else "missing"
        raise StateError(
            f"{path} is {what} ({error}). If you have a copy, put it there. Otherwise move it and "
            f"{state.name} out of the folder to train this phase from its first epoch again; the "
            "features are kept."
        ) from error


def save_state(path: Path, model: Model, history: Sequence[Any]) -> None:
    """Saves everything that the next step depends on, and the history of the epochs so far."""
    _save(path, _variables(model), {"history": json.dumps(history)})


def restore_state(path: Path, model: Model) -> History:
    """Loads the variables in `path` into `model`.

    Returns:
        The history of the epochs; empty if there is no such file.

    Raises:
        StateError: The file is damaged.
    """
    if not path.exists():
        return []
    try:
        arrays, told = _load(path)
        history = json.loads(told["history"])
        for name, variable in _variables(model).items():
            variable.assign(arrays[name])
    except Exception as error:
        raise StateError(
            system_fault(error, path)
            or f"{path} is damaged ({error}). Move it out of the folder to train this phase from "
            "its first epoch again; the features are kept."
        ) from error
    return history


def _save(path: Path, variables: Mapping[str, keras.Variable], told: dict[str, str]) -> None:
    arrays = {name: np.asarray(v) for name, v in variables.items()}
    write_bytes(path, save(arrays, metadata=told | {"sha256": _sha256(arrays, told)}))


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a file.

    Raises:
        ValueError: The checksum is wrong. safetensors raises exceptions of its own.
    """
    with safe_open(path, framework="numpy") as file:
        told = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    expected = told.pop("sha256", None)
    if expected is not None and expected != _sha256(arrays, told):
        raise ValueError("its checksum does not match")
    return arrays, told


def _sha256(arrays: Mapping[str, np.ndarray], told: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _variables(model: Model) -> dict[str, keras.Variable]:
    """The weights, the dropout generators, and the optimizer's moments and step count, which the
    learning rate's schedule depends on."""
    variables = [*model.variables, *model.optimizer.variables]
    # Variables are identified by their number here. Their names would not do, because Keras numbers
    # the generators and the backbone's convolutions across the whole process.
    names = [re.sub(r"^conv2d_\d+_", "conv2d_", v.name) for v in variables]
    return {f"{i:03d}.{name}": v for i, (name, v) in enumerate(zip(names, variables, strict=True))}
