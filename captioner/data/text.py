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
# not what it says: directions, soft hyphens, byte order marks, variation selectors and more. The
# two joiners stay, because some languages write different words with and without them.
_IGNORED = regex.compile(r"(?V1)[\p{Cs}\u061c[\p{Default_Ignorable_Code_Point}--[\u200c\u200d]]]")

# Other characters for the same letters.
_APOSTROPHE = regex.compile(r"(?<=\p{L}\p{M}*)[\u2018\u2019\u02bc\uff07\u00b4`](?=\p{L})")
_HYPHEN = regex.compile(r"(?<=[\p{L}\p{N}]\p{M}*)[\u2010\u2011\uff0d](?=[\p{L}\p{N}])")
# Full-width Latin letters and digits, ligatures of Latin, and the forms that Arabic letters have at
# their place in a word, as PDF files contain them.
_FORMS = regex.compile(
    r"[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\ufb00-\ufb06\ufb50-\ufbb1\ufbd3-\ufbff\ufe80-\ufefc]+"
)
_KASHIDA = "\N{ARABIC TATWEEL}"  # lengthens a word
_THAI = ((regex.compile(r"([\u0e48-\u0e4b]?)\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\\2\u0e33"),
         (regex.compile(r"([\u0ec8-\u0ecb]?)\u0ecd([\u0ec8-\u0ecb]?)\u0eb2"), "\\1\\2\u0eb3"),
         (regex.compile("\u0e40\u0e40"), "\u0e41"),
         (regex.compile("\u0ec0\u0ec0"), "\u0ec1"))  # fmt: skip
# Malayalam's letters without a vowel, as texts from before Unicode 5.1 have them.
_CHILLU = {
    f"{full}\u0d4d\u200d": alone for full, alone in zip("ണനരലളക", "ൺൻർൽൾൿ", strict=True)
}  # fmt: skip


def clean(text: str) -> str:
    """`text` in Unicode's composed form (NFC), on one line, without invisible characters.

    Every white-space or control character becomes a space. Halves of surrogate pairs and invisible
    marks, such as those of direction, are dropped. White space at both ends is removed; inside,
    several spaces in a row are kept.
    """
    return unicodedata.normalize("NFC", _IGNORED.sub("", _BLANK.sub(" ", text))).strip()


def plain_letters(text: str) -> str:
    """`text` with one character for each letter where several look alike, or mean the same.

    Words are compared in this form, whether for the vocabulary or for scores: a hyphen that breaks
    no line is a hyphen, and full-width letters are the usual ones. The text is also cleaned.
    """
    text = clean(text)
    if text.isascii():
        return text
    text = text.replace(_KASHIDA, "")
    # The Turkish capital I with a dot would become an i with a second dot above.
    text = text.replace("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i")
    text = _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = _HYPHEN.sub("-", _APOSTROPHE.sub("'", text))
    for pattern, written in _THAI:
        text = pattern.sub(written, text)
    for full, alone in _CHILLU.items():
        text = text.replace(full, alone)
    return text


def name_key(name: str) -> str:
    """A key that is equal for names that differ only in Unicode form or case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def encoding_of(path: Path) -> str:
    """The encoding of a text file: UTF-16 if it begins with its mark or with a character of one
    byte in it, otherwise "utf-8-sig", which is UTF-8 with or without a mark. Excel's "Unicode text"
    is UTF-16. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    zeros = [not byte for byte in head]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else "utf-8-sig"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the singular or with an s: "1 epoch", "2,000 epochs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
