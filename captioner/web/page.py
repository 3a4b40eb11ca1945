"""The Gradio page as a whole: its frame, its looks and its limits.

`one_photo` and `many_photos` add its two tabs, and `endpoints` adds the endpoints for programs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import gradio as gr
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from captioner.web import responses
from captioner.web.about import add_about
from captioner.web.api_snippets import RunnableSnippets
from captioner.web.endpoints import add_endpoints
from captioner.web.feedback import Feedback
from captioner.web.many_photos import add_many_photos
from captioner.web.one_photo import add_one_photo
from captioner.web.request_limit import LimitedRequests
from captioner.web.sent_files import MAX_MEGABYTES
from captioner.web.shown_models import ShownModel
from captioner.web.uploads import UncheckedBlocks, remove_broken_uploads

logger = logging.getLogger(__name__)

# 16 requests are two full batches (`batching.BATCH_SIZES`): while one is in the network, the next
# one gathers. Further requests wait in a queue. When the queue is full, the page says that it is
# busy.
_AT_ONCE = 16
_MAX_WAITING = 64

_INTRODUCTION = """
# Captions that show where they looked

A neural network describes your photo, one word after another. Choose a word to see where it
looked.
"""
# This goes into the head of the page, because Gradio applies its option `css` only inside its own
# container.
_STYLE = """<style>
.gradio-container { max-width: 1240px !important; width: 100% !important;
  margin: 0 auto !important; }
#viewer .html-container, #intake .html-container, #about .html-container { padding: 0 !important; }
.gradio-container [role="tab"] { color: var(--body-text-color) !important; }
.tabitem { padding: 12px 0 0 !important; border: 0 !important; }
/* Gradio's box is higher while it takes no files. */
#many-files, #many-files .empty { height: 152px; min-height: 0; }
#many-table .html-container { padding: 0 !important; }
#many-table table { width: 100%; border-collapse: collapse; }
#many-table :is(table, thead, tbody, tr, th, td) { border: 0; }
#many-table :is(th, td) { padding: 8px 10px; text-align: start; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--border-color-primary); }
#many-table :is(th, td):last-child:not([colspan]) { width: 1%; text-align: end;
  white-space: nowrap; }
#many-table tbody th { width: 30%; font-weight: 500; }
#many-table .problem { color: var(--body-text-color-subdued); font-style: italic; }
#many-table progress { width: 100%; height: 8px; margin-bottom: 8px; appearance: none; }
#many-table progress::-webkit-progress-bar { background: var(--border-color-primary); }
#many-table progress::-webkit-progress-value { background: var(--color-accent); }
#many-table progress::-moz-progress-bar { background: var(--color-accent); }
#model-card button { text-align: start; }
#about { font-size: 13px; }
#about p { margin: 0; color: var(--body-text-color-subdued); }
#about a { padding: 2px 0; color: inherit; text-decoration: underline; }
/* Gradio's buttons are too small for a finger (WCAG 2.2, 2.5.8). */
.gradio-container :is(button, input[type="number"]) { min-width: 24px; min-height: 24px; }
@media (forced-colors: active) { /* the row of tabs would cut off an outline around a tab */
  [role="tab"][aria-selected="true"] { outline: 2px solid; outline-offset: -2px; }
}
@media (min-width: 641px) { html { scrollbar-gutter: stable; } }
@media (max-width: 640px) {
  .gradio-container > .main { padding: 12px !important; }
  #introduction h1 { margin: 0 0 4px; font-size: 22px; line-height: 1.25; }
}
</style>
"""


def build_page(models: Sequence[ShownModel], feedback: Feedback | None = None) -> gr.Blocks:
    """Builds the page with its endpoints, ready to be launched with `launch_options()`.

    Args:
        models: One model, or two to compare. The endpoints and the tab for many photos use the
            first one.
        feedback: Where better captions by visitors are kept; None if they are not.
    """
    # Without preprocess=False, Gradio would open the picture itself, before `load_image`. Its
    # messages hold paths, it re-encodes some pictures, and it has no limit for pixels. `sent_files`
    # checks that the file was sent to this server.
    captioner = models[0].captioner
    remove_broken_uploads()
    work = {"preprocess": False, "concurrency_id": "captioner", "concurrency_limit": _AT_ONCE}
    with UncheckedBlocks(
        title="Image captions with visual attention",
        analytics_enabled=False,
        delete_cache=(600, 3600),  # seconds: look every ten minutes, delete after an hour
    ) as page:
        gr.Markdown(_INTRODUCTION, elem_id="introduction")
        with gr.Tabs():
            with gr.Tab("One photo"):
                add_one_photo(page, models, feedback, **work)
            with gr.Tab("Many photos"):
                add_many_photos(captioner)
        add_about(models)
        add_endpoints(captioner, **work)
    return page.queue(max_size=_MAX_WAITING)


def launch_options() -> dict[str, Any]:
    """The arguments of `gr.Blocks.launch` for this page: its looks, and limits for visitors.

    Gradio 6 takes the looks here, not where the page is built.
    """
    fonts = ["system-ui", "sans-serif"]  # Gradio's own default is fetched from Google
    theme = gr.themes.Default(primary_hue="amber", font=fonts, font_mono=["monospace"])
    # Gradio's own colours have a contrast of 2:1 here; text needs 4.5:1 to be readable (WCAG).
    theme.set(
        button_primary_text_color="*neutral_950",
        button_primary_text_color_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
    )
    return {
        "theme": theme,
        "head": _STYLE,
        "max_file_size": f"{MAX_MEGABYTES}mb",
        "footer_links": ["api", "gradio"],
        "run_history": False,
        "ssr_mode": False,
        "state_session_capacity": 500,  # each holds a photo and its features, about 400 kB
        "enable_monitoring": False,
        "app_kwargs": {
            "exception_handlers": {403: _forbidden, OSError: _no_room, ClientDisconnect: _gone},
            "middleware": [Middleware(LimitedRequests), Middleware(RunnableSnippets)],
        },
    }


async def _forbidden(request: HttpRequest, error: Exception) -> JSONResponse:
    """Refuses a file of the server. Gradio's own answer would name the folder of the server."""
    return JSONResponse({"detail": "This file is not open to visitors."}, status_code=403)


async def _gone(request: HttpRequest, error: Exception) -> Response:
    """Answers a visitor who has broken an upload off. Nobody reads the answer."""
    return Response(status_code=400)


async def _no_room(request: HttpRequest, error: OSError) -> PlainTextResponse:
    """Reports an error of the disk, on which uploads are stored and which may be full."""
    logger.error("%s: %s", request.url.path, error)
    if error.errno not in responses.NO_ROOM:
        return PlainTextResponse("Something went wrong on the server.", status_code=500)
    return PlainTextResponse(responses.NO_ROOM_LEFT, status_code=507)
