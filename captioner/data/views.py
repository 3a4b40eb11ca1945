"""How a photo is shown in training: as it is, mirrored, or cropped to a random part."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from captioner.data.datasets import Record
from captioner.data.images import to_square
from captioner.data.words import split_words

AREA = (0.55, 1.0)  # a crop's area, as a share of the photo's
ASPECT = (0.8, 1.25)  # a crop's ratio of width to height, divided by the photo's


@dataclass(frozen=True)
class View:
    """One fixed way to show each photo: the same photo is shown in the same way at every run."""

    mirrored: bool = False
    crop: int = 0  # the number of a random crop, from 1 on, or 0 for the whole photo

    @property
    def name(self) -> str:
        """The name of the folder of the view's features; empty for the photo as it is."""
        return "mirrored" if self.mirrored else f"crop-{self.crop}" if self.crop else ""

    @property
    def description(self) -> str:
        """What the view adds to the description of the preprocessing (`feature_cache.Stamp`)."""
        if self.mirrored:
            return ", mirrored"
        if self.crop:
            return f", crop {self.crop} of {AREA[0]:.0%} to {AREA[1]:.0%}"
        return ""

    def suits(self, record: Record) -> bool:
        """Whether the photo's captions are true of this view, too."""
        return not (self.mirrored and names_a_side(record))

    def show(self, record: Record, photo: Image.Image, size: int) -> np.ndarray:
        """The view of a photo, uint8 (size, size, 3).

        Half of the crops are mirrored, unless a caption names a side.
        """
        if self.crop:
            rng = np.random.default_rng([self.crop, zlib.crc32(record.image_id.encode())])
            photo = random_crop(photo, rng)
            if rng.random() < 0.5 and not names_a_side(record):
                photo = ImageOps.mirror(photo)
        pixels = to_square(photo, size)
        return pixels[:, ::-1] if self.mirrored else pixels


AS_IT_IS = View()


def further_views(mirror: bool, crops: int) -> list[View]:
    """The views of training photos besides the photos as they are."""
    return [View(mirrored=True)] * mirror + [View(crop=n + 1) for n in range(crops)]


def names_a_side(record: Record) -> bool:
    """Whether a caption has "left" or "right" in it, and would be wrong for the mirror image."""
    return _name_a_side(record.captions)


@cache  # because every epoch asks it of all photos
def _name_a_side(captions: tuple[str, ...]) -> bool:
    words: set[str] = set().union(*map(split_words, captions))
    return not words.isdisjoint({"left", "right"})


def draw_crop_size(rng: np.random.Generator) -> np.ndarray:
    """Draws the width and the height of a crop, as shares of the photo's: float64 (2,)."""
    area, aspect = rng.uniform(*AREA), np.exp(rng.uniform(*np.log(ASPECT)))
    return np.minimum(1, [np.sqrt(area * aspect), np.sqrt(area / aspect)])


def random_crop(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of the photo at a random place, of random area (`AREA`) and shape (`ASPECT`)."""
    shares = draw_crop_size(rng)
    size = np.maximum(1, np.rint(shares * photo.size)).astype(int)
    left, top = rng.integers(0, np.array(photo.size) - size + 1)
    return photo.crop((left, top, left + size[0], top + size[1]))
