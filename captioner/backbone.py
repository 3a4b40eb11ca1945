"""InceptionV3 without its top (Szegedy et al. 2015, arXiv 1512.00567): photo in, features out.

The backbone is frozen. Local weights are rounded to float16 as they are read, because that is how
a checkpoint carries them: training and serving then see the very same network.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import load_file

IMAGENET = "imagenet"


class BackboneError(ValueError):
    """Backbone weights that cannot be used; the message names the file and the remedy."""


def build_backbone(weights: str | os.PathLike = IMAGENET, image_size: int = 299) -> keras.Model:
    """The network (batch, size, size, 3) in -1..1 -> (batch, rows, columns, 2048).

    `weights` is "imagenet" (downloaded by Keras at its first use), a Keras `.weights.h5` file made
    for `keras.applications.InceptionV3(include_top=False)`, or a `.safetensors` file written by
    `backbone_arrays`. Raises `BackboneError` if they cannot be had or do not fit.
    """
    source = IMAGENET if str(weights) == IMAGENET else None
    if source is None and not Path(weights).is_file():
        raise BackboneError(
            f"no backbone weights at {weights}. Give the path of an InceptionV3 .weights.h5 or "
            '.safetensors file, or "imagenet" to download the public ones.'
        )
    if image_size < 75:
        raise BackboneError(f"images of {image_size} pixels: InceptionV3 needs at least 75.")
    policy = keras.config.dtype_policy()
    # Whatever the precision of a training run, its features are those that serving computes.
    keras.config.set_dtype_policy("float32")
    try:
        backbone = keras.applications.InceptionV3(
            include_top=False, weights=source, input_shape=(image_size, image_size, 3)
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise BackboneError(
            f"the ImageNet weights of InceptionV3 could not be downloaded ({error}). Check the "
            "network, or give a local file with --backbone-weights FILE."
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    backbone.trainable = False
    if source is None:
        _load_local(backbone, Path(weights))
    return backbone


def backbone_arrays(backbone: keras.Model) -> dict[str, np.ndarray]:
    """The weights by name ("000.kernel", ...), in float16 wherever that does not overflow."""
    return {name: _to_float16(np.asarray(v)) for name, v in _named(backbone).items()}


def fingerprint(backbone: keras.Model) -> str:
    """SHA-256 (hex) over the values of all weights: equal for equal networks, whatever file they
    came from."""
    digest = hashlib.sha256()
    for variable in backbone.variables:
        digest.update(np.ascontiguousarray(variable, dtype=np.float32).tobytes())
    return digest.hexdigest()


def _named(backbone: keras.Model) -> dict[str, keras.Variable]:
    # Keras numbers layers across the whole process, so its own paths differ from call to call.
    return {f"{i:03d}.{v.name}": v for i, v in enumerate(backbone.variables)}


def _to_float16(array: np.ndarray) -> np.ndarray:
    largest = np.abs(array).max(initial=0.0)
    return array.astype(np.float16 if largest <= np.finfo(np.float16).max else np.float32)


def _load_local(backbone: keras.Model, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            arrays = load_file(path)
            _assign(backbone, arrays)
        else:
            backbone.load_weights(path)
    except Exception as error:  # h5py, Keras and safetensors each have exceptions of their own
        raise BackboneError(
            f"{path} does not hold weights of InceptionV3 without its top ({error}). Give a file "
            "saved from keras.applications.InceptionV3(include_top=False), or fetch it again."
        ) from error
    for variable in backbone.variables:
        variable.assign(_to_float16(np.asarray(variable)).astype(np.float32))


def _assign(backbone: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    for name, variable in _named(backbone).items():
        array = arrays.get(name)
        if array is None or array.shape != tuple(variable.shape):
            found = "missing" if array is None else f"of shape {array.shape}"
            raise ValueError(f"{name} is {found}, expected {tuple(variable.shape)}")
        variable.assign(array.astype(np.float32))
