"""Extracts features: each distinct photo goes through the frozen backbone once, and its features
are stored in a cache on disk.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from captioner.data.captions_file import abbreviate
from captioner.data.datasets import Record
from captioner.data.images import ImageError, load_image
from captioner.data.views import AS_IT_IS, View
from captioner.files import make_folder, system_fault, write_fault
from captioner.machine import cores
from captioner.model.backbone import FoldedBackbone, fingerprint
from captioner.model.backend import predict, starter
from captioner.model.feature_cache import FeatureCache, FeatureError, Stamp, write_shard
from captioner.model.hash_cache import Digests

logger = logging.getLogger(__name__)

SHARD_IMAGES = 256  # 64 MB of InceptionV3's features; a killed run can lose two shards
LOCK = "features.lock"
REPORT_SECONDS = 60.0  # the least time between two lines in a log file
STALLED = 600.0  # seconds without a new shard after which other hosts are given up


class Unreadable(NamedTuple):
    """A photo that cannot be read. The error itself would keep the file's content in memory."""

    image_id: str
    why: str
    fault: str | None  # why the system could not read the photo, if that is the reason


def unreadable_photo(record: Record, error: ImageError) -> Unreadable:
    fault = system_fault(error.__cause__ or error, Path(record.path))
    return Unreadable(record.image_id, f"{record.path}: {error}", fault)


class FeatureExtractor:
    """Maps photos (batch, size, size, 3) to float16 features (batch, locations, channels).

    Photos are uint8, as `images.to_square` returns them, or float32 in -1..1. Both give exactly the
    same features. The features are float16 here, too, not only in the cache, so that a photo and
    its cached features give the same caption.

    Args:
        backbone: The network, as trained.
        batch_size: The photos in a full batch.
        mixed_precision: Whether convolutions multiply in bfloat16, which is also in the stamp.
    """

    def __init__(
        self,
        backbone: keras.Model,
        batch_size: int = 32,
        mixed_precision: bool = False,
    ) -> None:
        self.backbone = backbone  # the stamp has the fingerprint of this network
        self.network = FoldedBackbone(backbone, mixed_precision, "float16")
        self._starter = starter(self.network)
        self.mixed_precision = mixed_precision
        self.batch_size = batch_size
        self.view = AS_IT_IS
        self.image_size = backbone.input_shape[1]
        self.shape = (
            backbone.output_shape[1] * backbone.output_shape[2],
            backbone.output_shape[3],
        )

    def showing(self, view: View) -> FeatureExtractor:
        """The same compiled network, to which `extract` shows the photos in the given view. The
        view is a part of the stamp."""
        other = copy(self)
        other.view = view
        return other

    def stamp(self) -> Stamp:
        stamp = Stamp(self.backbone.name, fingerprint(self.backbone), self.image_size)
        precision = ", convolutions in bfloat16" * self.mixed_precision
        description = stamp.preprocessing + precision + self.view.description
        return replace(stamp, preprocessing=description)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        features = predict(self.network, images)  # (batch, rows, columns, channels)
        return np.asarray(features).reshape(len(images), *self.shape)

    def padded(self, images: np.ndarray) -> np.ndarray:
        """Like a call, but fills up the batch, so that only one size must be compiled."""
        return self(self._filled_up(images))[: len(images)]

    def start(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Begins what `padded` does, and returns a function that waits for the features.

        Under JAX, the next photos can be begun before the features of these are there: see
        `backend.starter`. Nothing else may use the extractor meanwhile.
        """
        features = self._starter(self._filled_up(images))
        return lambda: np.asarray(features)[: len(images)].reshape(len(images), *self.shape)

    def _filled_up(self, images: np.ndarray) -> np.ndarray:
        return np.pad(images, ((0, self.batch_size - len(images)), (0, 0), (0, 0), (0, 0)))


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
    """Extracts the missing features of photos, and those of photos that were replaced.

    Several processes, on any hosts that share the folder, can split the work. Each is called with
    the same records and its own `part`, and returns when the work of all is done.

    Args:
        records: The photos.
        extractor: Computes the features.
        folder: The folder of the cache.
        shard_images: How many photos a shard has.
        workers: The threads that decode photos; None for one per core.
        part: The number of this process, from 0 on.
        parts: The number of processes.
        stalled: The seconds without a new shard after which the other processes are given up.
        skip: How many photos that cannot be read are reported and left out. This must be 0 for
            several processes, because none of them knows what the others left out.

    Returns:
        The cache with the features of all photos that can be read.

    Raises:
        FeatureError: More than `skip` photos cannot be read (the message names them, and all others
            are extracted first), other processes have stalled, or the cache cannot be used.
    """
    if skip and parts > 1:
        raise FeatureError(
            "--skip-unreadable works on one host alone: leave it out, or the others."
        )
    stamp = extractor.stamp()
    if part:  # only the first process writes the stamp, so that two do not write it at once
        _wait_for(folder, set(), set(), stalled)
    distinct = list({r.image_id: r for r in records}.values())
    if (folder / "stamp.json").exists():  # nothing is written to a folder that has all
        cache = FeatureCache(folder, stamp, distinct)
        if all(r.image_id in cache for r in distinct):
            return cache
    # Runs may share the folder; the processes of one run write different shards.
    with _only_run(folder) if parts == 1 else nullcontext():
        cache = FeatureCache(folder, stamp, distinct)  # also with what another run has made
        missing = [r for r in distinct if r.image_id not in cache]
        _warn_of_replaced(cache)
        # Processes that share the work must divide it in the same way, so they divide all photos:
        # what is missing changes while they start. A single process divides the missing photos, so
        # that all its shards are full.
        cut = missing if parts == 1 else distinct
        chunks = [cut[i : i + shard_images] for i in range(0, len(cut), shard_images)][part::parts]
        unreadable = _extract_chunks(chunks, cache, extractor, workers)
        report_unreadable(unreadable, len(distinct), skip)
        if parts > 1:
            _wait_for(folder, {r.image_id for r in missing}, cache.index_files, stalled)
        done = FeatureCache(folder, stamp, distinct)
    _check_none_replaced(done, {photo.image_id for photo in unreadable})
    return done


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Waits until no other run adds features to the folder, and keeps others from it meanwhile."""
    lock = FileLock(folder / LOCK)
    try:
        make_folder(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("waiting for another run, which is adding features to %s", folder)
            lock.acquire()
    except OSError as error:
        raise FeatureError(write_fault(folder, error, "--features")) from error
    try:
        yield
    finally:
        lock.release()


def _warn_of_replaced(cache: FeatureCache) -> None:
    if cache.replaced:
        logger.warning(
            "%d photos were replaced since their features were made, and are extracted again: %s",
            len(cache.replaced),
            abbreviate(cache.replaced),
        )


def _check_none_replaced(cache: FeatureCache, left_out: set[str]) -> None:
    """Raises `FeatureError` if photos were replaced after their features had been made."""
    if replaced := [image_id for image_id in cache.replaced if image_id not in left_out]:
        raise FeatureError(
            f"{len(replaced)} photos were replaced while features were made: "
            f"{abbreviate(replaced)}. Run again."
        )


def _extract_chunks(
    chunks: Sequence[Sequence[Record]],
    cache: FeatureCache,
    extractor: FeatureExtractor,
    workers: int | None,
) -> list[Unreadable]:
    """Writes a shard of the missing photos of each chunk; returns the photos it cannot read."""
    mine = [[r for r in chunk if r.image_id not in cache] for chunk in chunks]
    unreadable: list[Unreadable] = []
    total = sum(map(len, chunks))
    left = sum(map(len, mine))
    progress = _Progress(", ".join(filter(None, ("features", extractor.view.name))), total, left)
    # A shard is hashed and written while the network computes the next one. There is one writer, so
    # that no more than two shards are in memory.
    with progress, ThreadPoolExecutor(1, "captioner shards") as writer:
        decoded = _decoded_batches(mine, extractor, cache.digests, workers)
        computed = _computed_batches(decoded, extractor, unreadable, progress.add)
        written: Future = writer.submit(int)
        for chunk in mine:
            batches = list(islice(computed, -(-len(chunk) // extractor.batch_size)))
            photos = {i: digest for digests, _ in batches for i, digest in digests.items()}
            written.result()  # or its error
            if photos:
                features = np.concatenate([features for _, features in batches])
                written = writer.submit(write_shard, cache.folder, photos, features)
            cache.digests.save()
            progress.report()
        written.result()
    return unreadable


class _Progress:
    """A progress bar; where there is no terminal, a line in the log from time to time."""

    def __init__(self, label: str, total: int, left: int) -> None:
        self._bar = tqdm(total=total, initial=total - left, unit="image", desc=label, disable=None)
        self._label, self._total, self._left = label, total, left
        self._done = 0
        self._begun = self._reported = time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, photos: int) -> None:
        self._done += photos
        self._bar.update(photos)

    def report(self) -> None:
        now = time.monotonic()
        if not self._bar.disable or now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        minutes = (now - self._begun) / self._done * (self._left - self._done) / 60
        at = self._total - self._left + self._done
        what = "%s: %d of %d photos, about %.0f min left"
        logger.info(what, self._label, at, self._total, minutes)


def report_unreadable(
    unreadable: Sequence[Unreadable], total: int, skip: int, kept: bool = True
) -> None:
    """Reports the photos that cannot be read: in a warning if they may be left out, otherwise in a
    `FeatureError`."""
    if not unreadable:
        return
    count = f"{len(unreadable)} of {total} photos cannot be read"
    lines = [photo.why for photo in unreadable]
    faults = [photo.fault for photo in unreadable if photo.fault]
    if faults and skip:  # such photos may be whole, so they must not be left out
        raise FeatureError(f"{count}, {len(faults)} of them by a fault of the system: {faults[0]}")
    if len(lines) <= skip:
        logger.warning("%s and are left out:\n%s", count, "\n".join(lines))
        return
    shown = "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else "")
    others = "; the features of all others are kept" * kept
    raise FeatureError(f"{count}: {shown} Replace or remove them and run again{others}.")


def _wait_for(folder: Path, ids: set[str], seen: set[Path], stalled: float) -> None:
    """Waits until other processes have written the stamp and the features of all `ids`.

    Args:
        folder: The folder of the cache.
        ids: The images whose features are missing.
        seen: The index files that were there before.
        stalled: The seconds without a new shard after which `FeatureError` is raised.
    """
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
                "seconds. See what they reported, and start the same command on all hosts again; "
                "finished features are kept."
                if ids
                else f"the first process has not begun the features in {folder} for {stalled:g} "
                "seconds. Start the same command on all hosts; they must share that folder."
            )
        else:
            time.sleep(0.2)


Decoded = tuple[str | None, np.ndarray] | ImageError  # a file's SHA-256 and the photo's pixels
Computed = tuple[dict[str, str | None], np.ndarray]  # files' SHA-256 by image id, features


def _computed_batches(
    batches: Iterable[list[tuple[Record, Decoded]]],
    extractor: FeatureExtractor,
    unreadable: list[Unreadable],
    done: Callable[[int], object],
) -> Iterator[Computed]:
    """Yields the features of each batch of decoded photos, in the order of its photos.

    Photos that cannot be read are left out and added to `unreadable`. `done` is called with the
    number of finished photos.
    """
    nothing = partial(np.empty, (0, *extractor.shape), np.float16)

    def started() -> Iterator[tuple[int, dict[str, str | None], Callable[[], np.ndarray]]]:
        for batch in batches:
            good = [(r, *found) for r, found in batch if not isinstance(found, ImageError)]
            unreadable.extend(unreadable_photo(r, e) for r, e in batch if isinstance(e, ImageError))
            wait = nothing
            if good:
                wait = extractor.start(np.stack([pixels for _, _, pixels in good]))
            yield len(batch), {r.image_id: photo for r, photo, _ in good}, wait
        yield 0, {}, nothing  # so that the last batch has one after it, too

    for (photos, digests, wait), _ in pairwise(started()):  # the next one has been started
        features = wait()
        done(photos)
        yield digests, features


def _decoded_batches(
    chunks: Sequence[Sequence[Record]],
    extractor: FeatureExtractor,
    digests: Digests,
    workers: int | None,
) -> Iterator[list[tuple[Record, Decoded]]]:
    """Yields the batches of each chunk, with what was found for each photo.

    The next batches are decoded while the network computes, also those of the next chunk.
    """

    def decode(record: Record) -> Decoded:
        try:
            # The file is hashed first. If it is replaced before it is decoded, the next run notices
            # that the hash is outdated, and extracts the photo again.
            photo = digests.of(record.path)
            return photo, extractor.view.show(record, load_image(record.path), extractor.image_size)
        except ImageError as error:
            return error

    size = extractor.batch_size
    batches = [c[i : i + size] for c in chunks for i in range(0, len(c), size)]
    with ThreadPoolExecutor(workers or cores(), "captioner decoding") as pool:
        waiting: list[list[Future]] = []
        ahead = iter(batches)
        for batch in batches:
            while len(waiting) < 3 and (upcoming := next(ahead, None)) is not None:
                waiting.append([pool.submit(decode, record) for record in upcoming])
            yield [(r, f.result()) for r, f in zip(batch, waiting.pop(0), strict=True)]
