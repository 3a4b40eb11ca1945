"""Which words a caption may repeat."""

from captioner.data.vocabulary import SPECIAL_TOKENS, UNK, Vocabulary
from captioner.model.function_words import FREQUENT, repeatable_ids

ENGLISH = "a in the on and with of is dog man two white red boat train parked"
GERMAN = "ein in eine und mit auf einem der die mann frau hund einen steht im von an am"


def repeatable(text: str) -> set[str]:
    vocabulary = Vocabulary([*SPECIAL_TOKENS, *text.split()])
    return {vocabulary.words[i] for i in repeatable_ids(vocabulary) if i != UNK}


def test_english_captions_repeat_function_words_alone():
    assert repeatable(ENGLISH) == {"a", "in", "the", "on", "and", "with", "of", "is"}


def test_captions_in_another_language_repeat_frequent_words():
    rare = " ".join(f"wort{i}" for i in range(100))
    found = repeatable(f"{GERMAN} {rare}")
    assert len(found) == FREQUENT
    assert found > set(GERMAN.split())
