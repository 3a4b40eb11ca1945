"""Words to ids and back, saved as readable JSON beside the weights."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files import write_bytes

PAD, START, END, UNK = range(4)
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

# A word is a run of letters or digits in any script; apostrophes and hyphens inside it belong to
# it ("man's", "t-shirt"), as in the Penn Treebank tokens that captions are scored with.
_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")


class VocabularyError(CaptionerError, ValueError):
    """A vocabulary file that cannot be used; the message names the file and the remedy."""


def split_words(caption: str) -> list[str]:
    """The lower-case words of a caption, without punctuation."""
    caption = unicodedata.normalize("NFC", caption.lower())  # an accent typed apart is no letter
    return _WORD.findall(caption.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


class Vocabulary:
    """The words a model knows. Ids 0 to 3 are `<pad> <start> <end> <unk>`, then by frequency."""

    def __init__(self, words: Sequence[str]) -> None:
        """Raises `VocabularyError` if `words` does not start with the special tokens or repeats."""
        if tuple(words[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
            raise VocabularyError(f"a vocabulary starts with {' '.join(SPECIAL_TOKENS)}")
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            raise VocabularyError("a word stands twice in the vocabulary")

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    @classmethod
    def build(cls, captions: Iterable[str], limit: int = 5000, min_count: int = 1) -> Vocabulary:
        """The `limit` most frequent words of `captions`, those that occur `min_count` times or
        more: pass the training captions only."""
        counts = Counter(word for caption in captions for word in split_words(caption))
        # Ties go by the alphabet, so that the order of the captions does not matter.
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        common = [word for word in ranked[:limit] if counts[word] >= min_count]
        return cls([*SPECIAL_TOKENS, *common])

    def encode(self, caption: str, max_words: int | None = None) -> list[int]:
        """The ids of a caption's words, `<unk>` for unknown ones; without `<start>` and `<end>`."""
        return [self._ids.get(word, UNK) for word in split_words(caption)[:max_words]]

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
        text = json.dumps({"words": self.words}, ensure_ascii=False, indent=0)
        write_bytes(path, text.encode())

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Raises `VocabularyError` naming the file if it is damaged."""
        try:
            words = json.loads(path.read_text(encoding="utf-8"))["words"]
            if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
                raise VocabularyError('"words" is not a list of strings')
            return cls(words)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VocabularyError(
                f"{path} is not a vocabulary ({error}). Fetch the checkpoint again."
            ) from error
