"""Names of files that come from outside: kept inside their folder, and found however written."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.data.text import name_key


def relative_name(name: Any) -> str:
    """`name` without "." parts; what could lead out of its folder is refused.

    Raises ValueError for what is no relative path with "/" between folders.
    """
    text = name.strip() if isinstance(name, str) else ""
    leads_out = re.search(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]", text)
    if leads_out or not PurePosixPath(text).name:
        raise ValueError(f'{name!r} is not a relative path of an image with "/" between folders')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name {name!r} holds half a character; rename the file, here and on the disk"
        ) from None
    return str(PurePosixPath(text))


def file_name(name: Any) -> str:
    """`relative_name` of a file without folders. Raises ValueError."""
    if not isinstance(name, str) or re.search(r"[/\\:\0]|\.\.", name):
        raise ValueError(f"{name!r} is not a plain file name")
    try:
        return relative_name(name)
    except ValueError as error:
        raise ValueError(f"{name!r} is not a plain file name") from error


class FileFinder:
    """Finds files by names that may be in another Unicode form or case than on the disk."""

    def __init__(self) -> None:
        self._listing = lru_cache(maxsize=None)(_by_key)

    def find(self, folder: Path, name: str) -> Path | None:
        """The file `name` ("/" between folders) in `folder`, None if there is none.

        The very name comes first. Otherwise a file is taken whose name differs in Unicode form or
        case only, unless there are several of them.
        """
        # Unlike Path.is_file, this is also False for a name that no file system takes.
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
