"""Builds the networks of the table `backbones`, which turn photos into features.

The backbone is frozen. Local weights are rounded to float16 when they are read, because a
checkpoint stores them in float16: training and serving then use exactly the same network.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from safetensors.numpy import load_file

from captioner.data.images import NETWORK_INPUT
from captioner.files import system_fault
from captioner.model.backbones import DEFAULT, IMAGENET, Backbone, BackboneError, backbone
from captioner.model.backend import (
    FLOAT32,
    compiles_whole_steps,
    copy_weights,
    own_settings,
    precision,
    without_tensorflow,
)


@keras.saving.register_keras_serializable("captioner")
class Blank(keras.initializers.Initializer):
    """Initialises weights with zeros by NumPy, because a file's values replace them at once.

    Keras's own initialisers make JAX compile a program for each shape of a weight. For a
    hundred layers, that takes ten seconds on a CPU, and more on a GPU.
    """

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> np.ndarray:
        return np.zeros(shape, dtype or FLOAT32)


# Replaces Keras's initialisers, under the names that its layers and their configurations use.
BLANK = dict.fromkeys(("glorot_uniform", "GlorotUniform", "zeros", "Zeros", "ones", "Ones"), Blank)


def build_backbone(
    weights: str | os.PathLike = IMAGENET, image_size: int | None = None, name: str = DEFAULT
) -> keras.Model:
    """Builds a network of the table and loads its weights.

    Args:
        weights: "imagenet" (Keras downloads the file at its first use), a Keras `.weights.h5` file
            made for the same network, or a `.safetensors` file of the arrays that
            `backbone_arrays` returns.
        image_size: Height and width of the photos in pixels; by default those of the table.
        name: The name of an entry of `BACKBONES`; it becomes the model's name as well.

    Returns:
        A frozen model: float32 photos (batch, size, size, 3) in -1..1 -> (batch, rows, columns,
        channels).

    Raises:
        BackboneError: There is no such network, its weights cannot be downloaded or read, or they
            do not fit the network.
    """
    entry = backbone(name)
    entry.check_weights(weights)
    size = image_size or entry.image_size
    entry.check_image_size(size)
    source = IMAGENET if str(weights) == IMAGENET else None
    try:
        with keras.utils.custom_object_scope(BLANK), own_settings():
            network = entry.build(size, source)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if source is None:
            raise
        raise BackboneError(
            f"the ImageNet weights of {entry.title} could not be downloaded ({error}). Check the "
            "network, or give a local file with --backbone-weights FILE."
        ) from error
    if size == entry.image_size and network.output_shape[1:] != entry.shape:
        raise BackboneError(
            f"the features of {entry.title} are of shape {network.output_shape[1:]}, and its entry "
            f"in the table says {entry.shape}. Correct the entry."
        )
    if keras.config.dtype_policy().name != FLOAT32:
        # Another program has set a global policy. The features must be float32 nevertheless.
        network = copy_of(network)
    network.name = name
    network.trainable = False
    if source is None:
        _load_local(network, Path(weights), entry)
    return network


class FoldedBackbone(keras.Model):
    """Computes the same function as `backbone`, but faster.

    Each batch normalisation after a convolution is a factor and a bias per channel, and is folded
    into it (Jacob et al. 2017, arXiv 1712.05877, section 3.2). Those after other layers are not
    changed. The results differ from those of `backbone` by about 1e-6 of the largest feature.

    Photos (batch, size, size, 3) -> features (batch, rows, columns, channels). The photos are
    float32 in -1..1, or uint8 as `images.to_square` returns them, which are a quarter as many bytes
    to move to the device.

    The weights are copies, so later changes to `backbone` have no effect here. With
    `mixed_precision`, the convolutions multiply in bfloat16, and everything else is float32. The
    features have the given `dtype`; as float16, they are half as many bytes to move.
    """

    def __init__(
        self, backbone: keras.Model, mixed_precision: bool = False, dtype: str = FLOAT32
    ) -> None:
        super().__init__(dtype="float32")
        self._features = dtype
        self._products = precision(mixed_precision).compute_dtype
        layers = backbone.layers[1:]  # without the input; each comes after the layers it reads
        read = Counter(id(x) for layer in layers for x in _inputs(layer))
        norms = {id(x.input): x for x in layers if isinstance(x, keras.layers.BatchNormalization)}
        renamed: dict[int, int] = {}  # output of a normalisation -> output of its convolution
        self.others: list[keras.Layer] = []  # the layers with weights that are not convolutions
        self._steps = []  # (layer, its kernel and bias if it is a convolution, inputs, output)
        for layer in layers:
            output = id(layer.output)
            inputs = [renamed.get(id(x), id(x)) for x in _inputs(layer)]
            if isinstance(layer, keras.layers.Conv2D):
                straight = layer.activation is keras.activations.linear and read[output] == 1
                norm = norms.get(output) if straight else None
                if norm is not None:
                    renamed[id(norm.output)] = output
                self._steps.append((_conv_options(layer), self._fold(layer, norm), inputs, output))
            elif output not in renamed:
                self._steps.append((self._own(layer), (), inputs, output))
        self._ends = (id(backbone.input), renamed.get(id(backbone.output), id(backbone.output)))
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
                options, activation = layer
                kernel = ops.cast(weights[0], self._products)
                product = ops.conv(ops.cast(given, self._products), kernel, **options)
                values[output] = activation(ops.cast(product, FLOAT32) + weights[1])
            else:
                values[output] = layer(given)
        return ops.cast(values[last], self._features)

    def _own(self, layer: keras.Layer) -> keras.Layer:
        """Returns the layer itself if it has no weights, and otherwise a copy of it."""
        if not layer.weights:
            return layer
        with without_tensorflow():
            copy = layer.__class__.from_config(layer.get_config())
        copy.build(layer.input.shape)
        copy.set_weights(layer.get_weights())
        self.others.append(copy)
        return copy

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
    with keras.utils.custom_object_scope(BLANK), without_tensorflow():
        twin = keras.models.clone_model(backbone, input_tensors=photos, clone_function=copy)
    copy_weights(twin, backbone)
    return twin


def convolution_flop(layers: Iterable[keras.Layer]) -> float:
    """The floating-point operations of the convolutions among `layers` for one photo."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    convolutions = [layer for layer in layers if isinstance(layer, kinds)]
    return sum(2.0 * np.prod(x.output.shape[1:3]) * np.prod(x.kernel.shape) for x in convolutions)


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


def _inputs(layer: keras.Layer) -> list[keras.KerasTensor]:
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _conv_options(layer: keras.layers.Conv2D) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """The options of `ops.conv`, and the activation that is applied to its result."""
    options = {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
        "data_format": layer.data_format,
    }
    return options, layer.activation


def _to_float16(array: np.ndarray) -> np.ndarray:
    largest = np.abs(array).max(initial=0.0)
    return array.astype(np.float16 if largest <= np.finfo(np.float16).max else np.float32)


def _load_local(backbone: keras.Model, path: Path, entry: Backbone) -> None:
    try:
        if path.suffix == ".safetensors":
            arrays = load_file(path)
            _assign(backbone, arrays)
        else:
            backbone.load_weights(path)
    except Exception as error:  # h5py, Keras and safetensors each raise exceptions of their own
        raise BackboneError(
            system_fault(error, path)
            or f"{path} does not hold weights of {entry.title} without its top ({error}). Give a "
            f"file saved from {entry.source}, or fetch it again."
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
