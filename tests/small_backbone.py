"""A network of three convolutions in InceptionV3's place, with which tests would take minutes."""

from __future__ import annotations

import os

import keras
import numpy as np
from safetensors.numpy import load_file


def small_backbone(
    weights: str | os.PathLike = "", image_size: int = 80, name: str = "inception_v3"
) -> keras.Model:
    """(80, 80, 3) -> (2, 2, 8), with InceptionV3's names for its last blocks.

    Its weights are those of a checkpoint's file, or else always the same random ones.
    """
    photo = x = keras.Input((image_size, image_size, 3))
    for name, strides in (("mixed8", 4), ("mixed9", 5), ("mixed10", 2)):
        x = keras.layers.Conv2D(8, 3, strides=strides, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(scale=False)(x)
        x = keras.layers.Activation("relu", name=name)(x)
    backbone = keras.Model(photo, x, name=name)
    arrays = load_file(weights) if str(weights).endswith(".safetensors") else {}
    random = np.random.default_rng(0)
    for number, variable in enumerate(backbone.variables):
        made_up = random.normal(0, 0.3, variable.shape).astype(np.float16)  # as checkpoints are
        if variable.name == "kernel":
            variable.assign(arrays.get(f"{number:03d}.kernel", made_up).astype(np.float32))
    return backbone
