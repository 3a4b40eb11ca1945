"""The two parts of the page that are written in HTML: where a photo is given (the folder `intake`),
and where its captions are shown (the folder `viewer`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib
import numpy as np

from captioner.drawing.overlay import ATTENDED, UNATTENDED
from captioner.web import scripts
from captioner.web.examples import example_thumbnails
from captioner.web.many_photos import MAX_PHOTOS
from captioner.web.sent_files import MAX_MEGABYTES

_HERE = Path(__file__).parent
# The perceptually uniform colour maps of matplotlib: equal steps look equally large.
COLOUR_MAPS = ("inferno", "magma", "plasma", "viridis", "cividis")


def add_intake() -> gr.HTML:
    """Adds the part where a photo is given to the `gr.Blocks` that is being built: from a file, the
    clipboard, the camera, the examples, or the history."""
    return _add_part(
        "intake",
        "Photo",
        scripts.INTAKE,
        examples=example_thumbnails(),
        max_megabytes=MAX_MEGABYTES,
        max_photos=MAX_PHOTOS,
    )


def add_viewer(models: Sequence[str], consent: str | None) -> gr.HTML:
    """Adds the part where captions are shown to the `gr.Blocks` that is being built.
    `viewer/state.js` describes its value.

    Args:
        models: The names of the models.
        consent: What visitors agree to if they leave a caption of their own; None if they cannot.
    """
    return _add_part(
        "viewer",
        "Captions",
        scripts.VIEWER,
        attended=ATTENDED,
        unattended=UNATTENDED,
        colour_maps={name: _colours(name) for name in COLOUR_MAPS},
        max_megabytes=MAX_MEGABYTES,
        models=list(models),
        consent=consent,
    )


def _add_part(name: str, label: str, files: tuple[str, ...], **properties: Any) -> gr.HTML:
    """Adds the part in the folder `name`. Its scripts read `properties` as `props`."""
    return gr.HTML(
        None,
        label=label,
        html_template=_read(f"{name}/{name}.html"),
        css_template=_read(f"{name}/{name}.css"),
        js_on_load=scripts.script(files),
        apply_default_css=False,
        elem_id=name,
        **properties,
    )


def _colours(name: str) -> str:
    """The 256 colours of a map as one text of hexadecimal digits, six for each."""
    colours = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]  # (256, 3)
    return colours.tobytes().hex()


def _read(name: str) -> str:
    return (_HERE / name).read_text("utf-8")
