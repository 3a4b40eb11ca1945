"""The cache of photos' features on disk.

It is a folder of shards. A shard is an array `shard-<key>.npy`, float16 (images, locations,
channels), which training maps into memory, and a file `shard-<key>.json` with the image ids and the
SHA-256 of the photos and of the array. The JSON file is written last, so an array without one is
not a shard yet. `stamp.json` says what made the features; a cache with another stamp is refused.
`verified.jsonl` only saves time: see `Digests`.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from captioner.data.datasets import Record
from captioner.errors import CaptionerError
from captioner.files import (
    allow_open_files,
    atomic_file,
    make_folder,
    system_fault,
    write_bytes,
    write_fault,
)
from captioner.model.hash_cache import Digests

VERIFIED = "verified.jsonl"


class FeatureError(CaptionerError, RuntimeError):
    """Features cannot be made or trusted; the message names the file and the remedy."""


@dataclass(frozen=True)
class Stamp:
    """What made the features. Features with different stamps must not be mixed."""

    backbone: str
    fingerprint: str
    image_size: int
    preprocessing: str = "upright RGB over white, squeezed bilinearly, scaled to -1..1"
    dtype: str = "float16"


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
    """The features of many images on disk, read by image id.

    Opening a cache verifies the stamp and the SHA-256 of every shard.

    Args:
        folder: The folder of the cache. It is created if it does not exist.
        stamp: What must have made the features.
        records: The photos. If a photo was replaced after its features were made, they are left
            out, and its id is in `replaced`. For an image that is not in `records`, the features
            that were made last are used.

    Raises:
        FeatureError: The cache has another stamp, is damaged or cannot be written to.
    """

    def __init__(self, folder: Path, stamp: Stamp, records: Sequence[Record] = ()) -> None:
        self.folder = Path(folder)
        self.digests = Digests(self.folder / VERIFIED)
        self.replaced: list[str] = []
        _check_stamp(self.folder, stamp)
        oldest_first = sorted((p.stat().st_mtime_ns, p) for p in self.folder.glob("shard-*.json"))
        allow_open_files(4 * len(oldest_first))  # a mapped file stays open
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
            elif photo is not None:  # if the photo itself is missing, its features are used
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
            if digest is None:  # it could be opened a moment ago
                raise FeatureError(f"{shard.data_file} cannot be read any more. Run again.")
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
    # The checksum covers only the bytes of the array. Its type is checked here, and the key in the
    # file's name shows whether the ids and photos are those that were written.
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


def _check_stamp(folder: Path, stamp: Stamp) -> None:
    """Writes the stamp into a new cache. Raises `FeatureError` if a cache has another stamp."""
    path = folder / "stamp.json"
    if not path.exists():
        if any(folder.glob("shard-*.json")):
            raise FeatureError(
                f"{path} is missing, so what made the features is unknown. Put it back, or "
                "give another folder for the features (--features)."
            )
        try:
            make_folder(folder)
            write_bytes(path, json.dumps(asdict(stamp), indent=2).encode())
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise FeatureError(write_fault(folder, error, "--features")) from error
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not found:
            raise ValueError("it is empty")
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
    """Adds a shard to a cache.

    Args:
        folder: The folder of the cache.
        photos: The image ids, each with the SHA-256 of the photo's file, or with None if a change
            to the file does not matter.
        features: float16 (images, locations, channels), in the order of `photos`.
    """
    index = {"ids": [*photos], "photos": [*photos.values()], "sha256": _sha256(features)}
    key = _key(index["ids"], index["photos"])
    with atomic_file(folder / f"shard-{key}.npy") as file:
        np.save(file, features, allow_pickle=False)
    write_bytes(folder / f"shard-{key}.json", json.dumps(index).encode())


def _key(ids: Sequence[str], photos: Sequence[str | None] | None) -> str:
    # An earlier version wrote shards without `photos`.
    named = "\n".join(ids) if photos is None else json.dumps([ids, photos])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
