"""Writes an HTML page that shows captions with their photos, references and attention.

The page is one file that needs nothing else. It contains photos of a data set, so keep it as
private as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from captioner.captioner import Caption
from captioner.data.datasets import Record
from captioner.data.images import load_image
from captioner.drawing.embed import jpeg_url
from captioner.drawing.overlay import draw_attention, format_probability
from captioner.files import write_bytes

SHOWN = 20  # captions in each of the three groups
PHOTO, TILE = 360, 120  # pixels of the longer side


def write_report(
    path: Path,
    records: Sequence[Record],
    captions: Sequence[Caption],
    cider: np.ndarray,
    scores: Mapping[str, Any],
    shown: int = SHOWN,
) -> None:
    """Writes a page with the best, the middle and the worst captions.

    Args:
        path: The HTML file to write.
        records: The photos.
        captions: A caption of each photo.
        cider: (photos,), the score of each caption times 100.
        scores: The scores of all captions, which are shown in a table.
        shown: How many captions each of the three groups has.

    Raises:
        ImageError: A photo cannot be read.
        OSError: The file cannot be written.
    """
    groups = [
        {"title": title, "cards": list(_cards(chosen, records, captions, cider))}
        for title, chosen in ranked(cider, shown).items()
    ]
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(groups=groups, scores=_table(scores))
    write_bytes(path, page.encode())


def ranked(cider: np.ndarray, shown: int) -> dict[str, list[int]]:
    """The positions of the best, the middle and the worst captions.

    Each group has `shown` captions, or a third of all if there are fewer. In the first two groups
    the best captions come first, in the last group the worst.
    """
    order = np.argsort(-cider, kind="stable").tolist()
    size = min(shown, max(1, len(order) // 3))
    middle = (len(order) - size) // 2
    return {
        "Best": order[:size],
        "Median": order[middle : middle + size],
        "Worst": order[::-1][:size],
    }


def _cards(
    chosen: Sequence[int],
    records: Sequence[Record],
    captions: Sequence[Caption],
    cider: np.ndarray,
) -> Iterator[dict[str, Any]]:
    for i in chosen:
        record, caption = records[i], captions[i]
        photo = load_image(record.path)
        small = _fit(photo, TILE)
        words = [
            {
                "word": word,
                "probability": format_probability(math.exp(log_prob)),
                "picture": jpeg_url(draw_attention(small, attention)),
            }
            for word, log_prob, attention in zip(
                caption.words, caption.log_probs, caption.attention, strict=True
            )
        ]
        yield {
            "name": record.path.name,
            "photo": jpeg_url(_fit(photo, PHOTO)),
            "caption": caption.text,
            "cider": f"{cider[i]:.1f}",
            "references": record.captions,
            "words": words,
        }


def _fit(photo: Image.Image, longest: int) -> Image.Image:
    small = photo.copy()
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return small


def _table(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The scores as lines of a table. The name of a nested score begins with that of its group."""
    lines = []
    for name, value in scores.items():
        if isinstance(value, Mapping):
            lines += [(f"{name}: {key}", text) for key, text in _table(value)]
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            lines.append((name, " to ".join(map(str, parts))))
    return lines
