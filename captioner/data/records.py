"""Photos with their captions and splits, and samples of them that are the same on every machine."""

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

    Attributes:
        image_id: Unique in the data set. For COCO it is the image's number, otherwise usually the
            file's stem.
        path: Where the photo is or, for COCO, where a download will put it.
        captions: At least one caption.
        split: "train", "val" or "test".
        url: Where the photo can be downloaded, if it can.
        dataset: The name of the data set, in a run that trains on several.
        by: For each caption, whether "people" or a "model" wrote it; empty if that is not known.
    """

    image_id: str
    path: Path
    captions: tuple[str, ...]
    split: str
    url: str | None = None
    dataset: str = ""
    by: tuple[str, ...] = ()


def sample_records(records: Iterable[Record], num_images: int | None, seed: int) -> list[Record]:
    """Draws a random sample of images.

    The order depends only on a hash of seed and image id. It is therefore the same on every machine
    and for every order of the input, and a larger sample begins with the images of a smaller one.

    Args:
        records: The images.
        num_images: The size of the sample. None, or a number larger than that of the images, stands
            for all images.
        seed: Which images are drawn, and in which order.

    Raises:
        ValueError: `num_images` is less than 1.
    """
    if num_images is not None and num_images < 1:
        raise ValueError(f"the number of images must be 1 or more, not {num_images}")

    def position(record: Record) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}:{record.image_id}".encode()).digest(), record.image_id

    shuffled = sorted(records, key=position)
    if num_images is not None and num_images > len(shuffled):
        logger.info(f"there are {len(shuffled)} images, not {num_images}: all of them are used")
    return shuffled[:num_images]


def select_subset(
    records: Iterable[Record], num_images: int | None, seed: int, val_fraction: float = 0.2
) -> list[Record]:
    """Draws images with `sample_records`, and divides them into "train" and "val".

    The validation images are spread evenly over the order of the sample, so that an image has the
    same split in a larger sample. Their number is the number of images times `val_fraction`,
    rounded.

    Raises:
        ValueError: A number is out of range.
        DatasetError: Two images have the same id or path, but different splits.
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
    """Raises DatasetError if an image id or a path occurs in two splits."""
    splits: dict[str | Path, str] = {}
    for record in records:
        for key in (record.image_id, record.path):
            if splits.setdefault(key, record.split) != record.split:
                raise DatasetError(
                    f'{record.path}: image {record.image_id} is both in "{splits[key]}" and in '
                    f'"{record.split}"; remove it from one of them'
                )
