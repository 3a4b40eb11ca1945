"""The table of data sets: how each is read and downloaded, and what the model card says about it.

To add one, write its reader and one entry of `DATASETS`; `docs/extending.md` walks through it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from captioner.config import nearest
from captioner.data.captions_file import DatasetError, abbreviate
from captioner.data.coco import (
    COCO_URL,
    check_release,
    has_official_val,
    read_coco,
    read_coco2017,
    read_coco_evaluation,
    read_coco_training,
)
from captioner.data.flickr8k import read_flickr8k
from captioner.data.folder import read_folder
from captioner.data.records import Record, check_no_leak, sample_records, select_subset

__all__ = [
    "COCO_URL",
    "DATASETS",
    "DataSet",
    "DatasetError",
    "Record",
    "abbreviate",
    "check_no_leak",
    "dataset",
    "limited",
    "read_coco",
    "read_dataset",
    "read_flickr8k",
    "read_folder",
    "sample_records",
    "select_subset",
    "title_of",
]

# Reads the records of all splits. Its arguments are the folder, the most training photos to return
# (None for all), and the seed that chooses them. It raises DatasetError.
Reader = Callable[[Path, int | None, int], list[Record]]
# Downloads what is missing, then reads the records. Its arguments are those of a reader, and
# whether to show progress. It raises DatasetError or DownloadError.
Fetcher = Callable[[Path, int | None, int, bool], list[Record]]


@dataclass(frozen=True)
class DataSet:
    """An entry of the table.

    Args:
        title: What people call the data set; the model card uses it.
        read: Reads the records to train on.
        licence: What the publishers allow, as a phrase for the model card; "" if not known.
        public: Whether the name means the same data to everybody. If not, as for a user's own
            folder, reports use the folder's name.
        read_all: Reads the records to evaluate on, from a folder and a seed; None to use `read`.
        splits: The splits with published captions, which one can evaluate on.
        fetch: Downloads the data set; None if this program cannot.
        fetch_images: How many photos are downloaded by default.
        fetch_size: How large the download is, as a phrase for messages.
        is_complete: Whether a folder needs no download.
        scenes: What the photos show; the model card's section on limits uses it.
        published: Scores of other systems on the test photos, in percent, by system and metric.
    """

    title: str
    read: Reader
    licence: str = ""
    public: bool = True
    read_all: Callable[[Path, int], list[Record]] | None = None
    splits: tuple[str, ...] = ("val", "test")
    fetch: Fetcher | None = None
    fetch_images: int | str = "all"
    fetch_size: str = ""
    is_complete: Callable[[Path], bool] = os.path.isdir
    scenes: str = ""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def limited(read: Callable[[Path, int], list[Record]]) -> Reader:
    """Turns a function of folder and seed into a `Reader`.

    The reader's limit on the number of photos applies to the training photos alone, so that scores
    on "val" and "test" stay comparable with published ones.
    """

    def reader(data_dir: Path, num_images: int | None, seed: int) -> list[Record]:
        records = read(data_dir, seed)
        if num_images is None:
            return records
        train = [record for record in records if record.split == "train"]
        others = [record for record in records if record.split != "train"]
        return sample_records(train, num_images, seed) + others

    return reader


def _fetch_coco(data_dir: Path, num_images: int | None, seed: int, progress: bool) -> list[Record]:
    from captioner.data.coco_download import download_coco  # here, because only this needs httpx

    check_release(data_dir)
    address = os.environ.get("CAPTIONER_COCO_URL", COCO_URL)
    return download_coco(
        data_dir, num_images=num_images, seed=seed, base_url=address, progress=progress
    )


_read_own = limited(lambda data_dir, seed: read_folder(data_dir, seed=seed))
_RESEARCH = "for research and education that earn no money; its photos belong to their authors"
_CC_BY = "Creative Commons Attribution 4.0"

# The keys are the names on the command line, `--dataset NAME`.
DATASETS: dict[str, DataSet] = {
    "coco": DataSet(
        title="MS-COCO 2014",
        read=read_coco_training,
        licence=f"captions under {_CC_BY}; its photos under the terms of Flickr",
        read_all=read_coco_evaluation,
        splits=("val",),  # the test captions are not public
        fetch=_fetch_coco,
        fetch_images=6000,
        fetch_size="241 MB of captions, and about 160 KB for each photo",
        is_complete=has_official_val,
    ),
    "flickr8k": DataSet(
        title="Flickr8k",
        read=limited(lambda data_dir, seed: read_flickr8k(data_dir)),
        licence=_RESEARCH,
        scenes="mostly people, dogs and sports outdoors",
        published={  # Show, Attend and Tell (arXiv 1502.03044, table 1)
            "Show, Attend and Tell, soft attention": {
                "BLEU-1": 67.0, "BLEU-2": 44.8, "BLEU-3": 29.9, "BLEU-4": 19.5, "METEOR": 18.93
            },
            "Show, Attend and Tell, hard attention": {
                "BLEU-1": 67.0, "BLEU-2": 45.7, "BLEU-3": 31.4, "BLEU-4": 21.3, "METEOR": 20.30
            },
        },
    ),
    "folder": DataSet(title="a folder of photos", read=_read_own, public=False),
    # The following are read in the layouts of their publishers, see `layouts`.
    "flickr30k": DataSet(title="Flickr30k", read=_read_own, licence=_RESEARCH),
    "coco2017": DataSet(
        title="MS-COCO 2017",
        read=limited(read_coco2017),
        licence=f"captions under {_CC_BY}; its photos under the terms of Flickr",
        splits=("val",),
    ),
    "vizwiz": DataSet(title="VizWiz-Captions", read=_read_own, licence=_CC_BY, splits=("val",)),
    "nocaps": DataSet(title="nocaps", read=_read_own, splits=("val",)),
    "textcaps": DataSet(title="TextCaps", read=_read_own, licence=_CC_BY, splits=("val",)),
    "localized_narratives": DataSet(
        title="Localized Narratives", read=_read_own, licence=f"captions under {_CC_BY}"
    ),
}  # fmt: skip


def dataset(name: str) -> DataSet:
    """The entry called `name`. If there is none, raises DatasetError with the most similar name."""
    if name in DATASETS:
        return DATASETS[name]
    hint = nearest(name, DATASETS)
    raise DatasetError(f'no data set "{name}"; there are {", ".join(DATASETS)}.{hint}')


def title_of(name: str) -> str:
    """The title of a data set, or `name` itself if it is not in the table."""
    return DATASETS[name].title if name in DATASETS else name


def read_dataset(
    name: str, data_dir: str | os.PathLike[str], *, num_images: int | None = None, seed: int = 0
) -> list[Record]:
    """Reads the records of a data set to train on.

    Args:
        name: The data set, a key of `DATASETS`.
        data_dir: The folder it lies in.
        num_images: The most training photos to return; None for all. If COCO's val2014 photos are
            not there, this is instead the number of train2014 photos that are divided into "train"
            and "val".
        seed: Which photos are chosen.

    Raises:
        DatasetError: The data cannot be read, or there is no such data set.
        ValueError: `num_images` is less than 1.
    """
    return dataset(name).read(Path(data_dir), num_images, seed)


def read_split(
    name: str, data_dir: str | os.PathLike[str], split: str, seed: int
) -> tuple[list[Record], list[str]]:
    """The photos of a split to evaluate on, and the training captions that are on disk.

    Args:
        name: The data set, a key of `DATASETS`.
        data_dir: The folder it lies in.
        split: "val" or "test".
        seed: The seed of the checkpoint, which was also used to split a folder without splits.

    Returns:
        The records of the split, and all captions of "train". For COCO these are the captions of
        all of train2014, although the checkpoint may have been trained on a part of it.

    Raises:
        DatasetError: There are no photos of the split, or its captions are not public.
    """
    entry = dataset(name)
    if split not in entry.splits:
        raise DatasetError(
            f"{entry.title}'s {split} captions are not public: use --split {entry.splits[0]}."
        )
    read_all = entry.read_all or (lambda folder, seed: entry.read(folder, None, seed))
    found = read_all(Path(data_dir), seed)
    records = [r for r in found if r.split == split]
    if not records:
        raise DatasetError(f"no photos of the {split} split are in {data_dir}.")
    return records, [caption for r in found if r.split == "train" for caption in r.captions]
