"""Several data sets in one training run.

Each data set keeps its own splits. Image ids get the data set's name in front, so that they cannot
collide. A run on one data set leaves the ids as they are, so its feature cache stays valid.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captioner.data.captions_file import DatasetError
from captioner.data.datasets import DATASETS, Record, dataset, read_dataset

ALL = "all"


_PLUS = " + "  # between the names of several data sets


@dataclass(frozen=True)
class Source:
    """A data set to train on."""

    kind: str  # a key of `DATASETS`
    folder: Path

    @property
    def name(self) -> str:
        """The name in reports: the kind, or the folder's name if the kind is not public."""
        return self.kind if DATASETS[self.kind].public else self.folder.resolve().name

    @property
    def is_incomplete(self) -> bool:
        """Whether files may be missing that this program can download."""
        entry = DATASETS[self.kind]
        return entry.fetch is not None and not entry.is_complete(self.folder)


def parse_sources(texts: Sequence[str], data_dir: Path | None = None) -> list[Source]:
    """Parses data sets as the command line names them, `KIND` or `KIND:FOLDER`.

    Args:
        texts: The data sets.
        data_dir: The folder of a single `KIND`; `data/KIND` by default.

    Raises:
        DatasetError: There is no such kind, or `data_dir` is given beside a `:FOLDER` or for
            several data sets.
    """
    sources = []
    for text in texts:
        kind, _, folder = text.partition(":")
        dataset(kind)
        if data_dir is not None and (folder or len(texts) > 1):
            raise DatasetError(
                "--data-dir is for one data set. For several write --dataset KIND:FOLDER for each."
            )
        # Shells leave a ~ as it is if it does not begin a word.
        path = Path(os.path.expanduser(folder)) if folder else data_dir or Path("data") / kind
        sources.append(Source(kind, path))
    return sources


def joined_name(sources: Iterable[Source]) -> str:
    """What a model was trained on, as reports name it: one kind of data set, or several names."""
    sources = list(sources)
    return sources[0].kind if len(sources) == 1 else _PLUS.join(source.name for source in sources)


def names_in(joined: str) -> list[str]:
    """The names of the data sets in a text that `joined_name` has made."""
    return [name for name in joined.split(_PLUS) if name]


def read_mixture(
    sources: Sequence[Source],
    num_images: int | str | None = None,
    seed: int = 0,
    download: bool = False,
    progress: bool = False,
) -> list[Record]:
    """Reads the records of all `sources`, each with the name of its data set.

    Args:
        sources: What to read.
        num_images: The most training photos of each data set, or `ALL`. With None, a data set on
            disk is read as a whole, and one that has to be downloaded has `DataSet.fetch_images`
            photos.
        seed: Which photos `sample_records` chooses.
        download: Whether to download missing data sets, if the table has a download for them.
        progress: Whether to show the progress of downloads.

    Raises:
        DatasetError: A data set cannot be read, or two have the same name.
        DownloadError: A data set cannot be downloaded.
    """
    names = Counter(source.name for source in sources)
    for name, count in names.items():
        if count > 1:
            raise DatasetError(
                f'{count} data sets are called "{name}". Give each data set once, and use folders '
                "with different names."
            )
    records: list[Record] = []
    for source in sources:
        entry = DATASETS[source.kind]
        images = entry.fetch_images if source.is_incomplete and num_images is None else num_images
        some = None if images in (None, ALL) else int(images)
        if download and entry.fetch and source.is_incomplete:
            found = entry.fetch(source.folder, some, seed, progress)
        else:
            found = read_dataset(source.kind, source.folder, num_images=some, seed=seed)
        prefix = f"{source.name}/" if len(sources) > 1 else ""
        records += [
            replace(r, image_id=f"{prefix}{r.image_id}", dataset=source.name) for r in found
        ]
    return records


def by_dataset(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records grouped by data set, in their order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.dataset, []).append(record)
    return groups


def captions_of_people(record: Record) -> tuple[str, ...]:
    """The captions of a record, without those that are known to be written by a model."""
    if not record.by:
        return record.captions
    return tuple(c for c, by in zip(record.captions, record.by, strict=True) if by != "model")


def rewarded_records(records: Iterable[Record], captions: str) -> Iterator[Record]:
    """The records that self-critical training learns from: all of them, or, if `captions` is
    "people", those with captions by people, and only these captions."""
    for record in records:
        if captions == "all":
            yield record
        elif by_people := captions_of_people(record):
            yield replace(record, captions=by_people, by=())


def summary(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Counts for the model card: for each data set its photos by split, and its training captions
    by people and by models."""
    found = []
    for name, group in by_dataset(records).items():
        train = [r for r in group if r.split == "train"]
        captions = sum(len(r.captions) for r in train)
        by_people = sum(len(captions_of_people(r)) for r in train)
        found.append(
            {
                "dataset": name,
                "train_images": len(train),
                "val_images": sum(r.split == "val" for r in group),
                "captions_by_people": by_people,
                "captions_by_model": captions - by_people,
            }
        )
    return found
