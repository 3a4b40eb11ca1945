"""Handles file names that data sets give: they must stay inside their folder, and a file is found
even if the name on disk differs in case or Unicode form."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.data.text import name_key


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


class FileFinder:
    """Finds files by name even if the name on disk has another Unicode form or case."""

    def __init__(self) -> None:
        self._listing = lru_cache(maxsize=None)(_by_key)

    def find(self, folder: Path, name: str) -> Path | None:
        """The file `name` (with "/" between folders) in `folder`; None if there is none.

        If there is no file of exactly this name, the one whose name differs only in Unicode form or
        case is returned, unless there are several.
        """
        # Unlike Path.is_file, this returns False for a name that no file system accepts.
        if os.path.isfile(folder / name):
            return folder / name
        path = folder
        for part in PurePosixPath(name).parts:
            found = self._listing(path).get(name_key(part), ())
            if part in found:
                path /= part
            elif len(found) == 1:
                path /= found[0]
            else:
                return None
        return path if os.path.isfile(path) else None


def _by_key(folder: Path) -> dict[str, list[str]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name_key(name), []).append(name)
    return groups
