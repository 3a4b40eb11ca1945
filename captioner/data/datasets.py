"""Captioned photos on disk, read into one list of records: Flickr8k, MS-COCO 2014, or one's own."""

from __future__ import annotations

import os

from captioner.data.captions_file import DatasetError, abbreviate
from captioner.data.coco import COCO_URL, read_coco
from captioner.data.flickr8k import read_flickr8k
from captioner.data.folder import read_folder, read_karpathy
from captioner.data.records import Record, check_no_leak, sample_records, select_subset

__all__ = [
    "COCO_URL",
    "DatasetError",
    "Record",
    "abbreviate",
    "check_no_leak",
    "read_coco",
    "read_dataset",
    "read_flickr8k",
    "read_folder",
    "read_karpathy",
    "sample_records",
    "select_subset",
]


def read_dataset(
    name: str, data_dir: str | os.PathLike[str], *, num_images: int | None = None, seed: int = 0
) -> list[Record]:
    """Read the records to train with: "coco", "flickr8k" or "folder".

    COCO: `num_images` of the train2014 images (None: all), divided 80/20 into "train" and "val" by
    `select_subset`. Flickr8k: the official splits; `num_images` limits the training photos alone,
    so that scores on "val" and "test" stay comparable with published ones. Folder: `read_folder`'s
    splits, limited in the same way.

    Raises DatasetError if the data cannot be read or the name is another, ValueError if
    `num_images` is less than 1.
    """
    if name == "coco":
        return select_subset(read_coco(data_dir, "train"), num_images, seed)
    if name in ("flickr8k", "folder"):
        folder = name == "folder"
        records = read_folder(data_dir, seed=seed) if folder else read_flickr8k(data_dir)
        if num_images is None:
            return records
        train = [record for record in records if record.split == "train"]
        others = [record for record in records if record.split != "train"]
        return sample_records(train, num_images, seed) + others
    raise DatasetError(f'no data set "{name}"; there are "coco" and "flickr8k", and "folder"')
