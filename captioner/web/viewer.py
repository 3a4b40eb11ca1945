"""The viewer of one photo's captions: a `gr.HTML` whose parts lie in the folder `viewer`."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from captioner.drawing.overlay import ATTENDED, UNATTENDED

_FOLDER = Path(__file__).with_suffix("")
# Gradio takes one script. The parts share its scope, and the last ones run what the others define.
_SCRIPTS = (
    "state",
    "attention",
    "words",
    "film",
    "requests",
    "captions",
    "region",
    "show",
    "actions",
)


def add_viewer() -> gr.HTML:
    """The viewer, added to the `gr.Blocks` being built; `viewer/state.js` describes its value."""
    return gr.HTML(
        None,
        label="Captions",
        html_template=_read("viewer.html"),
        css_template=_read("viewer.css"),
        js_on_load="\n".join(_read(f"{name}.js") for name in _SCRIPTS),
        apply_default_css=False,
        elem_id="viewer",
        attended=ATTENDED,
        unattended=UNATTENDED,
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")
