"""Handles file names that data sets give: they must stay inside their folder, and a file is found
even if the name on disk differs in case or Unicode form."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.data.text import name_key

_PICTURES = frozenset(
    ".jpg .jpeg .jfif .jpe .png .apng .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .mpo".split()  # noqa: SIM905
)


# COCO 2014 has this in front of the names that the same photos have in COCO 2017.
_COCO_2014 = re.compile(r"^coco_(train|val|test)2014_(?=\d)")


def relative_name(name: Any) -> str:
    """`name` without "." parts.

    Raises ValueError unless `name` is a relative path with "/" between folders that cannot lead out
    of its folder.
    """
    text = name.strip() if isinstance(name, str) else ""
    leads_out = re.search(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]", text)
    if leads_out or not PurePosixPath(text).name:
        raise ValueError(f'{name!r} is not a relative path of an image with "/" between folders')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name {name!r} has half a character in it; rename the file here and on disk"
        ) from None
    return str(PurePosixPath(text))


def file_name(name: Any) -> str:
    """`relative_name` for a name without folders. Raises ValueError for any other name."""
    if not isinstance(name, str) or re.search(r"[/\\:\0]|\.\.", name):
        raise ValueError(f"{name!r} is not a plain file name")
    try:
        return relative_name(name)
    except ValueError as error:
        raise ValueError(f"{name!r} is not a plain file name") from error


def is_picture(name: str) -> bool:
    """Whether a file of this name in a folder is taken for a picture, by its extension. macOS puts
    a file `._NAME` with its own notes beside each file on disks of other systems."""
    return os.path.splitext(name)[1].lower() in _PICTURES and not name.startswith("._")


class FileFinder:
    """Finds files by name even if the name on disk has another Unicode form or case, or if a
    picture's name is given without its extension."""

    def __init__(self) -> None:
        self._listing = lru_cache(maxsize=None)(_by_key)
        self._pictures = lru_cache(maxsize=None)(_pictures_by_id)

    def find(self, folder: Path, name: str) -> Path | None:
        """The file `name` (with "/" between folders) in `folder`; None if there is none.

        If there is no file of exactly this name, the one whose name differs only in Unicode form or
        case is returned, unless there are several. A name without an extension also stands for the
        picture of this name, or of this number with other zeros in front.
        """
        # Unlike Path.is_file, this returns False for a name that no file system accepts.
        if os.path.isfile(folder / name):
            return folder / name
        path = folder
        parts = PurePosixPath(name).parts
        for number, part in enumerate(parts, start=1):
            found = self._listing(path).get(name_key(part), ())
            if not found and number == len(parts) and "." not in part:
                found = self._pictures(path).get(picture_id(part), ())
            if part in found:
                path /= part
            elif len(found) == 1:
                path /= found[0]
            else:
                return None
        return path if os.path.isfile(path) else None


def _by_key(folder: Path) -> dict[str, list[str]]:
    return _grouped((name_key(name), name) for name in _names(folder))


def _pictures_by_id(folder: Path) -> dict[str, list[str]]:
    pictures = filter(is_picture, _names(folder))
    return _grouped((picture_id(os.path.splitext(name)[0]), name) for name in pictures)


def picture_id(stem: str) -> str:
    """A key that is equal for names without extensions, and for numbers, such as 000042 and 42."""
    stem = without_release(name_key(stem))
    return stem.lstrip("0") if stem.isdecimal() else stem


def without_release(key: str) -> str:
    """The key that a photo of COCO 2014 has in COCO 2017. Keys of other files are unchanged."""
    return _COCO_2014.sub("", key)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _grouped(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, name in names:
        groups.setdefault(key, []).append(name)
    return groups
