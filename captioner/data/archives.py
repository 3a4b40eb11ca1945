"""Tells people to unpack the archives in which data sets are published, and to export tables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from captioner.data.captions_file import abbreviate

_SHEETS = (".xlsx", ".xls", ".ods")
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
    names = _names(folders, _ENDINGS)
    return f"unpack {abbreviate(names)} first" if names else ""


def export_first(folders: Iterable[Path]) -> str:
    """What to do about the spreadsheets in folders, as a phrase; "" if there are none."""
    names = _names(folders, _SHEETS)
    return f"save {abbreviate(names)} as CSV in UTF-8" if names else ""


def _names(folders: Iterable[Path], endings: tuple[str, ...]) -> list[str]:
    names: dict[str, None] = {}
    for folder in folders:
        with suppress(OSError):
            names.update(dict.fromkeys(sorted(os.listdir(folder))))
    return [name for name in names if name.lower().endswith(endings)]
