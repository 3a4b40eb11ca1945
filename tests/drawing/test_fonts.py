"""Captions in other scripts: letters or a note, never boxes; right to left where that is right."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image, features

from captioner import Caption
from captioner.drawing import fonts
from captioner.drawing.overlay import attention_grid, write_attention_film

MAPS = np.full((1, 8, 8), 1 / 64, np.float32)
PHOTO = Image.new("RGB", (64, 64), "white")


def caption_of(words: str) -> Caption:
    said = words.split()
    return Caption(words, said, [-1.0] * len(said), np.repeat(MAPS, len(said), axis=0))


def write_font(path: Path, letters: str) -> None:
    """A font in which each of the letters is a block of its own height."""
    names = [".notdef", *(f"glyph{i}" for i in range(len(letters)))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): n for c, n in zip(letters, names[1:], strict=True)})
    glyphs = {}
    for height, name in enumerate(names, start=1):
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        for corner in ((50, 60 * height), (900, 60 * height), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics({name: (1000, 50) for name in names})
    builder.setupHorizontalHeader(ascent=1000, descent=-200)
    builder.setupNameTable({"familyName": "Blocks", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The font files that the machine seems to have: none at first."""
    found: list[str] = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    caches = (fonts._installed_font, fonts._installed_fonts)
    for cache in caches:
        cache.cache_clear()
    yield found
    for cache in caches:
        cache.cache_clear()


def film_of(caption: Caption) -> list[Image.Image]:
    file = io.BytesIO()
    write_attention_film(file, PHOTO, caption, longest=240)
    frames = []
    with Image.open(file) as film:
        for index in range(film.n_frames):
            film.seek(index)
            frames.append(film.convert("RGB"))
    return frames


def test_words_without_a_font_are_numbered_and_a_note_says_why(installed: list[str]) -> None:
    letters = fonts.lettering(["红色", "的", "狗"])
    assert letters.words == ["1", "2", "3"] and "no font here" in letters.note
    dog, cat = (attention_grid(PHOTO, caption_of(word)) for word in ("狗", "猫"))
    assert np.array_equal(dog, cat), "nothing of the words is drawn"
    english = attention_grid(PHOTO, caption_of("1"))
    assert not np.array_equal(dog, english), "the photo's title says why"
    frames = film_of(caption_of("红色 的 狗"))
    numbers = film_of(caption_of("1 2 3"))
    assert len(frames) == 4
    assert frames[0].height > numbers[0].height, "a note stands under the numbers"


def test_an_installed_font_is_found(installed: list[str], tmp_path: Path) -> None:
    for name, letters in (("LastResort.otf", "狗猫a1%"), ("b.ttf", "狗"), ("c.ttf", "狗猫a1%")):
        write_font(tmp_path / name, letters)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    installed += [
        str(tmp_path / f"{n}") for n in ("LastResort.otf", "broken.ttf", "b.ttf", "c.ttf")
    ]
    assert fonts.font_for("狗") == tmp_path / "b.ttf"
    assert fonts.font_for("狗猫") == tmp_path / "c.ttf", "one font has to have them all"
    assert fonts.font_for("狗鸟") is None
    assert fonts.font_for("\U0010ffff") is None
    dog, cat = (attention_grid(PHOTO, caption_of(word)) for word in ("狗", "猫"))
    assert not np.array_equal(dog, cat)


@pytest.mark.parametrize("text", ["a dog", "Hündchen собака σκύλος", "كلب يجري", "כלב רץ"])
def test_matplotlibs_font_has_many_scripts(installed: list[str], text: str) -> None:
    letters = fonts.lettering(text.split())
    assert letters.font.name == "DejaVuSans.ttf" and letters.words == text.split()
    assert letters.right_to_left == (text[0] > "\u0590") and not letters.note


def test_captions_from_right_to_left(installed: list[str]) -> None:
    photo = Image.new("RGB", (64, 64), (230, 20, 230))
    grid = np.asarray(attention_grid(photo, caption_of("כלב רץ"), tile=120))
    bare = np.argwhere((grid == (230, 20, 230)).all(axis=-1))[:, 1]
    assert bare.min() > grid.shape[1] // 2, "the bare photo stands first, at the right"
    for text, forward in (("ab cd ef", True), ("כלב רץ מהר", False)):
        where = []
        for frame in film_of(caption_of(text))[:3]:
            pixels = np.asarray(frame, int)[245:]
            where.append(np.argwhere(pixels[..., 0] - pixels[..., 2] > 150)[:, 1].mean())
        assert where == sorted(where, reverse=not forward)


def test_without_a_layout_engine_letters_that_join_are_left_out(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "check", lambda feature: False)
    assert fonts.font_for("كلب") is None
    assert fonts.font_for("собака") is not None
