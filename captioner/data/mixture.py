"""Several data sets in one training run.

Each keeps its own splits. Image ids get the data set's name in front, so that they cannot collide;
a run on one data set keeps the ids as they are, and with them its feature cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captioner.data.captions_file import DatasetError
from captioner.data.datasets import DATASETS, Record, dataset, read_dataset

ALL = "all"


_PLUS = " + "  # between the names of several data sets


@dataclass(frozen=True)
class Source:
    """A data set to train on: its kind, one of `DATASETS`, and where it lies."""

    kind: str
    folder: Path

    @property
    def name(self) -> str:
        """What reports call it: a folder of one's own goes by the folder's name."""
        return self.kind if DATASETS[self.kind].public else self.folder.resolve().name


def parse_sources(texts: Sequence[str], data_dir: Path | None = None) -> list[Source]:
    """Sources from `KIND` or `KIND:FOLDER`, as on the command line.

    A kind alone lies in `data_dir` or, by default, in `data/KIND`. Raises DatasetError for another
    kind, a folder that is given twice or not at all, and `data_dir` beside several data sets.
    """
    sources = []
    for text in texts:
        kind, _, folder = text.partition(":")
        dataset(kind)
        if data_dir is not None and (folder or len(texts) > 1):
            raise DatasetError(
                "--data-dir is for one data set. For several write --dataset KIND:FOLDER for each."
            )
        sources.append(Source(kind, Path(folder) if folder else data_dir or Path("data") / kind))
    return sources


def title_of(sources: Iterable[Source]) -> str:
    """What a model is said to be trained on: the kind of its data set, or the names of several."""
    sources = list(sources)
    return sources[0].kind if len(sources) == 1 else _PLUS.join(source.name for source in sources)


def names_in(title: str) -> list[str]:
    """The names of the data sets that `title_of` has put together."""
    return [name for name in title.split(_PLUS) if name]


def read_mixture(
    sources: Sequence[Source],
    num_images: int | str | None = None,
    seed: int = 0,
    download: bool = False,
    progress: bool = False,
) -> list[Record]:
    """The records of all `sources`, each with the name of its data set.

    Args:
        sources: What to read.
        num_images: How many training photos of each, chosen by `sample_records`, or `ALL`; None:
            all that are on disk, and as many as is usual of what is downloaded.
        seed: Of that choice.
        download: Fetch what is missing of data sets that the table has a download for.
        progress: Show how the download gets on.

    Raises:
        DatasetError: A data set cannot be read, or two have the same name.
        DownloadError: A data set cannot be fetched.
    """
    names = Counter(source.name for source in sources)
    for name, count in names.items():
        if count > 1:
            raise DatasetError(
                f'{count} data sets are called "{name}". Give each once, and folders of different '
                "names."
            )
    records: list[Record] = []
    for source in sources:
        entry = DATASETS[source.kind]
        if download and entry.fetch and not entry.is_complete(source.folder):
            images = entry.fetch_images if num_images is None else num_images
            found = entry.fetch(
                source.folder, None if images == ALL else int(images), seed, progress
            )
        else:
            some = None if num_images in (None, ALL) else int(num_images)
            found = read_dataset(source.kind, source.folder, num_images=some, seed=seed)
        prefix = f"{source.name}/" if len(sources) > 1 else ""
        records += [
            replace(r, image_id=f"{prefix}{r.image_id}", dataset=source.name) for r in found
        ]
    return records


def by_dataset(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of each data set, in their order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.dataset, []).append(record)
    return groups


def captions_of_people(record: Record) -> tuple[str, ...]:
    """The captions that are not known to be a model's."""
    if not record.by:
        return record.captions
    return tuple(c for c, by in zip(record.captions, record.by, strict=True) if by != "model")


def summary(records: Iterable[Record]) -> list[dict[str, Any]]:
    """What each data set brings, for the model card: photos by split, and who wrote the captions
    that were trained on."""
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
