"""Words to ids and back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from captioner.data.vocabulary import (
    END,
    PAD,
    SPECIAL_TOKENS,
    START,
    UNK,
    Vocabulary,
    VocabularyError,
)
from captioner.data.words import ICU, LETTERS, UNICODE, split_words

CAPTIONS = [
    "A dog runs through the grass .",
    "A brown dog is running through the grass .",
    "Two dogs play in the snow .",
    "The man's T-shirt says 42 .",
]


def test_special_tokens_come_first() -> None:
    vocabulary = Vocabulary.build(CAPTIONS)
    assert (PAD, START, END, UNK) == (0, 1, 2, 3)
    assert vocabulary.words[:4] == SPECIAL_TOKENS == ("<pad>", "<start>", "<end>", "<unk>")
    assert vocabulary.words[4] == "the", "the most frequent word is next"
    assert "dog" in vocabulary and "cat" not in vocabulary
    assert len(Vocabulary.build([])) == 4


def test_limit_counts_words_without_the_special_tokens() -> None:
    captions = ["a a a b b c"]
    assert Vocabulary.build(captions, limit=2).words[4:] == ("a", "b")
    assert Vocabulary.build(captions, limit=3).words[4:] == ("a", "b", "c")
    assert Vocabulary.build(captions, limit=100).words[4:] == ("a", "b", "c")
    assert Vocabulary.build(captions, limit=0).words == SPECIAL_TOKENS
    many = (f"word{i}" for i in range(6000))
    assert len(Vocabulary.build(many)) == 5004


def test_ties_do_not_depend_on_the_order_of_captions() -> None:
    captions = [f"{a} {b}" for a in "zyxwv" for b in "vwxyz"] + ["once upon", "a time"]
    expected = Vocabulary.build(captions, limit=7).words
    assert expected[4:] == ("v", "w", "x", "y", "z", "a", "once")
    for seed in range(10):
        shuffled = random.Random(seed).sample(captions, len(captions))
        assert Vocabulary.build(iter(shuffled), limit=7).words == expected


def test_encoding_and_decoding() -> None:
    vocabulary = Vocabulary.build(CAPTIONS)
    ids = vocabulary.encode("The MAN's dog, running!")
    assert vocabulary.decode(ids) == ["the", "man's", "dog", "running"]
    for caption in CAPTIONS:
        assert vocabulary.decode(vocabulary.encode(caption)) == split_words(caption)
    assert vocabulary.encode("a purple dog") == [
        *vocabulary.encode("a"),
        UNK,
        *vocabulary.encode("dog"),
    ]
    assert vocabulary.encode("<pad> <end>") == [UNK, UNK], "captions hold no special tokens"
    assert vocabulary.encode("the dog runs", max_words=2) == vocabulary.encode("the dog")
    assert vocabulary.encode("") == []


def test_decoding_stops_where_the_caption_ends() -> None:
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "a", "dog"])
    assert vocabulary.decode([START, 4, 5, END, 4, 4]) == ["a", "dog"]
    assert vocabulary.decode(np.array([4, UNK, 5, PAD, 4], np.int32)) == ["a", "<unk>", "dog"]
    assert vocabulary.decode([]) == []
    with pytest.raises(IndexError):
        vocabulary.decode([6])


def test_saving_and_loading(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary = Vocabulary.build([*CAPTIONS, 'été 犬 "quoted" back\\slash'])
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded.words == vocabulary.words
    assert loaded.encode("été dog cat") == vocabulary.encode("été dog cat")
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"word_breaking": vocabulary.rule, "words": list(vocabulary.words)}
    assert '"été"' in text and '"犬"' in text, "words are legible"
    assert len(text.splitlines()) > len(vocabulary), "one word a line: a difference is legible too"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x80\x02}q\x00.",
        b"[]",
        b"null",
        b'{"tokens": []}',
        b'{"words": null}',
        b'{"words": "<pad> <start> <end> <unk>"}',
        b'{"words": []}',
        b'{"words": ["<pad>", "<start>", "<end>"]}',
        b'{"words": ["<start>", "<pad>", "<end>", "<unk>", "a"]}',
        b'{"words": ["<pad>", "<start>", "<end>", "<unk>", "a", "a"]}',
        b'{"words": ["<pad>", "<start>", "<end>", "<unk>", 7]}',
        b'{"words": ["<pad>", "<start>", "<end>", "<unk>", ""]}',
        b'{"words": ["<pad>", "<start>", "<end>", "<unk>", "two words"]}',
        b'{"words": ["<pad>", "<start>", "<end>", "<unk>", "a\\nb"]}',
        b'{"words": ["<pad>", "<start>", "<end>", "<unk>", "\\u001b[2J"]}',
        b'{"words": ["<pad>", "<start>", "<end>", "<unk>", "\\ud800"]}',
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(VocabularyError, match=r"vocabulary\.json is not a vocabulary") as caught:
        Vocabulary.load(path)
    assert "again" in str(caught.value)


def test_the_rule_stays_with_the_words(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    captions = ["红色的狗在草地上奔跑", "दो कुत्ते"]
    Vocabulary.build(captions).save(path)
    assert Vocabulary.load(path).rule == ICU
    assert Vocabulary.load(path).encode("草地上") == Vocabulary.build(captions).encode("草地 上")
    assert Vocabulary.build(["दो कुत्ते"]).rule == UNICODE
    path.write_text('{"words": ["<pad>", "<start>", "<end>", "<unk>", "क"]}', encoding="utf-8")
    old = Vocabulary.load(path)
    assert old.rule == LETTERS, "a file from before there were rules"
    assert old.split("कि") == ["क"] and old.encode("कि") == [4], "it reads as it was trained to"
    path.write_text(
        '{"word_breaking": "runes", "words": ["<pad>", "<start>", "<end>", "<unk>"]}',
        encoding="utf-8",
    )
    with pytest.raises(VocabularyError, match="rule 'runes'"):
        Vocabulary.load(path)


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    Vocabulary.build(CAPTIONS).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(VocabularyError):
            Vocabulary.load(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"nowhere\.json"):
        Vocabulary.load(tmp_path / "nowhere.json")


def test_vocabularies_that_cannot_be() -> None:
    with pytest.raises(VocabularyError, match="starts with <pad> <start> <end> <unk>"):
        Vocabulary(["a", "dog"])
    with pytest.raises(VocabularyError, match="twice"):
        Vocabulary([*SPECIAL_TOKENS, "dog", "dog"])


def test_words_below_the_minimum_count_are_unknown():
    vocabulary = Vocabulary.build(["a dog", "a dog", "a cat"], limit=2, min_count=2)
    assert vocabulary.words[4:] == ("a", "dog")
    assert Vocabulary.build(["a dog", "a dog", "a cat"], min_count=3).words[4:] == ("a",)
    assert vocabulary.encode("a cat")[1] == UNK
