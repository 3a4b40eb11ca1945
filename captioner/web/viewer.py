"""The two parts of the page that are written in HTML: where a photo is given (the folder `intake`),
and where its captions are shown (the folder `viewer`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import matplotlib
import numpy as np

from captioner.drawing.overlay import ATTENDED, UNATTENDED
from captioner.web import scripts
from captioner.web.examples import example_thumbnails

_HERE = Path(__file__).parent
# Those of matplotlib's colour maps that are even to the eye: equal steps look equally large.
COLOUR_MAPS = ("inferno", "magma", "plasma", "viridis", "cividis")
MAX_MEGABYTES = 20  # of a file that is sent


def add_intake() -> gr.HTML:
    """Where a photo is given: from a file, the clipboard, the camera, the examples, or the history.
    Added to the `gr.Blocks` being built."""
    return gr.HTML(
        None,
        label="Photo",
        html_template=_read("intake/intake.html"),
        css_template=_read("intake/intake.css"),
        js_on_load=scripts.script(scripts.INTAKE),
        apply_default_css=False,
        elem_id="intake",
        examples=example_thumbnails(),
    )


def add_viewer(models: Sequence[str], consent: str | None) -> gr.HTML:
    """Where captions are shown; `viewer/state.js` describes its value. Added to the `gr.Blocks`
    being built. `models` are their names; with `consent`, visitors may leave captions of their own
    once they have agreed to it."""
    return gr.HTML(
        None,
        label="Captions",
        html_template=_read("viewer/viewer.html"),
        css_template=_read("viewer/viewer.css"),
        js_on_load=scripts.script(scripts.VIEWER),
        apply_default_css=False,
        elem_id="viewer",
        attended=ATTENDED,
        unattended=UNATTENDED,
        colour_maps={name: _colours(name) for name in COLOUR_MAPS},
        max_megabytes=MAX_MEGABYTES,
        models=list(models),
        consent=consent,
    )


def _colours(name: str) -> str:
    """The 256 colours of a map as one text of hexadecimal digits, six for each."""
    colours = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]  # (256, 3)
    return colours.tobytes().hex()


def _read(name: str) -> str:
    return (_HERE / name).read_text("utf-8")
