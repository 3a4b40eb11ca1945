"""The table of backbones: what each is built by, and all that the rest of the program asks of it.

To add one, write its builder and one entry of `BACKBONES`; `docs/extending.md` walks through it.
Importing this module does not import Keras, so that options can be checked before.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import CaptionerError

if TYPE_CHECKING:
    import keras

IMAGENET = "imagenet"


class BackboneError(CaptionerError, ValueError):
    """A backbone that does not exist or cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class Backbone:
    """An entry of the table.

    Args:
        title: What people call it, for messages and model cards.
        build: The network without its top, for photos of so many pixels on both sides, with the
            weights "imagenet" or, if None, with any: (batch, size, size, 3) in -1..1 -> (batch,
            rows, columns, channels). One that was trained on pixels of another range begins with a
            layer that converts them.
        image_size: Pixels on both sides of the photos that it is used on.
        least_image_size: The fewest that it can take.
        shape: Rows, columns and channels of its features at `image_size`.
        source: What files of its weights are saved from, for messages.
        blocks: The layers that end its blocks, from first to last, by name: fine-tuning may begin
            with any of these blocks, and goes on to the last layer.
        first_block: The number of the first layer of the first block; by default that is all
            behind the input.
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
        # Keras sorts layers by depth, and all those of a block read the end of the one before.
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
        if str(weights) != IMAGENET and not Path(weights).is_file():
            raise BackboneError(
                f"no backbone weights at {weights}. Give the path of a .weights.h5 or .safetensors "
                f'file with those of {self.title}, or "{IMAGENET}" to download the public ones.'
            )


def model_sizes(shape: Sequence[int]) -> dict[str, int]:
    """The fields of `ModelConfig` that follow from the shape of a backbone's features."""
    return dict(zip(("rows", "columns", "channels"), shape, strict=True))


def _inception_v3(image_size: int, weights: str | None) -> keras.Model:
    """Szegedy et al. 2015, arXiv 1512.00567."""
    import keras

    return keras.applications.InceptionV3(
        include_top=False, weights=weights, input_shape=(image_size, image_size, 3)
    )


def _behind_the_second_pooling(network: keras.Model) -> int:
    """InceptionV3's stem ends there."""
    import keras

    pools = [
        i for i, layer in enumerate(network.layers) if isinstance(layer, keras.layers.MaxPooling2D)
    ]
    return pools[1] + 1


# By the name on the command line and in checkpoints. The first is the one that is used by default.
BACKBONES: dict[str, Backbone] = {
    "inception_v3": Backbone(
        title="InceptionV3",
        build=_inception_v3,
        image_size=299,
        least_image_size=75,
        shape=(8, 8, 2048),
        source="keras.applications.InceptionV3(include_top=False)",
        blocks=tuple(f"mixed{i}" for i in range(11)),
        first_block=_behind_the_second_pooling,
    ),
}
DEFAULT = next(iter(BACKBONES))


def backbone(name: str) -> Backbone:
    """The entry called `name`. Raises `BackboneError`, which names the nearest that there is."""
    if name in BACKBONES:
        return BACKBONES[name]
    near = difflib.get_close_matches(name, BACKBONES, 1)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    raise BackboneError(f'no backbone "{name}"; there are {", ".join(BACKBONES)}.{hint}')
