"""InceptionV3 without its top (Szegedy et al. 2015, arXiv 1512.00567): photo in, features out.

The backbone is frozen. Local weights are rounded to float16 when they are read, because a
checkpoint stores them in float16: training and serving then use exactly the same network.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from safetensors.numpy import load_file

from captioner.data.images import NETWORK_INPUT
from captioner.errors import CaptionerError
from captioner.files import system_fault
from captioner.model.backend import (
    FLOAT32,
    compiles_whole_steps,
    copy_weights,
    own_settings,
    precision,
)

IMAGENET = "imagenet"


class BackboneError(CaptionerError, ValueError):
    """Backbone weights that cannot be used; the message names the file and the remedy."""


@keras.saving.register_keras_serializable("captioner")
class Blank(keras.initializers.Initializer):
    """Initialises weights with zeros by NumPy, because a file's values replace them at once.

    Keras's own initialisers make JAX compile a program for each shape of a weight. For InceptionV3,
    that takes ten seconds on a CPU, and more on a GPU.
    """

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> np.ndarray:
        return np.zeros(shape, dtype or FLOAT32)


# Replaces Keras's initialisers, under the names that its layers and their configurations use.
BLANK = dict.fromkeys(("glorot_uniform", "GlorotUniform", "zeros", "Zeros", "ones", "Ones"), Blank)


def build_backbone(weights: str | os.PathLike = IMAGENET, image_size: int = 299) -> keras.Model:
    """Builds the network and loads its weights.

    Args:
        weights: "imagenet" (Keras downloads the file at its first use), a Keras `.weights.h5` file
            made for `keras.applications.InceptionV3(include_top=False)`, or a `.safetensors` file
            of the arrays that `backbone_arrays` returns.
        image_size: Height and width of the photos in pixels, at least 75.

    Returns:
        A frozen model: float32 photos (batch, size, size, 3) in -1..1 -> (batch, rows, columns,
        2048).

    Raises:
        BackboneError: The weights cannot be downloaded or read, or do not fit the network.
    """
    source = IMAGENET if str(weights) == IMAGENET else None
    if source is None and not Path(weights).is_file():
        raise BackboneError(
            f"no backbone weights at {weights}. Give the path of an InceptionV3 .weights.h5 or "
            '.safetensors file, or "imagenet" to download the public ones.'
        )
    if image_size < 75:
        raise BackboneError(f"images of {image_size} pixels: InceptionV3 needs at least 75.")
    try:
        with keras.utils.custom_object_scope(BLANK), own_settings():
            backbone = keras.applications.InceptionV3(
                include_top=False, weights=source, input_shape=(image_size, image_size, 3)
            )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise BackboneError(
            f"the ImageNet weights of InceptionV3 could not be downloaded ({error}). Check the "
            "network, or give a local file with --backbone-weights FILE."
        ) from error
    if keras.config.dtype_policy().name != FLOAT32:
        # Another program has set a global policy. The features must be float32 nevertheless.
        backbone = copy_of(backbone)
    backbone.trainable = False
    if source is None:
        _load_local(backbone, Path(weights))
    return backbone


class FoldedBackbone(keras.Model):
    """Computes the same function as `backbone`, but faster.

    Each batch normalisation is a factor and a bias per channel, and is folded into the convolution
    before it (Jacob et al. 2017, arXiv 1712.05877, section 3.2). The results differ from those of
    `backbone` by about 1e-6 of the largest feature.

    Photos (batch, size, size, 3) -> features (batch, rows, columns, 2048). The photos are float32
    in -1..1, or uint8 as `images.to_square` returns them, which are a quarter as many bytes to move
    to the device.

    The weights are copies, so later changes to `backbone` have no effect here. Raises `ValueError`
    unless every normalisation follows a convolution.
    """

    def __init__(self, backbone: keras.Model) -> None:
        super().__init__(dtype="float32")
        layers = backbone.layers[1:]  # without the input; each comes after the layers it reads
        norms = {id(x.input): x for x in layers if isinstance(x, keras.layers.BatchNormalization)}
        renamed: dict[int, int] = {}  # output of a normalisation -> output of its convolution
        self._steps = []  # (layer, its kernel and bias if it is a convolution, inputs, output)
        for layer in layers:
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            inputs = [renamed.get(id(x), id(x)) for x in inputs]
            output = id(layer.output)
            if isinstance(layer, keras.layers.Conv2D):
                weights = self._fold(layer, norms.pop(output, None))
                self._steps.append((_conv_options(layer), weights, inputs, output))
            elif isinstance(layer, keras.layers.BatchNormalization):
                renamed[output] = inputs[0]
            else:
                self._steps.append((layer, (), inputs, output))
        if norms:
            raise ValueError("a batch normalisation does not follow a convolution")
        self._ends = (id(backbone.input), id(backbone.output))
        self.built = True
        self.compile(jit_compile=compiles_whole_steps())

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        first, last = self._ends
        if keras.backend.standardize_dtype(images.dtype) == "uint8":
            images = ops.take(NETWORK_INPUT, ops.cast(images, "int32"), axis=0)
        values = {first: images}
        for layer, weights, inputs, output in self._steps:
            given = [values[i] for i in inputs]
            given = given if len(given) > 1 else given[0]
            if weights:
                values[output] = ops.conv(given, weights[0], **layer) + weights[1]
            else:
                values[output] = layer(given)
        return values[last]

    def _fold(self, conv: keras.layers.Conv2D, norm: keras.layers.BatchNormalization | None):
        kernel = np.asarray(conv.kernel)  # (height, width, channels in, channels out)
        bias = np.asarray(conv.bias) if conv.use_bias else np.zeros(kernel.shape[-1], np.float32)
        if norm is not None:
            factor = 1 / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
            factor = factor * np.asarray(norm.gamma) if norm.scale else factor
            kernel = kernel * factor
            bias = (bias - np.asarray(norm.moving_mean)) * factor
            bias = bias + np.asarray(norm.beta) if norm.center else bias
        return tuple(
            self.add_weight(
                shape=array.shape, initializer=lambda *_, a=array, **__: a, trainable=False
            )
            for array in (kernel, bias)
        )


def copy_of(
    backbone: keras.Model, image_size: int | None = None, mixed_precision: bool = False
) -> keras.Model:
    """A model of the same layers with copies of the weights.

    Args:
        backbone: What to copy.
        image_size: Height and width of the photos in pixels; None for those of `backbone`.
        mixed_precision: Whether products are computed in bfloat16, not in float32.
    """
    size = image_size or backbone.input_shape[1]
    policy = precision(mixed_precision)

    def copy(layer: keras.Layer) -> keras.Layer:
        return layer.__class__.from_config(layer.get_config() | {"dtype": policy})

    photos = keras.Input((size, size, 3), dtype=FLOAT32)
    with keras.utils.custom_object_scope(BLANK):
        twin = keras.models.clone_model(backbone, input_tensors=photos, clone_function=copy)
    copy_weights(twin, backbone)
    return twin


def backbone_arrays(backbone: keras.Model) -> dict[str, np.ndarray]:
    """The weights by name ("000.kernel", ...), in float16 unless that overflows."""
    return {name: _to_float16(np.asarray(v)) for name, v in _named(backbone).items()}


def fingerprint(backbone: keras.Model) -> str:
    """SHA-256 (hex) over the values of all weights. Equal networks have equal fingerprints,
    whatever file they were read from."""
    digest = hashlib.sha256()
    for variable in backbone.variables:
        digest.update(np.ascontiguousarray(variable, dtype=np.float32).tobytes())
    return digest.hexdigest()


def _named(backbone: keras.Model) -> dict[str, keras.Variable]:
    # Keras numbers layers across the whole process, so its own paths differ from call to call.
    return {f"{i:03d}.{v.name}": v for i, v in enumerate(backbone.variables)}


def _conv_options(layer: keras.layers.Conv2D) -> dict[str, Any]:
    if layer.activation is not keras.activations.linear:
        raise ValueError(f"{layer.name} has an activation of its own")
    return {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
        "data_format": layer.data_format,
    }


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
    except Exception as error:  # h5py, Keras and safetensors each raise exceptions of their own
        raise BackboneError(
            system_fault(error, path)
            or f"{path} does not hold weights of InceptionV3 without its top ({error}). Give a "
            "file saved from keras.applications.InceptionV3(include_top=False), or fetch it again."
        ) from error
    round_weights(backbone)


def round_weights(backbone: keras.Model) -> None:
    """Rounds the weights to the values that `backbone_arrays` returns."""
    for variable in backbone.variables:
        variable.assign(_to_float16(np.asarray(variable)).astype(np.float32))


def _assign(backbone: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    for name, variable in _named(backbone).items():
        array = arrays.get(name)
        if array is None or array.shape != tuple(variable.shape):
            found = "missing" if array is None else f"of shape {array.shape}"
            raise ValueError(f"{name} is {found}, expected {tuple(variable.shape)}")
        variable.assign(array.astype(np.float32))
