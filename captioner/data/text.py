"""Text as it comes in, made safe for everything behind: one cleaning for captions and names.

Readers, the vocabulary, the scorer and every look-up of a file by its name use these functions.
"""

from __future__ import annotations

import unicodedata

import regex

# Line ends, tabs, spaces of every width, control characters, and the space of no width that
# stands between words in Khmer and Thai. A scorer that reads lines must see one line per caption.
_BLANK = regex.compile(r"[\s\p{Cc}\N{ZERO WIDTH SPACE}]")
# Half characters, which no file can hold, and characters that change how a text looks, not what it
# says: directions, soft hyphens, the byte order mark, and the choice between text and emoji.
_IGNORED = regex.compile(
    r"[\p{Cs}\N{SOFT HYPHEN}\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufe00-\ufe0f"
    r"\U000e0000-\U000e01ef]"
)


def clean(text: str) -> str:
    """A text without what is no text, in Unicode's composed form (NFC) and stripped.

    Every odd white space or control character becomes a space; half characters and marks of
    direction are dropped. Other texts are returned as they are, double spaces included.
    """
    return unicodedata.normalize("NFC", _IGNORED.sub("", _BLANK.sub(" ", text))).strip()


def name_key(name: str) -> str:
    """What two names have in common that differ only in Unicode form or in upper and lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
