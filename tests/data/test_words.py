"""Captions into words and back, in many scripts; and the cleaning that comes before."""

from __future__ import annotations

import importlib.util
import sys
import unicodedata
from pathlib import Path

import pytest

from captioner.data.datasets import read_flickr8k
from captioner.data.text import clean, name_key
from captioner.data.vocabulary import Vocabulary
from captioner.data.words import (
    ICU,
    LETTERS,
    UNICODE,
    WordBreakingError,
    best_rule,
    join_words,
    spaced,
    split_words,
)


@pytest.mark.parametrize(
    "caption, words",
    [
        ("A dog runs .", ["a", "dog", "runs"]),
        ("Hello,world!(really)", ["hello", "world", "really"]),
        ("the man's t-shirt", ["the", "man's", "t-shirt"]),
        ("the man\N{RIGHT SINGLE QUOTATION MARK}s hat", ["the", "man's", "hat"]),
        ("the dogs' 'red' ball -- it's", ["the", "dogs", "red", "ball", "it's"]),
        ("well-known-to-all -and- dashed-", ["well-known-to-all", "and", "dashed"]),
        ("snake_case under_", ["snake", "case", "under"]),
        ("number 42 and 7up", ["number", "42", "and", "7up"]),
        ("Ein Mädchen in Köln, ÉTÉ", ["ein", "mädchen", "in", "köln", "été"]),
        ("собака бежит, 犬", ["собака", "бежит", "犬"]),
        ("<start> a <unk> <pad>", ["start", "a", "unk", "pad"]),
        ("one\ttwo\nthree  four\u00a0five", ["one", "two", "three", "four", "five"]),
        ("a dog 🐕 runs", ["a", "dog", "runs"]),
        (" .,!? ' - '' -- ", []),
        ("", []),
    ],
)
def test_splitting(caption: str, words: list[str]) -> None:
    for rule in (LETTERS, UNICODE, ICU):
        assert split_words(caption, rule) == words


def test_an_accent_is_the_same_however_it_is_typed() -> None:
    assert split_words("cafe\N{COMBINING ACUTE ACCENT}s") == ["cafés"]


def test_the_words_of_flickr8k_are_what_they_were(flickr8k: Path) -> None:
    captions = [c for r in read_flickr8k(flickr8k) for c in r.captions]
    assert len(captions) == 40_000
    for rule in (UNICODE, ICU):
        changed = [c for c in captions if split_words(c, rule) != split_words(c, LETTERS)]
        assert not changed
    vocabulary = Vocabulary.build(captions)
    before = Vocabulary(vocabulary.words, LETTERS)
    assert vocabulary.rule == UNICODE
    assert [vocabulary.encode(c) for c in captions] == [before.encode(c) for c in captions]
    assert all(clean(c) == c for c in captions), "plain text is left as it is"


@pytest.mark.parametrize(
    "caption, words",
    [
        ("एक लड़का दौड़ रहा है।", "एक लड़का दौड़ रहा है"),
        ("একটি ছেলে দৌড়াচ্ছে", "একটি ছেলে দৌড়াচ্ছে"),
        ("ஒரு நாய் ஓடுகிறது", "ஒரு நாய் ஓடுகிறது"),
        ("İkinci köpek, ISLAK İZMİR", "ikinci köpek islak izmir"),
        ("كَلْبٌ يَجْرِي", "كَلْبٌ يَجْرِي"),
        ("כֶּלֶב רָץ, צה״ל", "כֶּלֶב רָץ צה״ל"),
        ('"כלב" רץ, צה"ל', 'כלב רץ צה"ל'),
        ("می\N{ZERO WIDTH NON-JOINER}رود", "می\N{ZERO WIDTH NON-JOINER}رود"),
        ("un gos, col·lecció", "un gos col·lecció"),
        ("개가 달린다", "개가 달린다"),
        ("một con chó đang chạy", "một con chó đang chạy"),
    ],
)
def test_words_with_marks_stay_whole(caption: str, words: str) -> None:
    expected = [unicodedata.normalize("NFC", word) for word in words.split()]
    for form in ("NFC", "NFD"):
        found = split_words(unicodedata.normalize(form, caption))
        assert found == expected
    assert split_words(join_words(found)) == found


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("a t\u2011shirt, a t\u2010shirt", "a t-shirt a t-shirt"),  # hyphens of word processors
        ("don\u00b4t the man`s dog\u2018s", "don't the man's dog's"),
        ("\u2018red\u2019 `blue\u00b4", "red blue"),  # quotes
        ("м\u02bcяч", "м'яч"),
        ("\uff24\uff2f\uff27 \uff11\uff12", "dog 12"),  # full-width
        ("\ufb01re", "fire"),
        ("\ufedb\ufee0\ufe90 كـــلب", "كلب كلب"),
        ("do\u034fg\u3164 a\u061c b", "dog a b"),  # invisible characters
        ("അവന\u0d4d\u200d", "അവൻ"),
    ],
)
def test_other_characters_for_the_same_letters(typed: str, words: str) -> None:
    assert split_words(typed) == words.split()
    assert split_words(spaced(typed)) == words.split()


def test_thai_and_lao_vowels_in_two_parts() -> None:
    for typed, one in (("น\u0e49\u0e4d\u0e32", "น้ำ"), ("น\u0e4d\u0e49\u0e32", "น้ำ")):
        assert split_words(typed) == [one]
    assert split_words("\u0e40\u0e40มว") == split_words("แมว")
    assert split_words("ນ\u0ecd\u0ec9\u0eb2") == ["ນ້ຳ"]


@pytest.mark.parametrize(
    "caption, characters, words, text",
    [
        ("红色的狗在奔跑。", "红 色 的 狗 在 奔 跑", "红色 的 狗 在 奔跑", "红色的狗在奔跑"),
        ("犬がABCを走る", "犬 が abc を 走 る", "犬 が abc を 走る", "犬が abc を走る"),
        ("ローマ字", "ロ ー マ 字", "ローマ字", "ローマ字"),
        ("ｶﾞﾗｽの瓶", "ｶﾞ ﾗ ｽ の 瓶", "ｶﾞﾗｽ の 瓶", "ｶﾞﾗｽの瓶"),
        ("မြန်မာ", "မြ န် မာ", "မြန်မာ", "မြန်မာ"),
        ("สุนัขวิ่งในสวน", "สุ นั ข วิ่ ง ใ น ส ว น", "สุนัข วิ่ง ใน สวน", "สุนัขวิ่งในสวน"),
        ("ឆ្កែកំពុងរត់", None, "ឆ្កែ កំពុង រត់", "ឆ្កែកំពុងរត់"),
        ("一只T恤-shirt", "一 只 t 恤 shirt", "一只 t 恤 shirt", "一只 t 恤 shirt"),
    ],
)
def test_scripts_without_spaces(
    caption: str, characters: str | None, words: str, text: str
) -> None:
    if characters is not None:
        assert split_words(caption, UNICODE) == characters.split()
    assert join_words(split_words(caption, UNICODE)) == text
    pytest.importorskip("icu4py", reason="the dictionaries are an option")
    assert split_words(caption, ICU) == words.split()
    assert join_words(words.split()) == text
    assert spaced(caption, ICU) == words


def test_other_texts_are_only_cleaned_for_the_scorer() -> None:
    assert spaced("A dog's  ball, don't!\r\n", ICU) == "A dog's  ball, don't!"


def test_which_rule_a_new_vocabulary_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("icu4py", reason="the dictionaries are an option")
    assert best_rule(["a dog", "दो कुत्ते"]) == UNICODE
    assert best_rule(["a dog", "狗"]) == ICU
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert best_rule(["a dog", "狗"]) == UNICODE
    for module in ("icu4py", "icu4py.breakers"):
        monkeypatch.setitem(sys.modules, module, None)
    assert split_words("a dog", ICU) == ["a", "dog"], "what needs no dictionary works without"
    with pytest.raises(WordBreakingError, match="pip install icu4py"):
        split_words("狗在奔跑", ICU)
    with pytest.raises(WordBreakingError, match='rule is "runes"'):
        split_words("a dog", "runes")


@pytest.mark.parametrize(
    "end",
    ["\r", "\r\n", "\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\t", "\0", "\u200b"],
)
def test_every_white_space_is_a_space(end: str) -> None:
    assert clean(f"{end}a dog{end}runs{end}").split() == ["a", "dog", "runs"]
    assert len(clean(f"a{end}b").splitlines()) == 1


def test_what_is_no_text_is_dropped() -> None:
    assert clean("caf\udce9 e\u0301t\xade\ufeff \u200erun❤\ufe0f") == "caf éte run❤"
    assert clean("\ud83d") == ""
    assert clean("a  dog .") == "a  dog ."


def test_names_that_look_alike_are_alike() -> None:
    names = ["CAFÉ.JPG", "café.jpg", unicodedata.normalize("NFD", "Café.jpg")]
    assert len({name_key(name) for name in names}) == 1
    assert name_key("cafe.jpg") != name_key("café.jpg")
