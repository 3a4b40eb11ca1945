"""The example photos that the page offers."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib

from captioner.data.images import load_image

_THUMBNAIL = 160  # pixels, the longer side


@dataclass(frozen=True)
class Example:
    """A photo that the page offers; with `goes_wrong`, to show what the model cannot do."""

    path: Path
    goes_wrong: bool = False


def examples() -> list[Example]:
    """Photos of ours (`assets/examples/README.md` says whose), and some that ship inside Gradio and
    Matplotlib, as far as they are installed."""
    ours = Path(__file__).parents[2] / "assets" / "examples"
    candidates = [
        Example(ours / "motorcycle.jpg"),
        Example(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")),
        Example(ours / "cat.jpg"),
        Example(Path(gr.__file__).parent / "media_assets" / "images" / "tower.jpg"),
        Example(ours / "pavilion.jpg"),
        Example(ours / "flower.jpg"),
        Example(ours / "coffee.jpg"),
        Example(ours / "photographer.png", goes_wrong=True),
        Example(ours / "rocket.jpg", goes_wrong=True),
    ]
    return [example for example in candidates if example.path.is_file()]


def example_photos() -> list[Path]:
    """The files of `examples`."""
    return [example.path for example in examples()]


def example_thumbnails() -> list[dict[str, Any]]:
    """For each example a small picture as a data URL, so that the page needs no further request,
    and whether the model gets it wrong."""
    thumbnails = []
    for example in examples():
        photo = load_image(example.path)
        photo.thumbnail((_THUMBNAIL, _THUMBNAIL))
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=80)
        url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        thumbnails.append({"src": url, "goesWrong": example.goes_wrong})
    return thumbnails
