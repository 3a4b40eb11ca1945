"""How varied captions are, and their flaws."""

import pytest

from captioner.data.vocabulary import SPECIAL_TOKENS, Vocabulary
from captioner.evaluation.diversity import (
    diversity,
    flaws,
    has_phrase_twice,
    has_repeated_bigram,
    has_word_thrice,
    is_unfinished,
    unknown_words,
)
from captioner.model.function_words import FUNCTION_WORDS, UNFINISHED

CAPTIONS = [
    text.split()
    for text in (
        "a dog runs through the grass",
        "a dog runs through the grass",
        "two men sit on a",
        "a man in the water in the water",
    )
]


def test_diversity():
    found = diversity(CAPTIONS, ["A dog runs through the grass .", "Two men sit."])
    assert found == {
        "distinct": 75.0,
        "words_used": 13,
        "mean_length": 6.25,
        "person_or_dog": 100.0,
        "novel": 50.0,
    }
    assert "novel" not in diversity(CAPTIONS)


def test_the_share_that_names_a_person_or_a_dog():
    texts = ("a red bus", "two puppies", "a woman with a hot pan", "a doghouse")
    assert diversity([text.split() for text in texts])["person_or_dog"] == 50.0


def test_flaws():
    assert flaws([*CAPTIONS, ["dog", "dog", "dog", "<unk>"]]) == {
        "unfinished": 20.0,
        "word_thrice": 20.0,
        "phrase_twice": 40.0,
        "repeated_bigram": 40.0,
        "special_token": 20.0,
    }


@pytest.mark.parametrize(
    ("has", "text", "expected"),
    [
        (is_unfinished, "a dog with a", True),
        (is_unfinished, "a dog is on top of", True),
        (is_unfinished, "", True),
        (is_unfinished, "people walk around", False),  # a particle, not a preposition
        (is_unfinished, "children play outside", False),
        (has_word_thrice, "a a dog a", False),
        (has_word_thrice, "very very very old", True),
        (has_phrase_twice, "a man and a man", False),
        (has_phrase_twice, "the the dog", True),
        (has_phrase_twice, "dog in the snow in the snow", True),
        (has_repeated_bigram, "a man and a man", True),
        (has_repeated_bigram, "a man and a woman", False),
    ],
)
def test_each_vice(has, text, expected):
    assert has(text.split()) is expected


def test_unknown_words_are_counted_each_time():
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "a", "dog"])
    assert unknown_words([["a", "cat"], ["a", "cat", "and", "dog"]], vocabulary) == 50.0


def test_function_words():
    assert UNFINISHED < FUNCTION_WORDS
    content = {"dog", "red", "two", "running", "man", "water", "top"}
    assert not content & FUNCTION_WORDS
