"""All features of a run in the memory of the device, if they fit.

The features of Flickr8k's training and validation photos take 1.8 GB, and those of each further
view of the training photos 1.6 GB. Batches then hold row numbers in place of features, so that
little has to be sent to the device.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from captioner import machine
from captioner.model import backend
from captioner.model.feature_cache import FeatureCache
from captioner.training.views import ViewsInTurn

logger = logging.getLogger(__name__)
SHARE = 0.6  # of the device's free memory that features may take; see `finetuning` for photos
SHARE_OF_MAIN = 0.5  # of the main memory, where all of them are collected before they are sent
TOO_MANY = "%d %s are too many for the memory of the device, or of this machine"
BLOCK = 32  # images that a thread gathers at once; few, so that all threads end at the same time


@dataclass(frozen=True)
class ResidentFeatures:
    """The features on the device.

    Args:
        pool: float16 (rows, locations, channels) on the device.
        rows: For each view, the row of each image. The first view is the photos as they are.
    """

    pool: Any
    rows: Sequence[dict[str, int]]

    def seen_by(self, cache: FeatureCache | ViewsInTurn) -> RowNumbers:
        """Takes the place of `cache` in batches, and gives row numbers in place of features."""
        return RowNumbers(self, cache if isinstance(cache, ViewsInTurn) else None)


@dataclass(frozen=True)
class RowNumbers:
    """Takes the place of a feature cache, and gives the number of each image's row in the pool."""

    resident: ResidentFeatures
    views: ViewsInTurn | None

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """int32 (n,), in the order of `image_ids`."""
        rows, views = self.resident.rows, self.views
        found = [rows[views.view_of(i) if views else 0][i] for i in image_ids]
        return np.array(found, np.int32)


class DeviceCopy:
    """Copies features to the device when they are first needed, if they fit there.

    A phase of which no step is left needs none. Photos, which have to be decoded, would take long.

    Args:
        image_ids: See `make_resident`.
        caches: See `make_resident`.
        share: See `make_resident`.
    """

    def __init__(
        self, image_ids: Sequence[str], caches: Sequence[FeatureCache], share: float = SHARE
    ) -> None:
        self.image_ids, self.caches, self.share = image_ids, caches, share
        self._made: list[ResidentFeatures | None] = []

    def get(self) -> ResidentFeatures | None:
        """The features on the device, or None if they do not fit."""
        if not self._made:
            self._made.append(make_resident(self.image_ids, self.caches, self.share))
        return self._made[0]

    def release(self) -> None:
        """Frees the memory at once. Nothing may use the features afterwards."""
        for resident in filter(None, self._made):
            resident.pool.delete()
        self._made.clear()


def room_on_device(share: float = SHARE) -> float:
    """The bytes of features that may be copied to the device, of whose free memory they may take
    `share`. On a CPU there is no room."""
    return min(backend.free_device_memory() * share, machine.memory() * SHARE_OF_MAIN)


def make_resident(
    image_ids: Sequence[str], caches: Sequence[FeatureCache], share: float = SHARE
) -> ResidentFeatures | None:
    """Copies the features of the images to the device.

    Args:
        image_ids: The images.
        caches: The first has all images as they are; the others have further views of some images.
        share: The share of the device's free memory that they may take.

    Returns:
        The features on the device, or None if they do not fit there, or not into the main memory.
    """
    held = [[i for i in image_ids if i in cache] for cache in caches]
    count = sum(map(len, held))
    one = caches[0].gather(image_ids[:1])
    what = "photos" if one.dtype == np.uint8 else "features"
    if one.nbytes * count > room_on_device(share):
        if backend.free_device_memory():  # a CPU has no memory of its own
            logger.info(TOO_MANY, count, what)
        return None
    pool = np.empty((count, *one.shape[1:]), one.dtype)  # the parts would take as much again
    first = [sum(map(len, held[:n])) for n in range(len(held))]
    _fill(pool, caches, held, first)
    try:
        pool = backend.on_device(pool)
    except Exception as error:
        if not backend.is_out_of_memory(error):
            raise
        logger.info(TOO_MANY, count, what)  # other programs use the device, too
        return None
    logger.info("%d %s, %.1f GB, are on the device", count, what, one.nbytes * count / 1e9)
    rows = [
        {image_id: start + row for row, image_id in enumerate(ids)}
        for start, ids in zip(first, held, strict=True)
    ]
    return ResidentFeatures(pool, rows)


def _fill(
    pool: np.ndarray,
    caches: Sequence[FeatureCache],
    held: Sequence[list[str]],
    first: Sequence[int],
) -> None:
    """Copies the images in `held` from each cache to the rows of `pool`, from `first` on."""

    def copy(cache: FeatureCache, ids: list[str], row: int) -> None:
        pool[row : row + len(ids)] = cache.gather(ids)

    threads = ThreadPoolExecutor(machine.cores(), "captioner features")
    try:
        blocks = [
            threads.submit(copy, cache, ids[start : start + BLOCK], before + start)
            for cache, ids, before in zip(caches, held, first, strict=True)
            for start in range(0, len(ids), BLOCK)
        ]
        for block in blocks:
            block.result()
    finally:
        threads.shutdown(cancel_futures=True)  # after Ctrl-C, without waiting for all
