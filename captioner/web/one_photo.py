"""The part of the page for one photo: its components, and which event runs what."""

from __future__ import annotations

from typing import Any

import gradio as gr

from captioner.captioner import Captioner
from captioner.web.controls import (
    COPY_LINK,
    LINK_COPIED,
    add_options,
    add_photo,
    from_link,
)
from captioner.web.examples import example_photos
from captioner.web.page_events import PageEvents, write_file
from captioner.web.viewer import add_viewer

# Screen readers find no name on Gradio's example buttons, which hold nothing but a picture.
_NAME_EXAMPLES = """() => document.querySelectorAll("#examples button").forEach((button, i) => {
    button.ariaLabel = `Example photo ${i + 1}`;
})"""
_FAILED = """() => document.querySelector("#viewer .result").dispatchEvent(new Event("failed"))"""


def add_one_photo(page: gr.Blocks, captioner: Captioner, **work: Any) -> None:
    """Adds the part to the page that is being built; `work` is Gradio's options for events that
    run the network."""
    shown_photo = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320):
            photo = add_photo()
            options, link = add_options()
            button = gr.Button("Caption it again", variant="primary")
            gr.Examples([[str(p)] for p in example_photos()], photo, elem_id="examples")
        with gr.Column(scale=2, min_width=320):
            viewer = add_viewer()

    work |= {"outputs": [viewer, shown_photo], "api_visibility": "private"}
    events = PageEvents(captioner)
    for trigger, run in ((photo.change, events.show), (button.click, events.show_again)):
        # On failure, the captions of an earlier photo must not stand beside this one.
        trigger(run, [photo, *options], show_progress_on=[viewer], **work).failure(
            lambda: (None, None), outputs=[viewer, shown_photo], api_visibility="private"
        )
    # The viewer itself waits for one answer before it asks for the next.
    work |= {"show_progress": "hidden", "trigger_mode": "multiple"}
    for trigger, run, inputs in (
        (viewer.steer, events.steer, [shown_photo, *options]),
        (viewer.complete, events.complete, [shown_photo]),
    ):
        trigger(run, inputs, **work).failure(fn=None, js=_FAILED)
    _add_downloads(viewer, shown_photo)
    link.click(fn=None, inputs=options, js=COPY_LINK).then(
        lambda: gr.Info(LINK_COPIED), api_visibility="private"
    )
    page.load(fn=None, js=_NAME_EXAMPLES)
    page.load(from_link, outputs=[photo, *options], api_visibility="private")


def _add_downloads(viewer: gr.HTML, shown_photo: gr.State) -> None:
    """Files that the server draws come to the browser through a button that nobody sees."""
    taken = gr.DownloadButton(visible="hidden", elem_id="taken")
    viewer.take(
        write_file, [shown_photo], [taken], api_visibility="private", show_progress="hidden"
    ).success(fn=None, js="() => document.querySelector('#taken').click()")
