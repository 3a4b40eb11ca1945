"""Reads Flickr8k in its official layout.

Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task", JAIR 2013.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path

from captioner.data.archives import unpack_first
from captioner.data.captions_file import DatasetError, abbreviate
from captioner.data.photo_search import find_photos
from captioner.data.records import Record, check_no_leak
from captioner.data.text import clean, encoding_of

logger = logging.getLogger(__name__)

TOKENS = "Flickr8k.token.txt"
_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_TEXT_FOLDERS = ("", "text", "Flickr8k_text")
# The official archive itself misspells its folder as "Flicker8k".
_PHOTO_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",
    "Flicker8k_Dataset/Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "",
)
_REMEDY = "unpack the official Flickr8k_text.zip and Flickr8k_Dataset.zip again"


def read_flickr8k(data_dir: str | os.PathLike[str]) -> list[Record]:
    """Reads Flickr8k, split by its official lists (6000/1000/1000 photos).

    The text files and the photos may lie in `data_dir` itself or in the usual folders (`text/`,
    `Flickr8k_text/`; `images/`, `Flicker8k_Dataset/` and the like). Photos in no list are left out.
    A warning reports the captions of photos that do not exist (the official file has two such
    groups) and the listed photos that are missing on disk; both are skipped.

    Returns:
        The records of "train", "val" (the official dev list) and "test", each in the order of its
        list.

    Raises:
        DatasetError: A text file is missing or malformed, a listed photo has no caption, a photo is
            listed twice, or all photos of a split are missing.
    """
    data_dir = Path(data_dir)
    token_file = _find_text(data_dir, TOKENS)
    lists = {split: _find_text(data_dir, name) for split, name in _LISTS.items()}
    captions = _read_captions(token_file)
    splits = _read_splits(lists, captions.keys(), token_file)
    photos = find_photos([data_dir / name for name in _PHOTO_FOLDERS], captions, data_dir)
    for split, path in lists.items():
        listed = [name for name in splits if splits[name] == split]
        missing = [name for name in listed if name not in photos]
        if len(missing) == len(listed):
            raise DatasetError(
                f"{path}: none of its {len(listed)} photos is in {data_dir} or its folders "
                f"{', '.join(filter(None, _PHOTO_FOLDERS))}; "
                f"{unpack_first([data_dir]) or _REMEDY}"
            )
        if missing:
            logger.warning(
                f"{len(missing)} of the {len(listed)} {split} photos are missing in {data_dir} "
                f"and skipped: {abbreviate(missing)}"
            )
    phantoms = [name for name in captions if name not in splits and name not in photos]
    if phantoms:
        groups = abbreviate(f"{name} ({len(captions[name])} captions)" for name in phantoms)
        logger.warning(
            f"{token_file}: {len(phantoms)} groups of captions name a photo that does not exist "
            f"and are skipped: {groups}"
        )

    records = [
        Record(Path(name).stem, photos[name], captions[name], split)
        for name, split in splits.items()
        if name in photos
    ]
    check_no_leak(records)
    return records


def _read_splits(
    lists: Mapping[str, Path], captioned: Collection[str], token_file: Path
) -> dict[str, str]:
    """The split of each photo, by the photo's name."""
    splits: dict[str, str] = {}
    for split, path in lists.items():
        for number, name in _lines(path):
            if name in splits:
                raise _error(path, number, f"{name} is listed a second time")
            if name not in captioned:
                raise _error(path, number, f"{name} has no captions in {token_file}")
            splits[name] = split
    return splits


def find_text(data_dir: Path, name: str) -> Path | None:
    """A text file of Flickr8k, in the usual folders or any other two levels deep."""
    places = (data_dir / folder / name for folder in _TEXT_FOLDERS)
    others = (path for form in ("*", "*/*") for path in sorted(data_dir.glob(f"{form}/{name}")))
    return next((path for path in chain(places, others) if path.is_file()), None)


def _find_text(data_dir: Path, name: str) -> Path:
    if found := find_text(data_dir, name):
        return found
    if data_dir.is_file():
        raise DatasetError(
            f"{data_dir} is a file; give the path of the folder into which the official "
            "Flickr8k_text.zip and Flickr8k_Dataset.zip were unpacked"
        )
    if (data_dir / "captions.txt").is_file():
        raise DatasetError(
            f"{data_dir} has Flickr8k as Kaggle publishes it, without its splits; use --dataset "
            f"folder:{data_dir}, or add the official Flickr8k_text.zip, unpacked"
        )
    if (data_dir / "dataset_flickr8k.json").is_file():
        raise DatasetError(
            f"{data_dir} has Flickr8k with Karpathy's splits; use --dataset folder:{data_dir}"
        )
    raise DatasetError(
        f"{name} is neither in {data_dir} nor in its folders "
        f"{', '.join(filter(None, _TEXT_FOLDERS))}; {unpack_first([data_dir]) or _REMEDY}"
    )


def _error(path: Path, line: int, what: str) -> DatasetError:
    return DatasetError(f"{path}, line {line}: {what}; {_REMEDY}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1."""
    try:
        with path.open(encoding=encoding_of(path)) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); {_REMEDY}") from error


def _read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each file name, from lines of the form NAME#NUMBER, tab, caption."""
    captions: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for number, line in _lines(path):
        match = re.fullmatch(r"([^\t#/\\]+)#(\d+)\t\s*(.+)", line)
        if match is None:
            what = f"not of the form NAME#NUMBER, tab, caption: {line[:60]!r}"
            raise _error(path, number, what)
        name, position, caption = match[1], int(match[2]), match[3]
        if position in captions[name]:
            raise _error(path, number, f"a second caption {name}#{position}")
        captions[name][position] = clean(caption)
    return {name: tuple(group[key] for key in sorted(group)) for name, group in captions.items()}
