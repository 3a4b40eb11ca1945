"""The example photos that the page offers."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import gradio as gr
import matplotlib

from captioner.data.images import load_image

_THUMBNAIL = 160  # pixels, the longer side


def example_photos() -> list[Path]:
    """A photo of ours, and those that ship inside gradio and matplotlib, if they are installed."""
    gradio = Path(gr.__file__).parent
    candidates = [
        Path(__file__).parents[2] / "assets" / "examples" / "photographer.png",
        Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"),
        gradio / "media_assets" / "images" / "lion.jpg",
        gradio / "test_data" / "cheetah2.jpg",
    ]
    return [path for path in candidates if path.is_file()]


def example_thumbnails() -> list[str]:
    """A small picture of each example, as a data URL, so that the page needs no further request."""
    urls = []
    for path in example_photos():
        photo = load_image(path)
        photo.thumbnail((_THUMBNAIL, _THUMBNAIL))
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=80)
        urls.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
    return urls
