"""Draws attention maps over the photo, as in figures 3 and 5 of Show, Attend and Tell
(Xu et al. 2015, arXiv 1502.03044): the map of one word, or a whole caption as a grid or a film.

A map is stretched over the whole photo, because the network saw the whole photo, squeezed into a
square (`images.to_network_input`).
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

# A colour, and its opacity over the photo. Attended places are tinted and the others are dimmed,
# because a dark photo does not show dimming, and a bright photo does not show a tint.
ATTENDED = ((255, 178, 0), 0.26)
UNATTENDED = ((10, 10, 36), 0.66)

_BACKGROUND = "white"
_INK = (23, 23, 34)
_FAINT = (168, 168, 178)  # words that are still to come


def draw_attention(photo: Image.Image, attention: np.ndarray) -> Image.Image:
    """Draws the attention of one word over the photo.

    The attention is shown relative to its largest value, so a uniform map lights the whole photo.

    Args:
        photo: The upright photo.
        attention: (rows, columns), non-negative; the first row is at the top of the photo.

    Returns:
        An RGB image of the photo's size.

    Raises:
        ValueError: `attention` has another shape, or a value is negative or not finite.
    """
    photo = photo.convert("RGB")
    return Image.composite(*_layers(photo), _mask(attention, photo.size))


def attention_grid(photo: Image.Image, caption: Caption, tile: int = 240) -> Image.Image:
    """Draws a caption as one RGB picture: the photo, then a tile for each word.

    The title of a tile is the word with its probability, in a smaller size if it is wider than the
    tile. The tiles of a caption that is read from right to left are laid out from right to left. If
    no font has the letters, the words are numbered, and the title of the photo says why.

    Args:
        photo: The upright photo.
        caption: Its caption; `caption.attention` is (n_words, rows, columns).
        tile: The longer side of a tile in pixels.

    Raises:
        ValueError: The numbers of words, log-probabilities and maps differ.
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
    """`attention_grid` as a PNG for print, with 300 pixels per inch."""
    return png_bytes(attention_grid(photo, caption, tile), dpi=300)


def write_attention_film(
    file: str | os.PathLike | BinaryIO,
    photo: Image.Image,
    caption: Caption,
    longest: int = 400,
    seconds: float = 0.8,
) -> None:
    """Writes a caption as an animated GIF that repeats forever.

    There is a frame for each word, which shows its attention over the photo and, below, the caption
    up to this word. A last frame shows the bare photo and the whole caption. If no font has the
    letters, the words are numbered, and a note says why.

    Args:
        file: The path or the open file to write to.
        photo: The upright photo.
        caption: Its caption; `caption.attention` is (n_words, rows, columns).
        longest: The longer side of the photo in pixels.
        seconds: How long a word is shown.

    Raises:
        OSError: The file cannot be written.
        ValueError: The numbers of words, log-probabilities and maps differ.
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
    """The frames of `write_attention_film`, as RGB images of the same size.

    Raises ValueError like `attention_grid`.
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
    """Milliseconds that each frame is shown: `seconds` per word, three times that for the last."""
    return [round(1000 * seconds)] * (frames - 1) + [round(3000 * seconds)]


def format_probability(probability: float) -> str:
    """A probability in 0..1 as a title shows it: "34%", and "<1%" rather than "0%"."""
    return "<1%" if probability < 0.01 else f"{100 * probability:.0f}%"


def _titles(caption: Caption, letters: Lettering) -> list[str]:
    # After an Arabic word, the percent sign would change sides without a mark of direction.
    mark = "\N{LEFT-TO-RIGHT MARK}" if letters.right_to_left else ""
    titles = []
    for word, log_prob in zip(letters.words, caption.log_probs, strict=True):
        title = f"word {word}:" if letters.note else word
        titles.append(f"{title} {mark}{format_probability(math.exp(log_prob))}{mark}")
    if len(caption.attention) != len(caption.words):
        raise ValueError(f"{len(caption.words)} words but {len(caption.attention)} attention maps")
    return titles


def _layers(photo: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The photo as it looks at the highest attention, and as it looks without attention."""
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
    """Arranges pictures of the same size, with titles above them, on a sheet of about 3:2."""
    margin, title_height = tile // 20, tile // 7
    # At least 3/5 of a tile, so that titles over a narrow photo stay legible.
    cell_width = max(pictures[0].width, tile * 3 // 5) + margin
    cell_height = pictures[0].height + title_height + margin
    columns = max(1, round(math.sqrt(1.5 * len(pictures) * cell_height / cell_width)))
    rows = math.ceil(len(pictures) / columns)
    columns = math.ceil(len(pictures) / rows)  # so that the last row is about as full as the others
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
    font = _font(max(size, 1), path)  # Pillow has no font of less than a pixel
    length = font.getlength(text)
    if length <= width:
        return font
    return font.font_variant(size=max(font.size * width / length * 0.98, 1))


@lru_cache(maxsize=8)
def _font(size: float, path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _subtitled(picture: Image.Image, letters: Lettering, current: int, longest: int) -> Image.Image:
    """A picture with its caption below, broken into lines.

    The word number `current` is highlighted, and the words after it are faint; if there is no such
    word, the whole caption is dark. The size of the result does not depend on `current`.
    """
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
    """A frame with 256 colours of its own, because frames have few colours in common.

    Choosing the colours takes most of the time, so they are chosen from a smaller copy, which has
    nearly the same ones. The colours of the thin letters, which it may lack, are added.
    """
    written = [*ATTENDED[0], *_INK, *_FAINT]
    palette = Image.new("P", (1, 1))
    palette.putpalette((frame.reduce(3).quantize(125).getpalette() or [])[: 3 * 125] + written)
    return frame.quantize(palette=palette, dither=Image.Dither.NONE)


def _lines(words: Sequence[str], font: ImageFont.FreeTypeFont, width: int) -> list[list[str]]:
    """Breaks words into lines of at most `width` pixels; a wider word gets a line of its own."""
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and font.getlength(" ".join([*lines[-1], word])) > width:
            lines.append([])
        lines[-1].append(word)
    return lines
