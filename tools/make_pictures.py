"""Makes pictures of the documentation: the bundled model captions one of the page's examples.

    python tools/make_pictures.py [--photo FILE] [--word NUMBER] [--checkpoint DIR]

It writes two files into docs/pictures/: `words.webp`, in which the words of a caption light up the
photo one after the other, and `architecture.png`, which follows the photo and one word through the
network. All maps, strips and bars in it show values that the model computed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from captioner import Caption, Captioner
from captioner.data.images import load_image
from captioner.data.vocabulary import START
from captioner.drawing.overlay import (
    attention_frames,
    draw_attention,
    format_probability,
    frame_durations,
)
from captioner.model.function_words import FUNCTION_WORDS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
FILM_SIDE, FILM_SECONDS = 560, 0.9  # pixels of the longer side; seconds that a word is shown
MOST_BYTES = 3_000_000  # the largest size of the film, because a README should load quickly
LIKELIEST = 6  # words in the bar chart
INK, FAINT, WARM = "#171722", "#8a8a96", "#c98a00"
ARROWS = (  # from where to where in the drawing of the network, in fractions of its size
    ((0.235, 0.72), (0.315, 0.72)),
    ((0.525, 0.72), (0.605, 0.72)),
    ((0.61, 0.55), (0.24, 0.37)),
    ((0.235, 0.285), (0.285, 0.285)),
    ((0.455, 0.285), (0.515, 0.195)),
    ((0.455, 0.18), (0.515, 0.18)),
    ((0.455, 0.08), (0.515, 0.165)),
    ((0.285, 0.075), (0.235, 0.12)),
    ((0.685, 0.18), (0.735, 0.18)),
)


@dataclass(frozen=True)
class Trace:
    """What the network computed on the way to one word."""

    cells: np.ndarray  # (rows, columns): the backbone's features, averaged over the channels
    vectors: np.ndarray  # (locations, dim): the annotation vectors
    attention: np.ndarray  # (rows, columns)
    context: np.ndarray  # (dim,): the gated context vector
    embedded: np.ndarray  # (dim,): the previous word
    before: np.ndarray  # (units,): the state before this word
    after: np.ndarray  # (units,): the state after it
    likeliest: list[tuple[str, float]]  # words and their probabilities, best first


def main() -> int:
    """Writes both pictures. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photo", type=Path, default=ROOT / "assets/examples/motorcycle.jpg")
    parser.add_argument("--checkpoint", default=ROOT / "assets" / "checkpoint")
    parser.add_argument(
        "--word",
        type=int,
        help="the word to follow, from 1 (default: one with concentrated attention)",
    )
    options = parser.parse_args()
    captioner = Captioner.from_pretrained(options.checkpoint)
    photo = load_image(options.photo)
    caption = captioner.caption(photo, strategy="beam", num_captions=1)[0]
    FOLDER.mkdir(exist_ok=True)
    film = FOLDER / "words.webp"
    write_film(film, photo, caption)
    number = options.word - 1 if options.word else chosen_word(caption)
    draw_architecture(FOLDER / "architecture.png", photo, caption, number, captioner)
    print(f'"{caption.text}", followed: "{caption.words[number]}"')
    if film.stat().st_size > MOST_BYTES:
        print(f"error: {film} has more than {MOST_BYTES} bytes.", file=sys.stderr)
        return 1
    return 0


def write_film(path: Path, photo: Image.Image, caption: Caption) -> None:
    """Writes the film that the page offers, as a WebP in full colour that repeats forever."""
    frames = attention_frames(photo, caption, FILM_SIDE)
    durations = frame_durations(len(frames), FILM_SECONDS)
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=82
    )


def chosen_word(caption: Caption) -> int:
    """The number of the word to follow: the content word with the most concentrated attention,
    without the first two words of the caption."""
    words = range(len(caption.words))
    content = [i for i in words if i > 1 and caption.words[i] not in FUNCTION_WORDS]
    return max(content or words, key=lambda i: float(caption.attention[i].max()))


def trace(captioner: Captioner, photo: Image.Image, caption: Caption, number: int) -> Trace:
    """Runs the network step by step, up to the word `number` of `caption`."""
    from keras import ops  # not before captioner, which keeps TensorFlow's notes back

    model, vocabulary, size = captioner.model, captioner.vocabulary, captioner.config.model
    features = captioner.features([photo])  # (1, locations, channels)
    annotations = model.encode(ops.convert_to_tensor(features, "float32"))
    ids = [START, *(vocabulary.encode(word)[0] for word in caption.words[:number])]
    after = before = model.initial_state(annotations, 1)
    for word in ids:
        embedded = model.embedding(ops.reshape(ops.convert_to_tensor([word]), (1, 1)))
        before = after
        after, context, weights = model.step(annotations, before, embedded)
    probabilities = np.asarray(ops.softmax(model.project(after, context, embedded)))[0, 0]
    best = np.argsort(-probabilities)[:LIKELIEST]
    return Trace(
        np.asarray(features, np.float32)[0].mean(axis=-1).reshape(size.rows, size.columns),
        np.asarray(annotations.vectors)[0],
        np.asarray(weights).reshape(size.rows, size.columns),
        np.asarray(context).ravel(),
        np.asarray(embedded).ravel(),
        np.asarray(before).ravel(),
        np.asarray(after).ravel(),
        [(vocabulary.words[i], float(probabilities[i])) for i in best],
    )


def draw_architecture(
    path: Path, photo: Image.Image, caption: Caption, number: int, captioner: Captioner
) -> None:
    """Draws the network with the values that it computed for the word `number` of `caption`."""
    found = trace(captioner, photo, caption, number)
    size = captioner.config
    figure = Figure(figsize=(15, 8.2), dpi=110, facecolor="white")
    figure.text(0.02, 0.95, "Once per photo", fontsize=15, weight="bold", color=INK)
    figure.text(0.02, 0.455, "Once per word", fontsize=15, weight="bold", color=INK)
    said = " ".join(caption.words[:number])
    figure.text(0.14, 0.455, f'here the one after "{said}"', fontsize=13, color=FAINT)

    side = size.backbone.image_size
    axes = _panel(figure, (0.03, 0.56, 0.2, 0.32), f"photo\n{side} x {side} pixels")
    axes.imshow(photo.resize((side, side)))
    rows, columns, channels = size.model.rows, size.model.columns, size.model.channels
    axes = _panel(
        figure,
        (0.32, 0.56, 0.2, 0.32),
        f"InceptionV3\n{rows} x {columns} cells, {channels} channels",
    )
    axes.imshow(found.cells, cmap="cividis")
    axes = _panel(
        figure,
        (0.61, 0.56, 0.2, 0.32),
        f"encoder\n{len(found.vectors)} annotation vectors of {found.vectors.shape[1]}",
    )
    axes.imshow(found.vectors, cmap="cividis", aspect="auto")
    figure.text(0.84, 0.78, "Their mean makes\nthe first state.", fontsize=12, color=INK)

    axes = _panel(figure, (0.03, 0.06, 0.2, 0.3), "attention\none weight per cell, sum 1")
    axes.imshow(draw_attention(photo.resize((side, side)), found.attention))
    _strip(figure, (0.29, 0.27, 0.16, 0.035), found.context, "context: weighted sum of the vectors")
    previous = caption.words[number - 1] if number else "<start>"
    _strip(figure, (0.29, 0.165, 0.16, 0.035), found.embedded, f'previous word: "{previous}"')
    _strip(figure, (0.29, 0.06, 0.16, 0.035), found.before, "state before")
    _strip(
        figure, (0.52, 0.165, 0.16, 0.035), found.after, f"GRU: the new state, {len(found.after)}"
    )
    _bars(figure, (0.78, 0.07, 0.19, 0.27), found.likeliest, caption.words[number])
    for start, end in ARROWS:
        _arrow(figure, start, end)
    figure.savefig(path)
    with Image.open(path) as picture:  # a third of the size in 256 colours
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def _arrow(figure: Figure, start: tuple[float, float], end: tuple[float, float]) -> None:
    figure.add_artist(
        FancyArrowPatch(
            start, end, transform=figure.transFigure, arrowstyle="-|>", mutation_scale=18,
            color=WARM, linewidth=1.8,
        )
    )  # fmt: skip


def _panel(figure: Figure, place: tuple[float, float, float, float], title: str) -> Axes:
    axes = figure.add_axes(place)
    axes.set_title(title, fontsize=12, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def _strip(
    figure: Figure, place: tuple[float, float, float, float], values: np.ndarray, title: str
) -> None:
    """Draws a vector as a row of colours."""
    most = float(np.abs(values).max()) or 1.0
    axes = _panel(figure, place, title)
    axes.imshow(values[np.newaxis], cmap="PuOr", vmin=-most, vmax=most, aspect="auto")


def _bars(
    figure: Figure,
    place: tuple[float, float, float, float],
    likeliest: list[tuple[str, float]],
    chosen: str,
) -> None:
    axes = _panel(figure, place, "output: probability of each word")
    words = [word for word, _ in likeliest]
    chances = [chance for _, chance in likeliest]
    axes.barh(words, chances, color=[WARM if word == chosen else "#d5d5dc" for word in words])
    axes.invert_yaxis()
    axes.set_yticks(range(len(words)), words, fontsize=11)
    for row, chance in enumerate(chances):
        axes.text(
            chance + 0.01, row, format_probability(chance), va="center", fontsize=10, color=INK
        )
    axes.set_xlim(0, 1)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
