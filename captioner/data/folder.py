"""Reads a data set from a folder with captions files and photos, in any published layout."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from captioner.data.archives import unpack_first
from captioner.data.caption_forms import read_captions_file
from captioner.data.captions_file import (
    SPLITS,
    CaptionedFile,
    CaptionsFile,
    DatasetError,
    NoCaptionsError,
    abbreviate,
)
from captioner.data.layouts import Part, find_parts
from captioner.data.photo_search import find_photos
from captioner.data.records import Record, check_no_leak, select_subset
from captioner.data.text_per_photo import read_text_per_photo

logger = logging.getLogger(__name__)


def read_folder(
    data_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    release: str = "",
) -> list[Record]:
    """Reads a folder of images with their captions, in one of the layouts of `layouts`.

    The splits of the files or of the layout are kept. If there is no "val" among them,
    `val_fraction` of the training images become "val"; `select_subset` chooses them. Blank
    captions, captions of images that are not listed, captions that are marked as unusable, and
    missing images are skipped with a warning. The files of hidden test sets are skipped, too.

    Args:
        data_dir: The folder; or a captions file, if its folder has several.
        seed: Which images become "val".
        val_fraction: Which share of the training images become "val", in [0, 1).
        release: The year of COCO, if the folder may have the captions files of several.

    Raises:
        DatasetError: There is no captions file, it is not clear which one to read, one is
            malformed, or all images are missing.
        ValueError: `val_fraction` is not in [0, 1).
    """
    parts = find_parts(Path(data_dir), release)
    contents = _read_parts(parts)
    records = _unique([_locate(part, content) for part, content in contents], parts)
    if not any(file.split == "val" for _, content in contents for file in content.files):
        train = [record for record in records if record.split == "train"]
        others = [record for record in records if record.split != "train"]
        records = select_subset(train, None, seed, val_fraction) + others
    return records


def _read_parts(parts: Sequence[Part]) -> list[tuple[Part, CaptionsFile]]:
    """The contents of the parts' files, with the parts' splits; hidden test sets are left out."""
    contents = []
    missing: list[NoCaptionsError] = []
    for part in parts:
        try:
            read = read_text_per_photo if part.path.is_dir() else read_captions_file
            content = read(part.path)
        except NoCaptionsError as error:
            missing.append(error)
            continue
        files = [replace(file, split=file.split or part.split) for file in content.files]
        files = _split_by_folder(files)
        contents.append((part, replace(content, files=files)))
    if not contents:
        raise missing[0]
    for error in missing:
        logger.info("left out: %s", error)
    return contents


def _split_by_folder(files: list[CaptionedFile]) -> list[CaptionedFile]:
    """The files with their splits. If there are none, but each photo lies in a folder that is named
    after one, as in Hugging Face's imagefolder, that is the photo's split."""
    if any(file.split for file in files):
        return files
    folders = [[p for p in Path(f.name).parts[:-1] if p.lower() in SPLITS] for f in files]
    if not all(folders):
        return files
    return [
        replace(file, split=SPLITS[own[-1].lower()])
        for file, own in zip(files, folders, strict=True)
    ]


def _unique(groups: list[list[Record] | DatasetError], parts: Sequence[Part]) -> list[Record]:
    """The records of all parts. If two parts share an id, all ids get their split in front."""
    found = [group for group in groups if isinstance(group, list)]
    failed = [group for group in groups if isinstance(group, DatasetError)]
    if not found:
        raise failed[0]
    for error in failed:
        logger.warning("%s", error)
    records = _merged([record for group in found for record in group])
    counts = Counter(record.image_id for record in records)
    if max(counts.values()) > 1:
        records = [replace(r, image_id=f"{r.split}/{r.image_id}") for r in records]
        if len({r.image_id for r in records}) < len(records):
            raise DatasetError(
                f"{parts[0].path.parent} has several photos of one name in the same split; make "
                "a data set of each captions file"
            )
    check_no_leak(records)
    return records


def _merged(records: Iterable[Record]) -> list[Record]:
    """One record for each photo, because several shards of a large file may describe it."""
    photos: dict[Path, Record] = {}
    for record in records:
        before = photos.get(record.path)
        if before is None or before.split != record.split:
            photos.setdefault(record.path, record)
            if before is not None:
                check_no_leak([before, record])
        else:
            if bool(before.by) != bool(record.by):
                raise DatasetError(
                    f"only one of the files that describe {record.path} says who wrote its "
                    'captions ("by"); say it in all of them, or in none'
                )
            photos[record.path] = replace(
                before, captions=before.captions + record.captions, by=before.by + record.by
            )
    return list(photos.values())


def _locate(part: Part, content: CaptionsFile) -> list[Record] | DatasetError:
    """The records, or the error that all photos are missing: those of other parts may be there."""
    try:
        return _located(part, content)
    except _PhotosMissing as error:
        return error


class _PhotosMissing(DatasetError):
    pass


def _located(part: Part, content: CaptionsFile) -> list[Record]:
    """The records of the images that are there; "train" is the default split."""
    source, here = part.path, [folder for folder in part.folders if folder.is_dir()]
    found = find_photos(here, [file.name for file in content.files], part.home, part.split)
    records, missing = [], []
    for file in content.files:
        if path := found.get(file.name):
            split = file.split or "train"
            records.append(Record(file.image_id, path, file.captions, split, by=file.by))
        else:
            missing.append(file.name)
    places = ", ".join(map(str, here))
    what = f"{source}: {len(missing)} of its {len(content.files)} images are missing in {places}"
    if not records:
        packed = unpack_first([*here, part.home] if part.home else here)
        remedy = f"{packed or 'put them there'}, or correct the names"
        if sys.getfilesystemencoding() != "utf-8" and not "".join(missing).isascii():
            remedy = "set PYTHONUTF8=1, because this process does not read names of files as UTF-8"
        raise _PhotosMissing(f"{what}: {abbreviate(missing)}; {remedy}")
    if missing:
        logger.warning(f"{what} and skipped: {abbreviate(missing)}")
    for rows, reason in (
        (content.empty, "are blank"),
        (content.orphans, "belong to images that are not listed"),
        (content.rejected, "are marked as rejected or precanned"),
    ):
        if rows:
            logger.warning(
                f"{source}: {len(rows)} captions {reason} and are skipped: {abbreviate(rows)}"
            )
    if len({record.path for record in records}) < len(records):
        raise DatasetError(f"{source} names an image in two ways; use one name for each image")
    check_no_leak(records)
    return records
