"""The example photos that the page offers."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib


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


def example_number(image: Mapping[str, Any]) -> int | None:
    """The number of the example that a photo is, from 1, if it is one."""
    path = image.get("path")
    for i, example in enumerate(example_photos(), start=1):
        if path and filecmp.cmp(path, example, shallow=False):
            return i
    return None
