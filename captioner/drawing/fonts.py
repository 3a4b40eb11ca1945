"""Finds a font that has the letters of a caption, so that pictures show no boxes in their place.

Matplotlib brings DejaVu Sans, which has Latin, Greek, Cyrillic, Hebrew, Arabic and more. For other
scripts, the fonts that are installed on the machine are searched. If none has the letters, pictures
show numbers in place of the words, and say why.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import features

logger = logging.getLogger(__name__)

NOTE = "no font here for the words"
_PLANES = 4  # planes of 65,536 characters each, which contain all living scripts
# These fonts have a glyph for every character, but each glyph is a box or empty.
_NO_LETTERS = ("lastresort", "adobeblank", "notdef")
_ODD_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "serif", "condensed")


@dataclass(frozen=True)
class Lettering:
    """How the words of a caption are written into a picture."""

    words: list[str]  # the words of the caption, or their numbers if no font has the letters
    font: Path
    right_to_left: bool = False
    note: str = ""  # why there are numbers in place of the words


def lettering(words: Sequence[str]) -> Lettering:
    """The words with a font that has all their letters, or their numbers with a note."""
    text = "".join(words)
    font = font_for(text)
    if font is None:
        numbers = [str(number) for number in range(1, len(words) + 1)]
        return Lettering(numbers, _dejavu(), note=NOTE)
    return Lettering(list(words), font, _is_right_to_left(text))


def font_for(text: str) -> Path | None:
    """A scalable font file that has all letters of `text`, or None."""
    letters = frozenset(ord(c) for c in text if unicodedata.category(c) not in ("Cf", "Zs", "Cc"))
    if _needs_layout(text) and not features.check("raqm"):
        return None  # the letters would be drawn in the wrong order, or unconnected
    if _has(_dejavu(), letters):
        return _dejavu()
    return _installed_font(letters)


@lru_cache(maxsize=256)
def _installed_font(letters: frozenset[int]) -> Path | None:
    return next((path for path in _installed_fonts() if _has(path, letters)), None)


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[Path, ...]:
    """The installed font files, upright sans serif ones of normal weight first."""
    from matplotlib.font_manager import findSystemFonts

    paths = [Path(path) for path in findSystemFonts()]
    found = [p for p in paths if not any(name in _plain(p) for name in _NO_LETTERS)]
    logger.info("%d installed fonts are searched for the letters of a caption", len(found))
    return tuple(
        sorted(found, key=lambda p: (sum(s in _plain(p) for s in _ODD_STYLES), p.name, str(p)))
    )


def _has(path: Path, letters: frozenset[int]) -> bool:
    if any(letter >= _PLANES << 16 for letter in letters):
        return False
    known = _coverage(path)
    return all(known[letter >> 3] >> (7 - (letter & 7)) & 1 for letter in letters)


@lru_cache(maxsize=4096)
def _coverage(path: Path) -> np.ndarray:
    """A bit for each character, set if the font has it; all bits are unset for an unusable font."""
    from matplotlib.ft2font import FT2Font

    known = np.zeros(_PLANES << 16, bool)
    try:
        font = FT2Font(str(path))
        if font.scalable:
            characters = np.fromiter(font.get_charmap(), np.int64)
            known[characters[characters < len(known)]] = True
    except (OSError, RuntimeError, ValueError) as error:
        logger.info("the font %s cannot be read: %s", path, error)
    return np.packbits(known)


def _plain(path: Path) -> str:
    return path.name.lower().replace("-", "").replace("_", "").replace("sansserif", "sans")


def _dejavu() -> Path:
    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def _needs_layout(text: str) -> bool:
    """Whether letters are joined, reordered or stacked, so that drawing them needs a layout."""
    return any(
        unicodedata.bidirectional(c) in ("R", "AL") or unicodedata.category(c) in ("Mn", "Mc")
        for c in text
    )


def _is_right_to_left(text: str) -> bool:
    """Decides by the first letter that has a direction, as browsers do with `dir="auto"`."""
    directions = (unicodedata.bidirectional(c) for c in text)
    return next((d for d in directions if d in ("L", "R", "AL")), "L") != "L"
