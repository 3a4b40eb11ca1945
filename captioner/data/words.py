"""Splits captions into words, and joins words to captions, in any script.

A rule says where words end. A vocabulary stores the rule that it was built with, so that a
checkpoint always splits captions as in its training:

    letters   runs of letters and digits. Checkpoints that name no rule have this one.
    unicode   as "letters", but combining marks belong to a word, too, so that words in Hindi,
              Tamil, vocalised Arabic and the like stay whole. In scripts without spaces, each
              character with its marks is a word.
    icu       as "unicode", but ICU's dictionaries find the words in Chinese, Japanese, Thai, Lao,
              Khmer and Burmese. This needs the package icu4py.

For English, all three give the same words.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import regex

from captioner.data.text import plain_letters
from captioner.errors import CaptionerError

LETTERS, UNICODE, ICU = RULES = ("letters", "unicode", "icu")

# Apostrophes and hyphens inside a word belong to it ("man's", "t-shirt"), as in the Penn Treebank
# tokens that captions are scored with.
_LETTERS = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")

_JOINERS = r"\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # inside words of Persian and Hindi
_RUN = rf"[\p{{L}}\p{{N}}](?:[\p{{L}}\p{{N}}\p{{M}}]|[{_JOINERS}](?=[\p{{L}}\p{{M}}]))*"
# Also the middle dot of Catalan and the two inner marks of Hebrew, which UAX #29 calls MidLetter;
# the second one is usually typed as a quotation mark.
_INNER = r"['\-\N{MIDDLE DOT}\u05f3\u05f4]|(?<=\p{Script=Hebrew}\p{M}*)\"(?=\p{Script=Hebrew})"
_WORD = regex.compile(rf"{_RUN}(?:(?:{_INNER}){_RUN})*")
_SPACELESS = (
    r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}"
    r"\p{Script=Khmer}\p{Script=Myanmar}\N{KATAKANA-HIRAGANA PROLONGED SOUND MARK}"
    r"\uff70\uff9e\uff9f"  # the same, and the two marks of voiced sounds, for half-width Katakana
)
_SPACELESS_RUN = regex.compile(rf"[{_SPACELESS}](?:[{_SPACELESS}\p{{M}}])*")
# With its marks: an extended grapheme cluster of UAX #29, and vowels that Burmese has behind it.
_CHARACTER = regex.compile(r"\X\p{M}*")
_STARTS_SPACELESS = regex.compile(rf"[{_SPACELESS}]")
_ENDS_SPACELESS = regex.compile(rf"[{_SPACELESS}]\p{{M}}*$")


class WordBreakingError(CaptionerError, RuntimeError):
    """A rule that cannot be used here; the message says what to install."""


def split_words(caption: str, rule: str = UNICODE) -> list[str]:
    """The lower-case words of a caption, without punctuation.

    Args:
        caption: Any text.
        rule: One of `RULES`.

    Raises:
        WordBreakingError: The rule needs a package that is missing, or there is no such rule.
    """
    if rule == LETTERS:
        caption = unicodedata.normalize("NFC", caption.lower())
        return _LETTERS.findall(caption.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    if rule not in RULES:
        raise WordBreakingError(
            f'the word-breaking rule is "{rule}", and this version knows {", ".join(RULES)}. Use '
            "the release that wrote the checkpoint."
        )
    caption = plain_letters(caption).lower().replace("i\N{COMBINING DOT ABOVE}", "i")
    caption = unicodedata.normalize("NFC", caption)
    words = []
    for word in _WORD.findall(caption.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        words += _parts(word, rule) if _STARTS_SPACELESS.search(word) else [word]
    return words


def join_words(words: Sequence[str]) -> str:
    """Joins `words` to a caption, with spaces except between words of scripts without spaces."""
    text = ""
    for word in words:
        joined = _STARTS_SPACELESS.match(word) and _ENDS_SPACELESS.search(text)
        text += word if joined or not text else f" {word}"
    return text


def spaced(text: str, rule: str = UNICODE) -> str:
    """`text` with spaces between all words, as scorers need it.

    Text in a script without spaces is split into words. Any other text is only cleaned, and its
    letters are the plain ones.
    """
    text = plain_letters(text)
    return " ".join(split_words(text, rule)) if _STARTS_SPACELESS.search(text) else text


def best_rule(captions: Iterable[str]) -> str:
    """The rule for a new vocabulary: "icu" if a caption needs it and icu4py is installed."""
    if importlib.util.find_spec("icu4py") and any(map(_STARTS_SPACELESS.search, captions)):
        return ICU
    return UNICODE


def _parts(word: str, rule: str) -> list[str]:
    """The words in a run of letters, some of which belong to a script without spaces."""
    parts: list[str] = []
    end = 0
    segment: Callable[[str], list[str]] = _CHARACTER.findall if rule == UNICODE else _icu_words
    for run in _SPACELESS_RUN.finditer(word):
        parts += _WORD.findall(word[end : run.start()])
        parts += segment(run[0])
        end = run.end()
    return [*parts, *_WORD.findall(word[end:])]


def _icu_words(run: str) -> list[str]:
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        raise WordBreakingError(
            "the words of this checkpoint were found by ICU's dictionaries. Run: pip install icu4py"
        ) from None
    return list(WordBreaker(run, "en"))  # ICU's dictionaries do not depend on the locale
