"""Several data sets in one training run.

Each keeps its own splits. Image ids get the data set's name in front, so that they cannot collide;
a run on one data set keeps the ids as they are, and with them its feature cache.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captioner.data.captions_file import DatasetError
from captioner.data.datasets import Record, read_coco, read_dataset, sample_records

logger = logging.getLogger(__name__)

KINDS = ("coco", "flickr8k", "folder")
MAX_COCO_VAL = 5000  # as many as Karpathy's split of COCO has

Reader = Callable[[Path], list[Record]]


@dataclass(frozen=True)
class Source:
    """A data set to train on: its kind, one of `KINDS`, and where it lies."""

    kind: str
    folder: Path

    @property
    def name(self) -> str:
        """What reports call it: a folder of one's own goes by the folder's name."""
        return self.folder.resolve().name if self.kind == "folder" else self.kind


def parse_sources(texts: Sequence[str], data_dir: Path | None = None) -> list[Source]:
    """Sources from `KIND` or `KIND:FOLDER`, as on the command line.

    A kind alone lies in `data_dir` or, by default, in `data/KIND`. Raises DatasetError for another
    kind, a folder that is given twice or not at all, and `data_dir` beside several data sets.
    """
    sources = []
    for text in texts:
        kind, _, folder = text.partition(":")
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, 1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise DatasetError(f'no data set "{kind}"; there are {", ".join(KINDS)}.{hint}')
        if data_dir is not None and (folder or len(texts) > 1):
            raise DatasetError(
                "--data-dir is for one data set. For several write --dataset KIND:FOLDER for each."
            )
        sources.append(Source(kind, Path(folder) if folder else data_dir or Path("data") / kind))
    return sources


def title_of(sources: Iterable[Source]) -> str:
    """What a model is said to be trained on: the kind of its data set, or the names of several."""
    sources = list(sources)
    return sources[0].kind if len(sources) == 1 else " + ".join(source.name for source in sources)


def read_mixture(
    sources: Sequence[Source],
    num_images: int | None = None,
    seed: int = 0,
    read_without_val: Reader | None = None,
) -> list[Record]:
    """The records of all `sources`, each with the name of its data set.

    Args:
        sources: What to read.
        num_images: How many training photos of each, chosen by `sample_records`; None: all.
        seed: Of that choice.
        read_without_val: Reads COCO where the official validation photos are not on disk.

    Raises:
        DatasetError: A data set cannot be read, or two have the same name.
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
        if source.kind == "coco" and has_official_val(source.folder):
            found = read_coco_splits(source.folder, num_images, seed)
        elif source.kind == "coco" and read_without_val is not None:
            found = read_without_val(source.folder)
        else:
            found = read_dataset(source.kind, source.folder, num_images=num_images, seed=seed)
        prefix = f"{source.name}/" if len(sources) > 1 else ""
        records += [
            replace(r, image_id=f"{prefix}{r.image_id}", dataset=source.name) for r in found
        ]
    return records


def has_official_val(data_dir: Path) -> bool:
    """Whether COCO's validation captions and some photos of val2014 are in `data_dir`."""
    photos = data_dir / "val2014"
    captions = data_dir / "annotations" / "captions_val2014.json"
    return captions.is_file() and photos.is_dir() and any(photos.glob("*.jpg"))


def read_coco_splits(data_dir: Path, num_images: int | None, seed: int) -> list[Record]:
    """COCO by its official split: the photos of train2014 and val2014 that are on disk, of the
    latter at most `MAX_COCO_VAL`. Raises DatasetError."""
    records: list[Record] = []
    for split, most in (("train", num_images), ("val", MAX_COCO_VAL)):
        listed = read_coco(data_dir, split)
        here = [r for r in listed if r.path.is_file()]
        if not here:
            raise DatasetError(f"{data_dir} has no photo of {split}2014. Put them there.")
        if len(here) < len(listed):
            logger.warning(
                "%s: %d of the %d photos of %s2014 are there; the others are left out",
                data_dir,
                len(here),
                len(listed),
                split,
            )
        chosen = here if most is None or most >= len(here) else sample_records(here, most, seed)
        records += [replace(r, split=split) for r in chosen]
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
