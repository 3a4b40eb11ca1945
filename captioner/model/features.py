"""Features of photos, and the cache of them on disk.

Each distinct photo goes through the frozen backbone once. The cache is a folder of shards:
`shard-<key>.npy`, float16 (images, locations, channels), which training maps into memory, beside
`shard-<key>.json` with the image ids and the SHA-256 of the photos and of the array. The JSON file
is renamed into place last, so a shard without one does not exist. `stamp.json` says what made the
features; a cache made by anything else is refused. `verified.jsonl` only saves time: see `Digests`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from captioner.data.captions_file import abbreviate
from captioner.data.datasets import Record
from captioner.data.images import ImageError, load_image, to_square
from captioner.errors import CaptionerError
from captioner.files import allow_open_files, atomic_file, system_fault, write_bytes
from captioner.model.backbone import FoldedBackbone, fingerprint
from captioner.model.hash_cache import Digests

logger = logging.getLogger(__name__)

VERIFIED = "verified.jsonl"
SHARD_IMAGES = 256  # 64 MB of InceptionV3 features; what is lost at most when a run is killed
STALLED = 600.0  # seconds without a new shard after which other hosts are given up


class FeatureError(CaptionerError, RuntimeError):
    """Features that cannot be made or trusted; the message names the file and the remedy."""


@dataclass(frozen=True)
class Stamp:
    """What made the features: any difference means they are not interchangeable."""

    backbone: str
    fingerprint: str
    image_size: int
    preprocessing: str = "upright RGB over white, squeezed bilinearly, scaled to -1..1"
    dtype: str = "float16"


class FeatureExtractor:
    """Photos (batch, size, size, 3) -> float16 features (batch, locations, channels).

    Photos are uint8, as `images.to_square` gives them, or float32 in -1..1: the features are the
    same to the last bit.

    float16 here too, not only in the cache: a caption made from a photo and one made from its
    cached features then come from the same numbers. With `mirrored`, they are those of the photos'
    mirror images.
    """

    def __init__(self, backbone: keras.Model, batch_size: int = 32, mirrored: bool = False) -> None:
        self.backbone = backbone  # as trained: what the stamp is of
        self.network = FoldedBackbone(backbone)
        self.batch_size = batch_size
        self.mirrored = mirrored
        self.image_size = backbone.input_shape[1]
        self.shape = (
            backbone.output_shape[1] * backbone.output_shape[2],
            backbone.output_shape[3],
        )

    def stamp(self) -> Stamp:
        stamp = Stamp("inception_v3", fingerprint(self.backbone), self.image_size)
        if not self.mirrored:
            return stamp
        return replace(stamp, preprocessing=f"{stamp.preprocessing}, mirrored")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if self.mirrored:
            images = images[:, :, ::-1]
        features = self.network.predict_on_batch(images)  # (batch, rows, columns, channels)
        return np.asarray(features).reshape(len(images), *self.shape).astype(np.float16)

    def padded(self, images: np.ndarray) -> np.ndarray:
        """As calling it, but every batch has the full size, so that one compiled graph serves."""
        missing = self.batch_size - len(images)
        return self(np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))))[: len(images)]


@dataclass(frozen=True)
class _Shard:
    index_file: Path
    ids: list[str]
    photos: list[str | None]  # SHA-256 of their files; None in caches of an earlier version
    sha256: str
    features: np.ndarray  # float16 (images, locations, channels), on disk

    @property
    def data_file(self) -> Path:
        return self.index_file.with_suffix(".npy")


class FeatureCache:
    """Features of many images on disk, read by image id.

    Opening verifies the stamp and every shard's SHA-256 and raises `FeatureError` naming what is
    wrong. Features of `records` whose photo was replaced since are left out, and their ids are
    `replaced`; without records, an image has those that were made last.
    """

    def __init__(self, folder: Path, stamp: Stamp, records: Sequence[Record] = ()) -> None:
        self.folder = Path(folder)
        self.digests = Digests(self.folder / VERIFIED)
        self.replaced: list[str] = []
        _check_stamp(self.folder, stamp)
        oldest_first = sorted((p.stat().st_mtime_ns, p) for p in self.folder.glob("shard-*.json"))
        allow_open_files(4 * len(oldest_first))  # each is open as long as it is in memory
        shards = [_open_shard(path) for _, path in oldest_first]
        self.index_files = {shard.index_file for shard in shards}
        self._verify(shards)
        self._shards = [shard.features for shard in shards]
        versions: dict[str, dict[str | None, tuple[int, int]]] = {}
        for number, shard in enumerate(shards):
            for row, (image_id, photo) in enumerate(zip(shard.ids, shard.photos, strict=True)):
                versions.setdefault(image_id, {})[photo] = (number, row)
        # image id -> (shard, row)
        self._where = {image_id: [*rows.values()][-1] for image_id, rows in versions.items()}
        known = [r for r in records if versions.get(r.image_id, {None: ()}).keys() != {None}]
        photos = self.digests.of_all([r.path for r in known])
        for record, photo in zip(known, photos, strict=True):
            rows = versions[record.image_id]
            if photo in rows:
                self._where[record.image_id] = rows[photo]
            elif photo is not None:  # without the photo, its features are all there is
                self._where.pop(record.image_id)
                self.replaced.append(record.image_id)
        self.digests.save()

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._where

    def __len__(self) -> int:
        return len(self._where)

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """float16 (n, locations, channels), in the order of `image_ids`."""
        rows = [self._where[i] for i in image_ids]
        return np.stack([self._shards[shard][row] for shard, row in rows])

    def _verify(self, shards: Sequence[_Shard]) -> None:
        arrays = {shard.data_file: shard.features for shard in shards}
        found = self.digests.of_all([*arrays], lambda path: _sha256(arrays[path]))
        for shard, digest in zip(shards, found, strict=True):
            if digest != shard.sha256:
                raise _damaged(shard.index_file)


def _open_shard(index_file: Path) -> _Shard:
    data_file = index_file.with_suffix(".npy")
    try:
        index = json.loads(index_file.read_text(encoding="utf-8"))
        ids, photos, expected = index["ids"], index.get("photos"), index["sha256"]
        named_after = f"shard-{_key(ids, photos)}"
        features = np.load(data_file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a flipped bit in a header raises nearly anything
        raise FeatureError(
            system_fault(error, index_file, data_file)
            or f"{data_file} cannot be read ({error}). {_remedy(index_file)}"
        ) from error
    photos = [None] * len(ids) if photos is None else photos
    # The checksum is of the bytes alone: their type is the header's word, and that ids and photos
    # are as they were written, only the name tells.
    if (
        features.dtype != np.float16
        or features.shape[:1] != (len(ids),)
        or len(photos) != len(ids)
        or index_file.stem != named_after
    ):
        raise _damaged(index_file)
    return _Shard(index_file, ids, photos, expected, features)


def _damaged(index_file: Path) -> FeatureError:
    data_file = index_file.with_suffix(".npy")
    return FeatureError(
        f"{data_file} is damaged: its checksum does not match. {_remedy(index_file)}"
    )


def _remedy(index_file: Path) -> str:
    return (
        f"Delete {index_file.name} and {index_file.stem}.npy there and run again: only the images "
        "of that shard are extracted anew."
    )


def extract(
    records: Sequence[Record],
    extractor: FeatureExtractor,
    folder: Path,
    shard_images: int = SHARD_IMAGES,
    workers: int | None = None,
    part: int = 0,
    parts: int = 1,
    stalled: float = STALLED,
) -> FeatureCache:
    """The cache of `records`' features in `folder`: what is there is kept, the rest is extracted,
    and so are photos that were replaced.

    `parts` processes, on any hosts that share the folder, split the work: each is called with the
    same records and its own `part`, and returns when the work of all is done.

    Raises `FeatureError` after everything else is done if some photos cannot be read, naming them,
    or if the other processes have left some undone and written nothing for `stalled` seconds.
    """
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
    mine = [[r for r in chunk if r.image_id not in cache] for chunk in chunks]
    unreadable: list[str] = []
    total = sum(map(len, chunks))
    left = sum(map(len, mine))
    with tqdm(total=total, initial=total - left, unit="image", disable=None) as progress:
        progress.set_description("features")
        for chunk in mine:
            photos, features = _features_of(
                chunk, extractor, cache.digests, workers, unreadable, progress.update
            )
            if photos:
                write_shard(folder, photos, features)
            cache.digests.save()
    if unreadable:
        shown = "; ".join(unreadable[:5]) + ("; ..." if len(unreadable) > 5 else "")
        raise FeatureError(
            f"{len(unreadable)} of {len(records)} photos cannot be read: {shown} Replace or remove "
            "them and run again; the features of all others are kept."
        )
    if parts > 1:
        _wait_for(folder, {r.image_id for r in missing}, cache.index_files, stalled)
    done = FeatureCache(folder, stamp, distinct)
    if done.replaced:
        raise FeatureError(
            f"{len(done.replaced)} photos were replaced while features were made: "
            f"{abbreviate(done.replaced)}. Run again."
        )
    return done


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
    unreadable: list[str],
    done: Callable[[int], object],
) -> tuple[dict[str, str | None], np.ndarray]:
    """The SHA-256 of the photos' files by image id, and their features in that order."""
    photos: dict[str, str | None] = {}
    parts: list[np.ndarray] = []
    for batch in _decoded_batches(records, extractor, digests, workers):
        good = [(r, *found) for r, found in batch if not isinstance(found, ImageError)]
        unreadable += [f"{r.path}: {e}" for r, e in batch if isinstance(e, ImageError)]
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
            return photo, to_square(load_image(record.path), extractor.image_size)
        except ImageError as error:
            return error

    size = extractor.batch_size
    batches = [records[i : i + size] for i in range(0, len(records), size)]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        waiting: list[list[Future]] = []
        ahead = iter(batches)
        for batch in batches:
            while len(waiting) < 3 and (upcoming := next(ahead, None)) is not None:
                waiting.append([pool.submit(decode, record) for record in upcoming])
            yield [(r, f.result()) for r, f in zip(batch, waiting.pop(0), strict=True)]


def _check_stamp(folder: Path, stamp: Stamp) -> None:
    """Leaves the stamp in a new cache; refuses a cache that something else has made."""
    path = folder / "stamp.json"
    if not path.exists():
        if any(folder.glob("shard-*.json")):
            raise FeatureError(
                f"{path} is missing, so what made the features is unknown. Put it back, or "
                "give another folder for the features (--features)."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, json.dumps(asdict(stamp), indent=2).encode())
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise FeatureError(
                f"{folder} cannot be written to ({error.strerror}). Give another one for the "
                "features."
            ) from error
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not found:
            raise ValueError("it says nothing")
    except (OSError, ValueError) as error:
        raise FeatureError(
            system_fault(error, path)
            or f"{path} is damaged ({error}), so what made the features is unknown. Put it back, "
            "or give another folder for the features (--features)."
        ) from error
    for key, wanted in asdict(stamp).items():
        if found.get(key) != wanted:
            raise FeatureError(
                f"the features in {folder} were made with {key} = {found.get(key)!r}, not "
                f"{wanted!r}. Give another folder for the features (--features)."
            )


def write_shard(folder: Path, photos: Mapping[str, str | None], features: np.ndarray) -> None:
    """Adds float16 features (images, locations, channels) to a cache.

    `photos` are the images' ids with the SHA-256 of their files, or None for photos that may change
    without their features becoming wrong.
    """
    index = {"ids": [*photos], "photos": [*photos.values()], "sha256": _sha256(features)}
    key = _key(index["ids"], index["photos"])
    with atomic_file(folder / f"shard-{key}.npy") as file:
        np.save(file, features, allow_pickle=False)
    write_bytes(folder / f"shard-{key}.json", json.dumps(index).encode())


def _key(ids: Sequence[str], photos: Sequence[str | None] | None) -> str:
    # Without photos, as an earlier version wrote them.
    named = "\n".join(ids) if photos is None else json.dumps([ids, photos])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
