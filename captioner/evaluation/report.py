"""A page to look at and learn from: captions beside their photos, references and attention.

One HTML file that needs nothing else. It holds the photos of a data set: keep it as private as they
are.
"""

from __future__ import annotations

import base64
import io
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
    """Writes the `shown` best, middle and worst captions by `cider` (photos,), times 100.

    Raises `ImageError` for a photo that cannot be read, `OSError` if the file cannot be written.
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
    """The positions of the best, the middle and the worst: a third of all each, if there are few.

    The best come first in the first two groups, the worst first in the last.
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
                "picture": _embedded(draw_attention(small, attention)),
            }
            for word, log_prob, attention in zip(
                caption.words, caption.log_probs, caption.attention, strict=True
            )
        ]
        yield {
            "name": record.path.name,
            "photo": _embedded(_fit(photo, PHOTO)),
            "caption": caption.text,
            "cider": f"{cider[i]:.1f}",
            "references": record.captions,
            "words": words,
        }


def _fit(photo: Image.Image, longest: int) -> Image.Image:
    small = photo.copy()
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return small


def _embedded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _table(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The scores as lines of a table; those of a group are named after it."""
    lines = []
    for name, value in scores.items():
        if isinstance(value, Mapping):
            lines += [(f"{name}: {key}", text) for key, text in _table(value)]
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            lines.append((name, " to ".join(map(str, parts))))
    return lines
