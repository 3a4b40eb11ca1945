"""Features of photos: each distinct photo goes through the frozen backbone once, and its features
into a cache on disk.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from captioner.data.captions_file import abbreviate
from captioner.data.datasets import Record
from captioner.data.images import ImageError, load_image
from captioner.data.views import AS_IT_IS, View
from captioner.files import system_fault
from captioner.model.backbone import FoldedBackbone, fingerprint
from captioner.model.feature_cache import FeatureCache, FeatureError, Stamp, write_shard
from captioner.model.hash_cache import Digests

logger = logging.getLogger(__name__)

SHARD_IMAGES = 256  # 64 MB of InceptionV3 features; what is lost at most when a run is killed
STALLED = 600.0  # seconds without a new shard after which other hosts are given up


class Unreadable(NamedTuple):
    """A photo without features; the error itself would keep the file's content in memory."""

    image_id: str
    why: str
    fault: str | None  # of the system, where the photo may be whole


class FeatureExtractor:
    """Photos (batch, size, size, 3) -> float16 features (batch, locations, channels).

    Photos are uint8, as `images.to_square` gives them, or float32 in -1..1: the features are the
    same to the last bit.

    float16 here too, not only in the cache: a caption made from a photo and one made from its
    cached features then come from the same numbers. `view` says how `extract` shows the photos to
    it, and stands in the stamp.
    """

    def __init__(self, backbone: keras.Model, batch_size: int = 32, view: View = AS_IT_IS) -> None:
        self.backbone = backbone  # as trained: what the stamp is of
        self.network = FoldedBackbone(backbone)
        self.batch_size = batch_size
        self.view = view
        self.image_size = backbone.input_shape[1]
        self.shape = (
            backbone.output_shape[1] * backbone.output_shape[2],
            backbone.output_shape[3],
        )

    def stamp(self) -> Stamp:
        stamp = Stamp("inception_v3", fingerprint(self.backbone), self.image_size)
        return replace(stamp, preprocessing=stamp.preprocessing + self.view.description)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        features = self.network.predict_on_batch(images)  # (batch, rows, columns, channels)
        return np.asarray(features).reshape(len(images), *self.shape).astype(np.float16)

    def padded(self, images: np.ndarray) -> np.ndarray:
        """As calling it, but every batch has the full size, so that one compiled graph serves."""
        missing = self.batch_size - len(images)
        return self(np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))))[: len(images)]


def extract(
    records: Sequence[Record],
    extractor: FeatureExtractor,
    folder: Path,
    shard_images: int = SHARD_IMAGES,
    workers: int | None = None,
    part: int = 0,
    parts: int = 1,
    stalled: float = STALLED,
    skip: int = 0,
) -> FeatureCache:
    """The cache of `records`' features in `folder`: what is there is kept, the rest is extracted,
    and so are photos that were replaced.

    `parts` processes, on any hosts that share the folder, split the work: each is called with the
    same records and its own `part`, and returns when the work of all is done.

    Up to `skip` photos that cannot be read are reported and left out of the cache; only one process
    may do so, because none knows what the others left out.

    Raises `FeatureError` after everything else is done if more photos cannot be read, naming them,
    or if the other processes have left some undone and written nothing for `stalled` seconds.
    """
    if skip and parts > 1:
        raise FeatureError(
            "--skip-unreadable works on one host alone: leave it out, or the others."
        )
    stamp = extractor.stamp()
    if part:  # the first process writes the stamp: two at once would be in each other's way
        _wait_for(folder, set(), set(), stalled)
    distinct = list({r.image_id: r for r in records}.values())
    cache = FeatureCache(folder, stamp, distinct)
    missing = [r for r in distinct if r.image_id not in cache]
    if not missing:
        return cache
    if cache.replaced:
        logger.warning(
            "%d photos were replaced since their features were made, and are extracted again: %s",
            len(cache.replaced),
            abbreviate(cache.replaced),
        )
    # What is missing depends on when one looks, and processes that share the work must cut it up in
    # the same way. Alone, one rather has full shards.
    cut = missing if parts == 1 else distinct
    chunks = [cut[i : i + shard_images] for i in range(0, len(cut), shard_images)][part::parts]
    unreadable = _extract_chunks(chunks, cache, extractor, workers)
    _report(unreadable, len(distinct), skip)
    if parts > 1:
        _wait_for(folder, {r.image_id for r in missing}, cache.index_files, stalled)
    done = FeatureCache(folder, stamp, distinct)
    left_out = {photo.image_id for photo in unreadable}
    if replaced := [image_id for image_id in done.replaced if image_id not in left_out]:
        raise FeatureError(
            f"{len(replaced)} photos were replaced while features were made: "
            f"{abbreviate(replaced)}. Run again."
        )
    return done


def _extract_chunks(
    chunks: Sequence[Sequence[Record]],
    cache: FeatureCache,
    extractor: FeatureExtractor,
    workers: int | None,
) -> list[Unreadable]:
    """Writes a shard for what is missing of each chunk, and returns what cannot be read."""
    mine = [[r for r in chunk if r.image_id not in cache] for chunk in chunks]
    unreadable: list[Unreadable] = []
    total = sum(map(len, chunks))
    left = sum(map(len, mine))
    with tqdm(total=total, initial=total - left, unit="image", disable=None) as progress:
        progress.set_description("features")
        for chunk in mine:
            photos, features = _features_of(
                chunk, extractor, cache.digests, workers, unreadable, progress.update
            )
            if photos:
                write_shard(cache.folder, photos, features)
            cache.digests.save()
    return unreadable


def _report(unreadable: Sequence[Unreadable], total: int, skip: int) -> None:
    """Names the photos that cannot be read: as a warning if they may be left out."""
    if not unreadable:
        return
    count = f"{len(unreadable)} of {total} photos cannot be read"
    lines = [photo.why for photo in unreadable]
    faults = [photo.fault for photo in unreadable if photo.fault]
    if faults and skip:  # the photos may be whole, and are too good to be left out
        raise FeatureError(f"{count}, {len(faults)} of them by a fault of the system: {faults[0]}")
    if len(lines) <= skip:
        logger.warning("%s and are left out:\n%s", count, "\n".join(lines))
        return
    shown = "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else "")
    raise FeatureError(
        f"{count}: {shown} Replace or remove them and run again; the features of all others are "
        "kept."
    )


def _wait_for(folder: Path, ids: set[str], seen: set[Path], stalled: float) -> None:
    """Returns once other processes have put the stamp and the features of all `ids` in `folder`,
    in other files than those `seen` before."""
    last = time.monotonic()
    while ids or not (folder / "stamp.json").exists():
        new = set(folder.glob("shard-*.json")) - seen
        for index_file in new:
            ids = ids - set(json.loads(index_file.read_text(encoding="utf-8"))["ids"])
        if new:
            seen |= new
            last = time.monotonic()
        elif time.monotonic() - last > stalled:
            raise FeatureError(
                f"the other processes have left {len(ids)} of the photos undone, among them "
                f"{', '.join(sorted(ids)[:3])}, and written nothing to {folder} for {stalled:g} "
                "seconds. See what they said, and start the same command on all hosts again; the "
                "features that are there are kept."
                if ids
                else f"the first process has not begun the features in {folder} for {stalled:g} "
                "seconds. Start the same command on all hosts; they must share that folder."
            )
        else:
            time.sleep(0.2)


def _features_of(
    records: Sequence[Record],
    extractor: FeatureExtractor,
    digests: Digests,
    workers: int | None,
    unreadable: list[Unreadable],
    done: Callable[[int], object],
) -> tuple[dict[str, str | None], np.ndarray]:
    """The SHA-256 of the photos' files by image id, and their features in that order."""
    photos: dict[str, str | None] = {}
    parts: list[np.ndarray] = []
    for batch in _decoded_batches(records, extractor, digests, workers):
        good = [(r, *found) for r, found in batch if not isinstance(found, ImageError)]
        unreadable += [
            Unreadable(r.image_id, f"{r.path}: {e}", system_fault(e.__cause__ or e, Path(r.path)))
            for r, e in batch
            if isinstance(e, ImageError)
        ]
        if good:
            parts.append(extractor.padded(np.stack([pixels for _, _, pixels in good])))
            photos |= {r.image_id: photo for r, photo, _ in good}
        done(len(batch))
    return photos, np.concatenate(parts) if parts else np.empty((0, *extractor.shape), np.float16)


def _decoded_batches(
    records: Sequence[Record],
    extractor: FeatureExtractor,
    digests: Digests,
    workers: int | None,
) -> Iterator[list[tuple[Record, tuple[str | None, np.ndarray] | ImageError]]]:
    """Batches of decoded photos, and the SHA-256 of their files; the next ones are decoded while
    the network is at work."""

    def decode(record: Record) -> tuple[str | None, np.ndarray] | ImageError:
        try:
            # In this order: a photo that is replaced in between is extracted again the next time.
            photo = digests.of(record.path)
            shown = extractor.view.show(record, load_image(record.path), extractor.image_size)
            return photo, shown
        except ImageError as error:
            return error

    size = extractor.batch_size
    batches = [records[i : i + size] for i in range(0, len(records), size)]
    with ThreadPoolExecutor(workers or os.cpu_count(), "captioner decoding") as pool:
        waiting: list[list[Future]] = []
        ahead = iter(batches)
        for batch in batches:
            while len(waiting) < 3 and (upcoming := next(ahead, None)) is not None:
                waiting.append([pool.submit(decode, record) for record in upcoming])
            yield [(r, f.result()) for r, f in zip(batch, waiting.pop(0), strict=True)]
