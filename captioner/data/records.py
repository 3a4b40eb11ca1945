"""Records: photos with their captions and splits, and samples of them that any machine repeats."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from captioner.data.captions_file import DatasetError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One photo and all its captions, as their authors wrote them.

    `image_id` is unique in the data set: the number for COCO, the file's stem for all others.
    `path` is where the photo is or, for COCO, where a download will put it. `split` is "train",
    "val" or "test". `url` is where the photo can be had from, None if nowhere. `dataset` is the
    name of the data set in a run that trains on several. `by` says of each caption who wrote it,
    "people" or "model"; it is empty where that is not known.
    """

    image_id: str
    path: Path
    captions: tuple[str, ...]
    split: str
    url: str | None = None
    dataset: str = ""
    by: tuple[str, ...] = ()


def sample_records(records: Iterable[Record], num_images: int | None, seed: int) -> list[Record]:
    """Pick `num_images` images (None, or more than there are: all), shuffled by `seed`.

    The order comes from a hash of seed and image id alone, so that it is the same on every machine
    and for every order of the input, and a larger sample begins with the smaller ones.

    Raises ValueError if `num_images` is less than 1.
    """
    if num_images is not None and num_images < 1:
        raise ValueError(f"the number of images must be 1 or more, not {num_images}")

    def position(record: Record) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}:{record.image_id}".encode()).digest(), record.image_id

    shuffled = sorted(records, key=position)
    if num_images is not None and num_images > len(shuffled):
        logger.info(f"{num_images} images asked for, using all {len(shuffled)} there are")
    return shuffled[:num_images]


def select_subset(
    records: Iterable[Record], num_images: int | None, seed: int, val_fraction: float = 0.2
) -> list[Record]:
    """Pick images by `sample_records` and divide them into "train" and "val", image by image.

    All captions stay with their image. The validation images are spread evenly over the sample's
    order, so that an image keeps its split in larger samples; of n images they are
    n * val_fraction, rounded.

    Raises ValueError if a number is out of range, DatasetError if an image id occurs twice.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"the validation fraction must be in [0, 1), not {val_fraction}")

    def num_val(num_images: int) -> int:
        return math.floor(num_images * val_fraction + 0.5)

    sample = sample_records(records, num_images, seed)
    subset = [
        replace(record, split="val" if num_val(index + 1) > num_val(index) else "train")
        for index, record in enumerate(sample)
    ]
    check_no_leak(subset)
    return subset


def check_no_leak(records: Sequence[Record]) -> None:
    """Raise DatasetError if an image, by id or by path, is in two splits."""
    splits: dict[str | Path, str] = {}
    for record in records:
        for key in (record.image_id, record.path):
            if splits.setdefault(key, record.split) != record.split:
                raise DatasetError(
                    f'{record.path}: image {record.image_id} is both in "{splits[key]}" and in '
                    f'"{record.split}"; remove it from one of them'
                )
