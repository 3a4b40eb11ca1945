"""The table of backbones: how each is built, and everything the program needs to know about it.

To add one, write its builder and one entry of `BACKBONES`; `docs/extending.md` walks through it.
This module does not import Keras, so that options can be checked before Keras is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.config import nearest
from captioner.errors import CaptionerError
from captioner.files import NOT_PULLED, is_lfs_pointer

if TYPE_CHECKING:
    import keras

IMAGENET = "imagenet"


class BackboneError(CaptionerError, ValueError):
    """A backbone does not exist or cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class Backbone:
    """An entry of the table.

    Args:
        title: What people call the network, for messages and model cards.
        build: Builds the network without its top, for photos of a given size in pixels, with the
            weights "imagenet", or with arbitrary weights if they are None. The network maps (batch,
            size, size, 3) in -1..1 to (batch, rows, columns, channels). If it was trained on pixels
            of another range, its first layer must convert them.
        image_size: The default height and width of photos in pixels.
        least_image_size: The smallest height and width of photos in pixels.
        shape: The rows, columns and channels of the features at `image_size`.
        source: The network that files of weights are saved from, for messages.
        blocks: The names of the last layers of the blocks, from first to last. Fine-tuning may
            begin with any of these blocks, and includes all later layers.
        first_block: Returns the number of the first layer of the first block; by default the layer
            after the input.
    """

    title: str
    build: Callable[[int, str | None], keras.Model]
    image_size: int
    least_image_size: int
    shape: tuple[int, int, int]
    source: str
    blocks: tuple[str, ...] = ()
    first_block: Callable[[keras.Model], int] = lambda network: 1

    def first_layer(self, network: keras.Model, block: str) -> int:
        """The number of the first layer of `block`. Raises `BackboneError` if there is none."""
        self.check_block(block)
        number = self.blocks.index(block)
        if number == 0:
            return self.first_block(network)
        # Keras sorts layers by depth, and a block only reads the last layer of the block before.
        return [layer.name for layer in network.layers].index(self.blocks[number - 1]) + 1

    def check_block(self, block: str) -> None:
        """Raises `BackboneError`, which names the blocks, if none is called `block`."""
        if block not in self.blocks:
            known = ", ".join(self.blocks) or "none that can be fine-tuned"
            raise BackboneError(f'{self.title} has no block "{block}"; it has {known}.')

    def check_image_size(self, image_size: int) -> None:
        """Raises `BackboneError` for photos that are too small."""
        if image_size < self.least_image_size:
            raise BackboneError(
                f"photos of {image_size} pixels: {self.title} needs at least "
                f"{self.least_image_size}."
            )

    def check_weights(self, weights: str | os.PathLike) -> None:
        """Raises `BackboneError` unless `weights` is "imagenet" or a file."""
        if str(weights) == IMAGENET:
            return
        if is_lfs_pointer(Path(weights)):
            raise BackboneError(f"{weights} {NOT_PULLED}")
        if not Path(weights).is_file():
            raise BackboneError(
                f"no backbone weights at {weights}. Give the path of a .weights.h5 or .safetensors "
                f'file with those of {self.title}, or "{IMAGENET}" to download the public ones.'
            )


def model_sizes(shape: Sequence[int]) -> dict[str, int]:
    """The fields of `ModelConfig` that follow from the shape of a backbone's features."""
    return dict(zip(("rows", "columns", "channels"), shape, strict=True))


def _inception_v3(image_size: int, weights: str | None) -> keras.Model:
    """Builds InceptionV3 (Szegedy et al. 2015, arXiv 1512.00567)."""
    import keras

    return keras.applications.InceptionV3(
        include_top=False, weights=weights, input_shape=(image_size, image_size, 3)
    )


def _after_the_second_pooling(network: keras.Model) -> int:
    """The number of the layer after the second pooling, which ends the stem of InceptionV3."""
    import keras

    pools = [
        i for i, layer in enumerate(network.layers) if isinstance(layer, keras.layers.MaxPooling2D)
    ]
    return pools[1] + 1


# The keys are the names on the command line and in checkpoints. The first entry is the default.
BACKBONES: dict[str, Backbone] = {
    "inception_v3": Backbone(
        title="InceptionV3",
        build=_inception_v3,
        image_size=299,
        least_image_size=75,
        shape=(8, 8, 2048),
        source="keras.applications.InceptionV3(include_top=False)",
        blocks=tuple(f"mixed{i}" for i in range(11)),
        first_block=_after_the_second_pooling,
    ),
}
DEFAULT = next(iter(BACKBONES))


def backbone(name: str) -> Backbone:
    """The entry called `name`. If there is none, raises `BackboneError` with a similar name."""
    if name in BACKBONES:
        return BACKBONES[name]
    known = ", ".join(BACKBONES)
    raise BackboneError(f'no backbone "{name}"; there are {known}.{nearest(name, BACKBONES)}')
