"""Attention maps drawn over the photo, as in figures 3 and 5 of Show, Attend and Tell
(Xu et al. 2015, arXiv 1502.03044): one word's map, or a whole caption as a grid of tiles.

The maps are upscaled over the whole photo, because the network saw the whole photo squeezed into
a square (`images.to_network_input`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from captioner.drawing.fonts import Lettering, lettering
from captioner.drawing.png_encoder import png_bytes

if TYPE_CHECKING:
    from captioner.captioner import Caption

# A colour, and how much of it covers the photo. Attended places are tinted and the others dimmed:
# dimming alone cannot be seen on a dark photo, a tint alone cannot be seen on a bright one.
ATTENDED = ((255, 178, 0), 0.26)
UNATTENDED = ((10, 10, 36), 0.66)

_BACKGROUND = "white"
_INK = (23, 23, 34)
_FAINT = (168, 168, 178)  # words that are still to come


def draw_attention(photo: Image.Image, attention: np.ndarray) -> Image.Image:
    """One word's attention over the photo, as an RGB image of the photo's size.

    `attention` is (rows, columns), non-negative, its first row at the top of the photo. It is shown
    relative to its largest value: a map that looks everywhere alike lights the whole photo.
    Raises ValueError if it is anything else.
    """
    photo = photo.convert("RGB")
    return Image.composite(*_layers(photo), _mask(attention, photo.size))


def attention_grid(photo: Image.Image, caption: Caption, tile: int = 240) -> Image.Image:
    """A caption as one RGB picture: the photo, then a tile per word with its probability.

    `photo` is upright, `caption.attention` is (n_words, rows, columns), `tile` is the longer side
    of a tile in pixels. The tiles stand in as many rows as they need, and a title that is wider
    than its tile is set in a smaller size. Captions that are read from right to left are laid out
    so. Where no font has the letters, words are numbered, and the photo's title says why. Raises
    ValueError if words, log-probabilities and maps are not equally many.
    """
    letters = lettering(caption.words)
    titles = [f"photo ({letters.note})" if letters.note else "photo", *_titles(caption, letters)]
    photo = photo.convert("RGB").resize(
        _fit(photo.size, tile), Image.Resampling.BICUBIC, reducing_gap=2.0
    )
    layers = _layers(photo)
    pictures = [photo]
    for attention in caption.attention:
        pictures.append(Image.composite(*layers, _mask(attention, photo.size)))
    return _arrange(pictures, titles, tile, letters)


def attention_grid_png(photo: Image.Image, caption: Caption, tile: int = 600) -> bytes:
    """`attention_grid` as a PNG at 300 pixels an inch: its default `tile` is for print."""
    return png_bytes(attention_grid(photo, caption, tile), dpi=300)


def write_attention_film(
    file: str | os.PathLike | BinaryIO,
    photo: Image.Image,
    caption: Caption,
    longest: int = 400,
    seconds: float = 0.8,
) -> None:
    """Write a caption as an endless animated GIF: a frame per word, with its attention over the
    photo and the caption up to it underneath, then the bare photo with the whole caption. Where
    no font has the caption's letters, its words are numbered, and a note says why.

    `longest` is the longer side of the photo in pixels, `seconds` how long a word stays. Raises
    OSError if the file cannot be written, ValueError as `attention_grid`.
    """
    frames = [_few_colours(frame) for frame in attention_frames(photo, caption, longest)]
    frames[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=frame_durations(len(frames), seconds),
        loop=0,
    )


def attention_frames(photo: Image.Image, caption: Caption, longest: int = 400) -> list[Image.Image]:
    """The frames of `write_attention_film`, as RGB images of one size.

    Raises ValueError as `attention_grid`.
    """
    letters = lettering(caption.words)
    _titles(caption, letters)
    photo = photo.convert("RGB").resize(
        _fit(photo.size, longest), Image.Resampling.BICUBIC, reducing_gap=2.0
    )
    layers = _layers(photo)
    pictures = [Image.composite(*layers, _mask(a, photo.size)) for a in caption.attention]
    return [
        _subtitled(picture, letters, index, longest)
        for index, picture in enumerate([*pictures, photo])
    ]


def frame_durations(frames: int, seconds: float) -> list[int]:
    """Milliseconds that each frame stays: a word `seconds`, the whole caption three times that."""
    return [round(1000 * seconds)] * (frames - 1) + [round(3000 * seconds)]


def format_probability(probability: float) -> str:
    """A probability in 0..1 as a title shows it: "34%", and "<1%" rather than "0%"."""
    return "<1%" if probability < 0.01 else f"{100 * probability:.0f}%"


def _titles(caption: Caption, letters: Lettering) -> list[str]:
    # Behind an Arabic word, the percent sign would change sides without a mark of direction.
    mark = "\N{LEFT-TO-RIGHT MARK}" if letters.right_to_left else ""
    titles = []
    for word, log_prob in zip(letters.words, caption.log_probs, strict=True):
        title = f"word {word}:" if letters.note else word
        titles.append(f"{title} {mark}{format_probability(math.exp(log_prob))}{mark}")
    if len(caption.attention) != len(caption.words):
        raise ValueError(f"{len(caption.words)} words but {len(caption.attention)} attention maps")
    return titles


def _layers(photo: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The photo as it looks where the attention is highest, and where there is none."""
    layers = []
    for colour, strength in (ATTENDED, UNATTENDED):
        layers.append(Image.blend(photo, Image.new("RGB", photo.size, colour), strength))
    return layers[0], layers[1]


def _mask(attention: np.ndarray, size: tuple[int, int]) -> Image.Image:
    attention = np.asarray(attention, dtype=np.float32)
    if attention.ndim != 2 or attention.size == 0:
        raise ValueError(f"an attention map must be (rows, columns), not {attention.shape}")
    if not np.isfinite(attention).all() or attention.min() < 0:
        raise ValueError("an attention map must be finite and non-negative")
    relative = attention / max(attention.max(), np.finfo(np.float32).tiny)
    levels = Image.fromarray(np.rint(relative * 255).astype(np.uint8))
    return levels.resize(size, Image.Resampling.BICUBIC)


def _fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = longest / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _arrange(
    pictures: list[Image.Image], titles: list[str], tile: int, letters: Lettering
) -> Image.Image:
    """Pictures of one size under their titles, in rows on one sheet about 3:2 wide."""
    margin, title_height = tile // 20, tile // 7
    # Not narrower than 3/5 of a tile, so that titles over an upright photo stay legible.
    cell_width = max(pictures[0].width, tile * 3 // 5) + margin
    cell_height = pictures[0].height + title_height + margin
    columns = max(1, round(math.sqrt(1.5 * len(pictures) * cell_height / cell_width)))
    rows = math.ceil(len(pictures) / columns)
    columns = math.ceil(len(pictures) / rows)  # the last row as full as the others
    sheet = Image.new(
        "RGB", (columns * cell_width + margin, rows * cell_height + margin), _BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    for index, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        row, column = divmod(index, columns)
        if letters.right_to_left:
            column = columns - 1 - column
        left, top = column * cell_width + margin, row * cell_height + margin
        font = _fitting_font(title, cell_width - margin, title_height * 5 // 8, letters.font)
        centre = left + (cell_width - margin) / 2
        draw.text((centre, top + title_height / 2), title, _INK, font, anchor="mm")
        sheet.paste(picture, (round(centre - picture.width / 2), top + title_height))
    return sheet


def _fitting_font(text: str, width: int, size: float, path: Path) -> ImageFont.FreeTypeFont:
    font = _font(size, path)
    length = font.getlength(text)
    return font if length <= width else font.font_variant(size=size * width / length * 0.98)


@lru_cache(maxsize=8)
def _font(size: float, path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _subtitled(picture: Image.Image, letters: Lettering, current: int, longest: int) -> Image.Image:
    """A picture over its caption, broken into lines, of which the word `current` stands out; the
    whole caption does if there is no such word. Every frame of a caption has the same size."""
    margin, size = longest // 24, longest // 20
    width = max(picture.width, longest * 3 // 5)
    widest = max(letters.words, key=len, default="")
    font = _fitting_font(widest, width - 2 * margin, size, letters.font)
    lines = _lines(letters.words, font, width - 2 * margin)
    notes = _lines(letters.note.split(), font, width - 2 * margin) if letters.note else []
    line_height = round(1.5 * font.size)
    sheet = Image.new(
        "RGB",
        (width, picture.height + len([*lines, *notes]) * line_height + 2 * margin),
        _BACKGROUND,
    )
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    space, index = font.getlength(" "), 0
    for row, words in enumerate(lines):
        x = (width - font.getlength(" ".join(words))) / 2
        numbered = list(enumerate(words, start=index))
        index += len(words)
        y = picture.height + margin + (row + 0.5) * line_height
        for number, word in reversed(numbered) if letters.right_to_left else numbered:
            length = font.getlength(word)
            if number == current:
                ground = (x - space / 2, y - line_height * 0.45)
                ground += (x + length + space / 2, y + line_height * 0.45)
                draw.rounded_rectangle(ground, line_height / 5, fill=ATTENDED[0])
            unsaid = number > current
            draw.text((x, y), word, _FAINT if unsaid else _INK, font, anchor="lm")
            x += length + space
    for row, note in enumerate(notes, start=len(lines)):
        y = picture.height + margin + (row + 0.5) * line_height
        draw.text((width / 2, y), " ".join(note), _INK, font, anchor="mm")
    return sheet


def _few_colours(frame: Image.Image) -> Image.Image:
    """A frame with a palette of its own: the warm and the dark layers have few colours in common.

    Choosing colours is what takes the time, and a small copy has nearly the same ones. It would
    miss those of the thin letters, which are known.
    """
    written = [*ATTENDED[0], *_INK, *_FAINT]
    palette = Image.new("P", (1, 1))
    palette.putpalette((frame.reduce(3).quantize(125).getpalette() or [])[: 3 * 125] + written)
    return frame.quantize(palette=palette, dither=Image.Dither.NONE)


def _lines(words: Sequence[str], font: ImageFont.FreeTypeFont, width: int) -> list[list[str]]:
    """Words broken into lines that are at most `width` wide."""
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and font.getlength(" ".join([*lines[-1], word])) > width:
            lines.append([])
        lines[-1].append(word)
    return lines
