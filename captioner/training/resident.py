"""All features of a run in the memory of the device, where they fit.

Flickr8k's take 1.6 GB, and as much again for those of mirrored photos. Batches are then numbers of
rows, and nothing else has to reach the device.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from captioner.model import backend
from captioner.model.feature_cache import FeatureCache
from captioner.training.mirroring import MirroredAtTimes

logger = logging.getLogger(__name__)
SHARE = 0.6  # of the device's free memory, which features may take
BLOCK = 4096  # images that are gathered at a time


@dataclass(frozen=True)
class ResidentFeatures:
    """`pool`, float16 (rows, locations, channels) on the device, and the row of each image; those
    of mirrored photos come behind the others."""

    pool: Any
    upright: dict[str, int]
    mirrored: dict[str, int]

    def seen_by(self, cache: FeatureCache | MirroredAtTimes) -> RowNumbers:
        """What stands where `cache` does, and gives the numbers of its rows."""
        return RowNumbers(self, cache if isinstance(cache, MirroredAtTimes) else None)


@dataclass(frozen=True)
class RowNumbers:
    """Stands where a feature cache does: for each image, the number of its row in the pool."""

    resident: ResidentFeatures
    view: MirroredAtTimes | None

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """int32 (n,), in the order of `image_ids`."""
        resident, view = self.resident, self.view
        rows = [
            (resident.mirrored if view and view.is_mirrored(i) else resident.upright)[i]
            for i in image_ids
        ]
        return np.array(rows, np.int32)


def make_resident(
    image_ids: Sequence[str], cache: FeatureCache, mirrored: FeatureCache | None
) -> ResidentFeatures | None:
    """The features of the images on the device, or None where they would not fit."""
    room = backend.free_device_memory() * SHARE
    turned = [i for i in image_ids if mirrored is not None and i in mirrored]
    one = cache.gather(image_ids[:1])
    rows = len(image_ids) + len(turned)
    if one.nbytes * rows > room:
        return None
    blocks = [
        source.gather(ids[start : start + BLOCK])
        for source, ids in ((cache, list(image_ids)), (mirrored or cache, turned))
        for start in range(0, len(ids), BLOCK)
    ]
    logger.info("%d features, %.1f GB, lie on the device", rows, one.nbytes * rows / 1e9)
    upright = {image_id: row for row, image_id in enumerate(image_ids)}
    behind = {image_id: len(image_ids) + row for row, image_id in enumerate(turned)}
    return ResidentFeatures(backend.on_device(np.concatenate(blocks)), upright, behind)
