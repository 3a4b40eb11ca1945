"""Training photos and their mirror images, in turns: twice the photos, from a second cache.

A caption is as true of the mirror image, unless it names a side. The frozen network's features of a
mirrored photo are not those of the photo mirrored, so they are extracted as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from captioner.data.datasets import Record
from captioner.data.words import split_words
from captioner.model.feature_cache import FeatureCache


@dataclass(frozen=True)
class MirroredAtTimes:
    """Stands where a feature cache does: for half of the images, features of the mirrored photo.

    Which half depends on seed, epoch and image alone. Images of which `mirrored` has no features
    are always seen as they are.
    """

    upright: FeatureCache
    mirrored: FeatureCache
    seed: int
    epoch: int

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """float16 (n, locations, channels), in the order of `image_ids`."""
        return np.concatenate(
            [
                (self.mirrored if self.is_mirrored(i) else self.upright).gather([i])
                for i in image_ids
            ]
        )

    def is_mirrored(self, image_id: str) -> bool:
        """Whether the image is seen mirrored in this epoch."""
        if image_id not in self.mirrored:
            return False
        name = [self.seed, self.epoch, 3, *image_id.encode()]
        return bool(np.random.default_rng(name).random() < 0.5)


def names_a_side(record: Record) -> bool:
    """Whether a caption of it would be wrong of the mirror image."""
    words: set[str] = set().union(*map(split_words, record.captions))
    return not words.isdisjoint({"left", "right"})
