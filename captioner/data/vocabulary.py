"""Converts words to ids and back. The vocabulary is saved as readable JSON beside the weights."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from captioner.data import words as word_breaking
from captioner.errors import CaptionerError
from captioner.files import system_fault, write_bytes

PAD, START, END, UNK = range(4)
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

# No word has these: captions are one line of text in UTF-8, and terminals obey control characters.
_NOT_IN_WORDS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class VocabularyError(CaptionerError, ValueError):
    """A vocabulary file that cannot be used; the message names the file and the remedy."""


class Vocabulary:
    """The words a model knows.

    Ids 0 to 3 are `<pad>`, `<start>`, `<end>` and `<unk>`; the words follow in the order of their
    frequency.

    Args:
        words: The special tokens, then the words.
        rule: How captions are split into words, one of `words.RULES`.

    Raises:
        VocabularyError: `words` does not start with the special tokens, a word occurs twice, or
            there is no such rule.
    """

    def __init__(self, words: Sequence[str], rule: str = word_breaking.UNICODE) -> None:
        if tuple(words[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
            raise VocabularyError(f"a vocabulary starts with {' '.join(SPECIAL_TOKENS)}")
        if rule not in word_breaking.RULES:
            raise VocabularyError(f"this version has no word-breaking rule {rule!r}")
        self.words = tuple(words)
        self.rule = rule
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            raise VocabularyError("a word occurs twice in the vocabulary")

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    @classmethod
    def build(cls, captions: Iterable[str], limit: int = 5000, min_count: int = 1) -> Vocabulary:
        """A vocabulary of the most frequent words of captions.

        Args:
            captions: The training captions, and no others. `words.best_rule` chooses how they are
                split into words.
            limit: The most words, without the special tokens.
            min_count: How often a word must occur in the captions.
        """
        captions = list(captions)
        rule = word_breaking.best_rule(captions)
        counts = Counter(word for c in captions for word in word_breaking.split_words(c, rule))
        # Equally frequent words are sorted, so that the order of the captions has no effect.
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        common = [word for word in ranked[:limit] if counts[word] >= min_count]
        return cls([*SPECIAL_TOKENS, *common], rule)

    def split(self, caption: str) -> list[str]:
        """The words of a caption, by this vocabulary's rule. Raises `WordBreakingError`."""
        return word_breaking.split_words(caption, self.rule)

    def encode(self, caption: str, max_words: int | None = None) -> list[int]:
        """The ids of a caption's words, `<unk>` for unknown ones; without `<start>` and `<end>`."""
        return self.ids(self.split(caption)[:max_words])

    def ids(self, words: Iterable[str]) -> list[int]:
        """The ids of words, `<unk>` for unknown ones."""
        return [self._ids.get(word, UNK) for word in words]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of `ids` up to `<end>` or `<pad>`."""
        words: list[str] = []
        for i in ids:
            if i in (END, PAD):
                break
            if i != START:
                words.append(self.words[i])
        return words

    def save(self, path: Path) -> None:
        """Writes the vocabulary into a JSON file."""
        content = {"word_breaking": self.rule, "words": self.words}
        text = json.dumps(content, ensure_ascii=False, indent=0)
        write_bytes(path, text.encode())

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads a vocabulary file. Raises `VocabularyError`, which names the file, if damaged."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            words = content["words"]
            if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
                raise VocabularyError('"words" is not a list of strings')
            for word in words:
                if not word or _NOT_IN_WORDS.search(word):
                    raise VocabularyError(f"{word!r} is not a word")
            # Vocabularies that name no rule were made before there was more than one.
            return cls(words, content.get("word_breaking", word_breaking.LETTERS))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VocabularyError(
                system_fault(error, path)
                or f"{path} is not a vocabulary ({error}). Fetch the checkpoint again."
            ) from error
