"""Attention maps over photos: the right place, visible on any photo, and a grid of any length."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import Caption
from captioner.data.images import load_image
from captioner.drawing.overlay import (
    attention_frames,
    attention_grid,
    attention_grid_png,
    draw_attention,
    format_probability,
    write_attention_film,
)

MAGENTA = (230, 20, 230)
CORNERS = {
    "top left": (0, 0),
    "top right": (0, -1),
    "bottom left": (-1, 0),
    "bottom right": (-1, -1),
}


def one_hot(row: int, column: int, rows: int = 8, columns: int = 8) -> np.ndarray:
    attention = np.zeros((rows, columns), np.float32)
    attention[row, column] = 1.0
    return attention


def caption_of(words: list[str]) -> Caption:
    attention = np.full((len(words), 8, 8), 1 / 64, np.float32)
    return Caption(" ".join(words), words, [-0.5] * len(words), attention)


def corner_brightness(picture: Image.Image) -> dict[str, float]:
    grey = np.asarray(picture.convert("L"), np.float32)
    height, width = grey.shape[0] // 8, grey.shape[1] // 8
    ends = {0: slice(None, 1), -1: slice(-1, None)}
    blocks = grey[: height * 8, : width * 8].reshape(8, height, 8, width).mean(axis=(1, 3))
    return {name: float(blocks[ends[r], ends[c]].mean()) for name, (r, c) in CORNERS.items()}


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("size", [(96, 40), (40, 96)])
def test_mass_in_a_corner_lights_that_corner_of_the_photo(
    corner: str, size: tuple[int, int]
) -> None:
    picture = draw_attention(Image.new("RGB", size, (128, 128, 128)), one_hot(*CORNERS[corner]))
    assert picture.size == size
    brightness = corner_brightness(picture)
    lit = brightness.pop(corner)
    assert lit > max(brightness.values()) + 50


def test_mass_in_a_corner_lights_that_corner_of_a_photo_that_exif_turns(tmp_path: Path) -> None:
    upright = Image.new("RGB", (64, 160), (90, 90, 90))
    upright.paste((250, 120, 120), (0, 0, 16, 40))  # a mark at the top left
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned a quarter clockwise
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)

    photo = load_image(tmp_path / "turned.jpg")
    picture = draw_attention(photo, one_hot(0, 0))

    assert picture.size == upright.size
    assert corner_brightness(photo)["top left"] > 130  # the mark is where the test put it
    kept = {n: corner_brightness(picture)[n] / corner_brightness(photo)[n] for n in CORNERS}
    assert kept.pop("top left") > 2 * max(kept.values())


def test_maps_need_not_be_square() -> None:
    picture = draw_attention(Image.new("RGB", (90, 60), "grey"), one_hot(1, 4, rows=2, columns=5))
    brightness = corner_brightness(picture)
    assert max(brightness, key=lambda corner: brightness[corner]) == "bottom right"


@pytest.mark.parametrize("colour", ["black", "white", "red", "yellow", "navy"])
def test_attention_is_visible_on_a_photo_of_any_colour(colour: str) -> None:
    picture = draw_attention(Image.new("RGB", (80, 80), colour), one_hot(0, 0))
    lit, unlit = (np.float32(picture.getpixel(at)) for at in ((4, 4), (70, 70)))
    assert np.abs(lit - unlit).max() > 40


def test_the_map_is_upscaled_smoothly() -> None:
    picture = draw_attention(Image.new("RGB", (320, 320), "grey"), one_hot(3, 3))
    pixels = np.asarray(picture, np.int32)
    steps = max(np.abs(np.diff(pixels, axis=axis)).max() for axis in (0, 1))
    assert 1 <= steps <= 6  # a cell's edge without smoothing is a step of more than 50


def test_a_map_that_looks_everywhere_alike_lights_the_whole_photo() -> None:
    photo = Image.new("RGB", (60, 40), "grey")
    even = np.asarray(draw_attention(photo, np.full((8, 8), 1 / 64, np.float32)))
    peak = np.asarray(draw_attention(photo, one_hot(0, 0)))
    assert np.ptp(even, axis=(0, 1)).max() == 0
    assert np.abs(even[0, 0].astype(int) - peak[0, 0]).max() <= 1


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (np.ones(64), "rows, columns"),
        (np.ones((0, 8)), "rows, columns"),
        (np.full((8, 8), np.nan), "finite"),
        (np.full((8, 8), -0.1), "non-negative"),
    ],
)
def test_what_is_not_a_map_is_refused(attention: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_attention(Image.new("RGB", (8, 8)), attention)


def tile_pixels(sheet: Image.Image) -> np.ndarray:
    """Where the tiles of a magenta photo are, bool (height, width): titles are grey."""
    pixels = np.asarray(sheet, np.int32)
    return pixels[..., 0] - pixels[..., 1] > 30


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 12, 20, 40])
@pytest.mark.parametrize("size", [(300, 200), (200, 300)])
def test_the_grid_has_the_photo_and_a_tile_for_each_word(count: int, size: tuple[int, int]) -> None:
    sheet = attention_grid(Image.new("RGB", size, MAGENTA), caption_of(["word"] * count), tile=60)
    tiles = tile_pixels(sheet)
    assert tiles.sum() == (count + 1) * 60 * 40
    assert 0.5 < sheet.width / sheet.height < 4
    first_row, first_column = (int(np.argmax(tiles.any(axis=axis))) for axis in (1, 0))
    assert (
        sheet.getpixel((first_column + 5, first_row + 5)) == MAGENTA
    )  # the bare photo comes first
    bare = (np.asarray(sheet) == MAGENTA).all(axis=-1)
    assert bare.sum() == 60 * 40


@pytest.mark.parametrize("size", [(1, 1), (2000, 3), (3, 2000)])
def test_the_grid_takes_photos_of_extreme_shapes(size: tuple[int, int]) -> None:
    sheet = attention_grid(Image.new("RGB", size, MAGENTA), caption_of(["a", "line"]), tile=60)
    assert tile_pixels(sheet).sum() == 3 * 60 * (60 if size == (1, 1) else 1)


@pytest.mark.parametrize("size", [1, 7, 19])
def test_tiny_pictures_are_drawn_too(size: int) -> None:
    photo, caption = Image.new("RGB", (30, 20), MAGENTA), caption_of(["a", "skateboarding"])
    assert attention_grid(photo, caption, tile=size).height >= size
    assert len(attention_frames(photo, caption, longest=size)) == 3


def test_the_grid_of_no_words_is_the_photo() -> None:
    sheet = attention_grid(Image.new("RGB", (30, 20), MAGENTA), caption_of([]), tile=60)
    assert tile_pixels(sheet).sum() == 60 * 40


@pytest.mark.parametrize("word", ["dog", "skateboarding", "counterrevolutionaries" * 3])
def test_titles_are_never_clipped(word: str) -> None:
    sheet = attention_grid(Image.new("RGB", (300, 200), MAGENTA), caption_of([word] * 3), tile=240)
    tiles = tile_pixels(sheet)
    ink = (np.asarray(sheet.convert("L")) < 200) & ~tiles
    over_a_tile = tiles.any(axis=0)
    assert not ink[:, ~over_a_tile].any()  # none in the margins between the tiles
    beside = np.roll(ink, 1, axis=0)  # nor touching a tile from above, or the border
    assert not (beside & tiles).any() and not ink[0].any() and not ink[-1].any()
    rows = ink.any(axis=1)
    columns = np.flatnonzero(ink[np.flatnonzero(rows)[-1] - 40 :].any(axis=0))
    assert np.ptp(columns) > len(word) * 3  # and it is really there, from end to end


def test_the_grid_refuses_a_caption_whose_parts_do_not_match() -> None:
    photo = Image.new("RGB", (30, 20))
    whole = caption_of(["a", "dog"])
    with pytest.raises(ValueError):
        attention_grid(photo, Caption("a dog", whole.words, [-0.5], whole.attention))
    with pytest.raises(ValueError, match="2 words but 1 attention"):
        attention_grid(photo, Caption("a dog", whole.words, whole.log_probs, whole.attention[:1]))


def test_the_grid_is_written_as_a_png_for_print() -> None:
    photo, caption = Image.new("RGB", (300, 200), MAGENTA), caption_of(["a", "dog"])
    with Image.open(io.BytesIO(attention_grid_png(photo, caption))) as picture:
        assert picture.format == "PNG"
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert min(picture.size) > 900  # pixels
        assert np.array_equal(picture, attention_grid(photo, caption, tile=600))


def test_the_film_has_a_frame_a_word_and_the_whole_caption() -> None:
    words = ["a", "dog", "runs"]
    attention = np.stack([one_hot(0, 0), one_hot(0, 7), one_hot(7, 7)])
    caption = Caption("a dog runs", words, [-0.5] * 3, attention)
    file = io.BytesIO()
    grey = Image.new("RGB", (300, 200), (128, 128, 128))
    write_attention_film(file, grey, caption, longest=240, seconds=0.5)
    with Image.open(file) as film:
        assert film.format == "GIF" and film.is_animated and film.info["loop"] == 0
        assert film.n_frames == 4
        frames, durations = [], []
        for index in range(4):
            film.seek(index)
            durations.append(film.info["duration"])
            frames.append(film.convert("RGB"))
    assert durations == [500, 500, 500, 1500]
    photos = [frame.crop((0, 0, 240, 160)) for frame in frames]
    for picture, corner in zip(photos, ("top left", "top right", "bottom right"), strict=False):
        brightness = corner_brightness(picture)
        assert max(brightness, key=brightness.get) == corner
    assert np.ptp(np.asarray(photos[3])) < 8  # the bare photo
    captions = [np.asarray(frame.crop((0, 165, 240, frame.height)), int) for frame in frames]
    amber = [(c[..., 0] - c[..., 2] > 150).sum() for c in captions]
    assert min(amber[:3]) > 50 and amber[3] == 0  # each word stands out in its turn
    where = [np.argwhere(c[..., 0] - c[..., 2] > 150)[:, 1].mean() for c in captions[:3]]
    assert where == sorted(where)


@pytest.mark.parametrize("size", [(300, 200), (3, 900), (900, 3)])
@pytest.mark.parametrize("count", [1, 20])
def test_the_film_clips_no_word(size: tuple[int, int], count: int) -> None:
    words = ["counterrevolutionaries", "a", "skateboarding"] * count
    file = io.BytesIO()
    write_attention_film(file, Image.new("RGB", size, MAGENTA), caption_of(words), longest=240)
    with Image.open(file) as film:
        film.seek(film.n_frames - 1)
        frame = np.asarray(film.convert("RGB"), int)
    magenta = abs(frame - MAGENTA).max(axis=-1) < 60
    ink = (frame.max(axis=-1) < 150) & ~magenta
    assert ink.sum() > 100 * count
    assert not ink[:, :3].any() and not ink[:, -3:].any() and not ink[-3:].any()


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "100%"), (0.344, "34%"), (0.01, "1%"), (0.0099, "<1%")]
)
def test_probabilities_are_short(probability: float, text: str) -> None:
    assert format_probability(probability) == text
