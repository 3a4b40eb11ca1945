"""Measures how varied captions are, and how many have known flaws.

Whether a caption is right plays no role here. The measures of diversity are those of van Miltenburg
et al. 2018 (aclanthology.org/C18-1147). The flaws are those of captions that were trained on CIDEr
(Guo et al. 2018, aclanthology.org/D18-1083) and of beam search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from captioner.data.vocabulary import SPECIAL_TOKENS, Vocabulary
from captioner.data.words import split_words
from captioner.model.function_words import UNFINISHED

Words = Sequence[str]

# English words, because the measure below is about models that were trained on English captions.
PEOPLE = frozenset(
    {
        *("man", "men", "woman", "women", "person", "people", "boy", "boys", "girl", "girls"),
        *("child", "children", "kid", "kids", "lady", "guy", "baby", "toddler", "player"),
        *("players", "skier", "surfer", "rider", "skateboarder", "snowboarder", "couple", "crowd"),
    }
)
DOGS = frozenset({"dog", "dogs", "puppy", "puppies"})


def diversity(
    captions: Sequence[Words],
    train_captions: Iterable[str] = (),
    split: Callable[[str], list[str]] = split_words,
) -> dict[str, float]:
    """Measures how varied captions are.

    Args:
        captions: One caption per image, each a list of words.
        train_captions: The training captions, as whole texts.
        split: Splits a text into words.

    Returns:
        `distinct`, the share of different captions in percent; `words_used`, the number of
        different words; `mean_length` in words; `person_or_dog`, the percentage of captions that
        name one, which is too high if a model sees people and dogs everywhere. With
        `train_captions` also `novel`, the percentage of captions that equal no training caption,
        apart from case and punctuation.
    """
    found = {
        "distinct": _percent(len({tuple(c) for c in captions}), len(captions)),
        "words_used": len({word for c in captions for word in c}),
        "mean_length": round(sum(map(len, captions)) / len(captions), 2),
        "person_or_dog": _share(
            captions, lambda words: names_a_person(words) or not DOGS.isdisjoint(words)
        ),
    }
    known = {tuple(split(text)) for text in train_captions}
    if known:
        found["novel"] = _share(captions, lambda words: tuple(words) not in known)
    return found


def flaws(captions: Sequence[Words]) -> dict[str, float]:
    """The percentage of captions with each flaw.

    Args:
        captions: Lists of words.

    Returns:
        `unfinished`: the caption ends with an article, preposition or conjunction; `word_thrice`:
        it has a word three times in a row; `phrase_twice`: it has a word or phrase twice in a row;
        `repeated_bigram`: it has the same two words in a row at two places; `special_token`: it has
        `<unk>` or another special token.
    """
    return {
        "unfinished": _share(captions, is_unfinished),
        "word_thrice": _share(captions, has_word_thrice),
        "phrase_twice": _share(captions, has_phrase_twice),
        "repeated_bigram": _share(captions, has_repeated_bigram),
        "special_token": _share(captions, lambda words: not set(SPECIAL_TOKENS).isdisjoint(words)),
    }


def unknown_words(captions: Sequence[Words], vocabulary: Vocabulary) -> float:
    """The percentage of words that are not in `vocabulary`, so that the model reads `<unk>`."""
    counts = Counter(word for c in captions for word in c)
    unknown = sum(n for word, n in counts.items() if word not in vocabulary)
    return _percent(unknown, counts.total())


def names_a_person(words: Words) -> bool:
    """Whether one of the words means a human being."""
    return not PEOPLE.isdisjoint(words)


def is_unfinished(words: Words) -> bool:
    """Whether a caption ends with an article, preposition or conjunction, or is empty."""
    return not words or words[-1] in UNFINISHED


def has_word_thrice(words: Words) -> bool:
    """Whether a word stands three times in a row."""
    return any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False))


def has_phrase_twice(words: Words) -> bool:
    """Whether a word or a phrase stands twice in a row."""
    return any(
        words[i : i + n] == words[i + n : i + 2 * n]
        for n in range(1, len(words) // 2 + 1)
        for i in range(len(words) - 2 * n + 1)
    )


def has_repeated_bigram(words: Words) -> bool:
    """Whether the same two words stand in a row at two places."""
    bigrams = list(pairwise(words))
    return len(set(bigrams)) < len(bigrams)


def _share(captions: Sequence[Words], has: Callable[[Words], bool]) -> float:
    return _percent(sum(map(has, captions)), len(captions))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
