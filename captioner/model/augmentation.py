"""Crops, mirror images and colours of training photos, made by the device as part of the model.

All random numbers are drawn beforehand by NumPy, so that they depend only on the seed. A crop is
two matrix products, which interpolate linearly between rows and between columns. They take little
time on accelerators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from captioner.data.images import NETWORK_INPUT
from captioner.data.views import draw_crop_size

Tensor = Any

COLOUR = (0.8, 1.2)  # factors on brightness, contrast and saturation
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)


def draw(rng: np.random.Generator, may_mirror: bool) -> np.ndarray:
    """Draws how a photo is shown in training.

    Returns:
        float32 (8,): top, left, height and width of the crop as shares of the photo, whether it is
        mirrored, and the factors on brightness, contrast and saturation.
    """
    width, height = draw_crop_size(rng)
    top, left = rng.random(2) * (1 - height, 1 - width)
    mirrored = rng.random() < 0.5 and may_mirror
    return np.array([top, left, height, width, mirrored, *rng.uniform(*COLOUR, 3)], np.float32)


def network_input(photos: Tensor) -> Tensor:
    """Converts uint8 photos (batch, size, size, 3) to float32 in -1..1."""
    return ops.take(NETWORK_INPUT, ops.cast(photos, "int32"), axis=0)


def augmented(photos: Tensor, shown: Tensor) -> Tensor:
    """Crops, mirrors and colours photos.

    Args:
        photos: uint8 (batch, size, size, 3).
        shown: float32 (batch, 8), the numbers from `draw` for each photo.

    Returns:
        float32 (batch, size, size, 3) in -1..1.
    """
    top, left, height, width, mirrored = (shown[:, i] for i in range(5))
    size = photos.shape[1]
    pixels = ops.cast(photos, "float32")
    rows = _interpolation(top, height, size)
    columns = _interpolation(left + mirrored * width, width * (1 - 2 * mirrored), size)
    pixels = ops.einsum("boi,biwc->bowc", rows, pixels)
    pixels = ops.einsum("bpw,bowc->bopc", columns, pixels)
    brightness, contrast, saturation = (shown[:, i, None, None, None] for i in (5, 6, 7))
    pixels = ops.clip(pixels * brightness, 0, 255)
    mean = ops.mean(_grey(pixels), axis=(1, 2), keepdims=True)  # (batch, 1, 1, 1)
    pixels = ops.clip(mean + (pixels - mean) * contrast, 0, 255)
    grey = _grey(pixels)
    pixels = ops.clip(grey + (pixels - grey) * saturation, 0, 255)
    return pixels / 127.5 - 1


def _interpolation(start: Tensor, extent: Tensor, size: int) -> Tensor:
    """The weights of interpolation: (batch, pixels of the crop, pixels of the line).

    The crop begins at `start` (batch,) and extends by `extent` (batch,), both as shares of the
    line. If `extent` is negative, the crop is mirrored.
    """
    middles = (np.arange(size, dtype=np.float32) + 0.5) / size
    places = (start[:, None] + extent[:, None] * middles) * size - 0.5
    places = ops.clip(places, 0, size - 1)
    distance = ops.abs(ops.expand_dims(places, -1) - np.arange(size, dtype=np.float32))
    return ops.maximum(1 - distance, 0)


def _grey(pixels: Tensor) -> Tensor:
    """The brightness of each pixel, (batch, height, width, 1)."""
    return ops.sum(pixels * GREY, axis=-1, keepdims=True)
