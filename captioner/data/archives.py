"""Tells people to unpack the archives in which data sets are published."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from captioner.data.captions_file import abbreviate

_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# How archives begin, and spreadsheets, which are archives as well or of an older kind.
_SIGNATURES = (
    b"PK\3\4",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"Rar!",
    b"7z\xbc\xaf",
    b"\xd0\xcf\x11\xe0",
)


def is_packed(name: str, head: bytes) -> bool:
    """Whether a file is an archive or a spreadsheet, by its name and its first bytes."""
    return name.lower().endswith(_ENDINGS) or head.startswith(_SIGNATURES)


def unpack_first(folders: Iterable[Path]) -> str:
    """What to do about the archives in folders, as a phrase such as "unpack train.zip first"; "" if
    there are none."""
    names: dict[str, None] = {}
    for folder in folders:
        try:
            found = sorted(os.listdir(folder))
        except OSError:
            continue
        names.update(dict.fromkeys(name for name in found if name.lower().endswith(_ENDINGS)))
    return f"unpack {abbreviate(names)} first" if names else ""
