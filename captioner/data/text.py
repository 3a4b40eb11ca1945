"""Cleans captions and file names from outside, so that all other code can rely on them.

The readers of data sets, the vocabulary, the scorer and the search for a file by its name use these
functions.
"""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

import regex

# Line ends, tabs, spaces of every width, control characters, and the zero-width space that
# separates words in Khmer and Thai. A scorer that reads lines must see one line per caption.
_BLANK = regex.compile(r"[\s\p{Cc}\N{ZERO WIDTH SPACE}]")
# Halves of surrogate pairs, which cannot be encoded, and characters that change how a text looks,
# not what it says: directions, soft hyphens, byte order marks, and variation selectors.
_IGNORED = regex.compile(
    r"[\p{Cs}\N{SOFT HYPHEN}\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufe00-\ufe0f"
    r"\U000e0000-\U000e01ef]"
)


def clean(text: str) -> str:
    """`text` in Unicode's composed form (NFC), on one line, without invisible characters.

    Every white-space or control character becomes a space. Halves of surrogate pairs and invisible
    marks, such as those of direction, are dropped. White space at both ends is removed; inside,
    several spaces in a row are kept.
    """
    return unicodedata.normalize("NFC", _IGNORED.sub("", _BLANK.sub(" ", text))).strip()


def name_key(name: str) -> str:
    """A key that is equal for names that differ only in Unicode form or case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def encoding_of(path: Path) -> str:
    """The encoding of a text file: "utf-16" if it begins with its mark, otherwise "utf-8-sig",
    which is UTF-8 with or without a mark. Excel's "Unicode text" is UTF-16. Raises OSError."""
    with path.open("rb") as file:
        mark = file.read(2)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
