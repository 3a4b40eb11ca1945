"""The example photos that the page offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib

from captioner.data.images import load_image
from captioner.drawing.embed import jpeg_url

_THUMBNAIL = 160  # pixels, the longer side


@dataclass(frozen=True)
class Example:
    """A photo that the page offers. With `goes_wrong`, it shows what the model gets wrong."""

    path: Path
    goes_wrong: bool = False


def examples() -> list[Example]:
    """The example photos: those in `assets/examples`, whose README names their authors, and some
    that come with Gradio and Matplotlib, if these are installed."""
    ours = Path(__file__).parents[2] / "assets" / "examples"
    candidates = [
        Example(ours / "motorcycle.jpg"),
        Example(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")),
        Example(ours / "cat.jpg"),
        Example(Path(gr.__file__).parent / "media_assets" / "images" / "tower.jpg"),
        Example(ours / "pavilion.jpg"),
        Example(ours / "flower.jpg", goes_wrong=True),
        Example(ours / "coffee.jpg"),
        Example(ours / "photographer.png", goes_wrong=True),
        Example(ours / "rocket.jpg", goes_wrong=True),
    ]
    return [example for example in candidates if example.path.is_file()]


def example_photos() -> list[Path]:
    """The files of the example photos."""
    return [example.path for example in examples()]


def example_thumbnails() -> list[dict[str, Any]]:
    """The example photos as small pictures for the page.

    Returns:
        For each photo, `src`, a data URL, so that the page needs no further request for it, and
        `goesWrong`, whether the model gets it wrong.
    """
    thumbnails = []
    for example in examples():
        photo = load_image(example.path)
        photo.thumbnail((_THUMBNAIL, _THUMBNAIL))
        thumbnails.append({"src": jpeg_url(photo), "goesWrong": example.goes_wrong})
    return thumbnails
