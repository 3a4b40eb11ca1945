"""The part of the page for one photo: its components, and which event runs which function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from captioner.web.about import model_name
from captioner.web.controls import COPY_LINK, READ_LINK, add_options
from captioner.web.feedback import CONSENT, Feedback
from captioner.web.page_events import PageEvents
from captioner.web.shown_models import ShownModel
from captioner.web.viewer import add_intake, add_viewer

# The parts of the page send each other these events of the document, each with a `detail`:
# captioner:photo {file} or {number}, captioner:restore (an entry of the history), captioner:shown
# (such an entry), captioner:options (the values of the controls), captioner:refused and
# captioner:say (a message), captioner:link, captioner:choose, captioner:taken, captioner:failed,
# captioner:feedback (the reason why a caption was not kept, or an empty text).
_TELL = """(...values) => {
    document.dispatchEvent(new CustomEvent("captioner:%s", { detail: %s }));
}"""
_OPTIONS_CHANGED = _TELL % ("options", "values")
_LINK_READ = _TELL % ("link", "null")
_FAILED = _TELL % ("failed", "null")
_TAKEN = _TELL % ("taken", "null")
_FEEDBACK_KEPT = _TELL % ("feedback", "values[0]")
_FEEDBACK_LOST = _TELL % ("feedback", "'The server does not answer. Send it again.'")
# The viewer has uploaded the file, which `sent_files` checks before it is opened.
_GIVEN = """(image, ...others) => [
    document.querySelector("#viewer .result").given ?? null, ...others
]"""
_NEW_SEED = "() => Math.floor(Math.random() * 1e5)"
# Gradio's options for what the viewer's script asks for. The script sends one request of each kind
# at a time, so Gradio need not hold any back.
_OF_THE_VIEWER: dict[str, Any] = {
    "show_progress": "hidden",
    "trigger_mode": "multiple",
    "api_visibility": "private",
}


def add_one_photo(
    page: gr.Blocks, models: Sequence[ShownModel], feedback: Feedback | None, **work: Any
) -> None:
    """Adds the part to the `gr.Blocks` that is being built.

    Args:
        page: The page.
        models: One model, or two to compare.
        feedback: Where visitors' captions are kept; None if they are not.
        work: Gradio's options for events that run the network.
    """
    names = [model.name or model_name(model.captioner) for model in models]
    kept = gr.State(None)
    with gr.Row(equal_height=False, elem_id="one-photo"):
        with gr.Column(scale=2, min_width=440):
            viewer = add_viewer(names, CONSENT if feedback else None)
        with gr.Column(scale=1, min_width=300):
            add_intake()
            options, link = add_options()
    image = gr.Image(type="filepath", visible="hidden", elem_id="given")

    events = PageEvents(models, feedback)
    work |= _OF_THE_VIEWER
    viewer.ask(events.answer, [image, kept, *options], [viewer, kept], js=_GIVEN, **work).failure(
        fn=None, js=_FAILED
    )
    _add_downloads(viewer, kept, events)
    if feedback:
        _add_feedback(viewer, kept, events)
    _follow_options(page, viewer, options, link)


def _add_downloads(viewer: gr.HTML, kept: gr.State, events: PageEvents) -> None:
    """Adds downloads. The browser gets the server's files through an invisible button."""
    taken = gr.DownloadButton(visible="hidden", elem_id="taken")
    made = viewer.take(events.write_file, [kept], [taken], **_OF_THE_VIEWER)
    made.success(fn=None, js="() => document.querySelector('#taken').click()")
    made.then(fn=None, js=_TAKEN)


def _add_feedback(viewer: gr.HTML, kept: gr.State, events: PageEvents) -> None:
    """Adds feedback. The viewer's script gets the answer through an invisible text box."""
    reason = gr.Textbox(visible="hidden", elem_id="feedback-reason")
    sent = viewer.correct(events.keep_caption, [kept], [reason], **_OF_THE_VIEWER)
    sent.success(fn=None, inputs=[reason], js=_FEEDBACK_KEPT)
    sent.failure(fn=None, js=_FEEDBACK_LOST)


def _follow_options(
    page: gr.Blocks, viewer: gr.HTML, options: list[gr.components.Component], link: gr.Button
) -> None:
    """Tells the viewer about changed options, and has links set the options and an example."""
    for option in options:
        option.change(  # ty: ignore[missing-attribute] - every input has it
            fn=None, inputs=options, js=_OPTIONS_CHANGED
        )
    viewer.reseed(fn=None, outputs=[options[-1]], js=_NEW_SEED)
    link.click(fn=None, inputs=options, js=COPY_LINK)
    page.load(fn=None, inputs=options, outputs=options, js=READ_LINK).then(fn=None, js=_LINK_READ)
