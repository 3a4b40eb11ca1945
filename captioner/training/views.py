"""Several views of each training photo: as it is, mirrored, and cropped.

A caption is true of the mirror image as well, unless it names a side, and of a large part of the
photo. The frozen network's features of a mirrored photo are not the mirrored features of the photo,
so each view has a feature cache of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from captioner.model.feature_cache import FeatureCache


@dataclass(frozen=True)
class ViewsInTurn:
    """Takes the place of a feature cache. In each epoch, one view of every image is used.

    The view is drawn with equal probabilities, and depends only on the seed, the epoch and the
    image. The first of `caches` has all images as they are; the others may have only some.
    """

    caches: Sequence[FeatureCache]
    seed: int
    epoch: int

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """float16 (n, locations, channels), in the order of `image_ids`."""
        return np.concatenate([self.caches[self.view_of(i)].gather([i]) for i in image_ids])

    def view_of(self, image_id: str) -> int:
        """The number of the cache that gives the image's features in this epoch."""
        having = [n for n, cache in enumerate(self.caches) if image_id in cache]
        if len(having) == 1:
            return having[0]
        name = [self.seed, self.epoch, 3, *image_id.encode()]
        drawn = np.random.default_rng(name).random()
        # Counted from the last one, so that the draws mean the same as in earlier versions.
        return having[-1 - int(drawn * len(having))]
