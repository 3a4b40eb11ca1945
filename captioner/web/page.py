"""The Gradio page: components and events, nothing about models."""

from __future__ import annotations

import base64
import filecmp
import io
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from gradio.processing_utils import save_bytes_to_cache, save_file_to_cache
from gradio.utils import get_upload_folder

from captioner.captioner import Caption, Captioner
from captioner.data.images import load_image
from captioner.drawing.overlay import ATTENDED, UNATTENDED, write_attention_film
from captioner.model.decoding import STRATEGIES, DecodingOptions
from captioner.web import responses
from captioner.web.endpoints import add_endpoints, refuse_addresses
from captioner.web.responses import MAX_CAPTIONS, NO_PHOTO, CaptionRequest, ShownPhoto

COMPARE = "compare"  # on the page: all strategies side by side
# Two full batches (`serving.BATCH_SIZES`): while one is in the network, the next gathers. All
# others queue, and who finds the queue full is told that the page is busy.
_AT_ONCE = 16
_MAX_WAITING = 64
_MAX_OWN = 5  # captions that the visitor has had a word in, kept on the page

_INTRODUCTION = """
# Captions that show where they looked

A neural network describes your photo, one word after another. For each word it looks somewhere
else: choose a word to see where.
"""
_CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
#viewer .html-container { padding: 0 !important; }
"""
# Screen readers find no name on Gradio's example buttons, which hold nothing but a picture.
_NAME_EXAMPLES = """() => document.querySelectorAll("#examples button").forEach((button, i) => {
    button.ariaLabel = `Example photo ${i + 1}`;
})"""
# The address bar has the link whatever the browser lets a page do with the clipboard.
_COPY_LINK = """(...values) => {
    const names = ["captions", "strategy", "temperature", "top_p", "seed"];
    const link = new URL(location.href);
    link.search = new URLSearchParams(names.map((name, i) => [name, values[i]]));
    const example = document.querySelector("#viewer .result")?.dataset.example;
    if (example) link.searchParams.set("example", example);
    history.replaceState(null, "", link);
    navigator.clipboard?.writeText(link.href).catch(() => {});
}"""
_LINK_COPIED = "The link is in the address bar, and in the clipboard if your browser allows that."
_FAILED = """() => document.querySelector("#viewer .result").dispatchEvent(new Event("failed"))"""


def build_page(captioner: Captioner) -> gr.Blocks:
    """The whole page around a captioner, ready to be launched with `launch_options()`, and the
    endpoints for programs (`endpoints`)."""

    def show(image: Any, *options: Any) -> Iterator[tuple[dict | None, ShownPhoto | None]]:
        """What is on the page, while it becomes more, and what the session keeps of it."""
        if image is None:
            yield None, None
            return
        photo, features = responses.read_photo(captioner, image)
        shown_photo = ShownPhoto(responses.preview(photo), features, example=_example_of(image))
        yield from caption_photo(shown_photo, None, *options)

    def show_again(image: Any, *options: Any) -> Iterator[tuple[dict | None, ShownPhoto | None]]:
        if image is None:
            raise responses.refusal(NO_PHOTO, "No photo")
        yield from show(image, *options)

    def caption_photo(
        shown_photo: ShownPhoto, region: responses.Box | None, *options: Any
    ) -> Iterator[tuple[dict, ShownPhoto]]:
        """Captions that look at a region, or at the whole photo, one search after another."""
        captions: dict[str, list[Caption]] = {}
        searches = search_plan(*options)
        for search in searches:
            request = CaptionRequest(search, region=region)
            captions[search.strategy] = responses.answer(captioner, shown_photo.features, request)
            shown = [(source, c) for source, found in captions.items() for c in found]
            now = replace(shown_photo, region=region, captions=shown)
            yield _on_page(now, done=search is searches[-1])

    def steer(
        shown_photo: ShownPhoto | None, event: gr.EventData, *options: Any
    ) -> Iterator[tuple[dict, ShownPhoto]]:
        region = event._data.get("region")
        if region is not None:
            sides = [*region, None, None, None, None] if isinstance(region, list) else [None] * 4
            region = responses.box(*sides[:4])
        yield from caption_photo(_kept(shown_photo), region, *options)

    def complete(shown_photo: ShownPhoto | None, event: gr.EventData) -> tuple[dict, ShownPhoto]:
        """The best caption that begins as the visitor wants, above the others."""
        shown_photo = _kept(shown_photo)
        prefix = str(event._data.get("prefix") or "")[:1000]
        search = CaptionRequest(DecodingOptions("beam", num_captions=1), prefix, shown_photo.region)
        found = responses.answer(captioner, shown_photo.features, search)[0]
        own = [("yours", found)]
        own += [c for c in shown_photo.captions if c[0] == "yours" and c[1].text != found.text]
        others = [c for c in shown_photo.captions if c[0] != "yours"]
        word = event._data.get("word")
        return _on_page(replace(shown_photo, captions=own[:_MAX_OWN] + others), word)

    with gr.Blocks(
        title="Image captions with visual attention",
        analytics_enabled=False,
        delete_cache=(600, 3600),  # seconds: look every ten minutes, delete after an hour
    ) as page:
        gr.Markdown(_INTRODUCTION)
        shown_photo = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320):
                photo, options, link = _controls()
                button = gr.Button("Caption it again", variant="primary")
                gr.Examples([[str(p)] for p in example_photos()], photo, elem_id="examples")
            with gr.Column(scale=2, min_width=320):
                viewer = _viewer()
        taken = gr.DownloadButton(visible="hidden", elem_id="taken")

        # preprocess=False: Gradio would otherwise open the picture itself, before `load_image`
        # can. Its messages hold paths, and it re-encodes some pictures and has no pixel limit.
        # The check that the file was uploaded here, and is not any other, comes before that.
        work = {"preprocess": False, "concurrency_id": "captioner", "concurrency_limit": _AT_ONCE}
        add_endpoints(captioner, **work)
        work |= {"outputs": [viewer, shown_photo], "api_visibility": "private"}
        for trigger, run in ((photo.change, show), (button.click, show_again)):
            # On failure, the captions of an earlier photo must not stand beside this one.
            trigger(run, [photo, *options], show_progress_on=[viewer], **work).failure(
                lambda: (None, None), outputs=[viewer, shown_photo], api_visibility="private"
            )
        # The viewer itself waits for one answer before it asks for the next.
        work |= {"show_progress": "hidden", "trigger_mode": "multiple"}
        for trigger, run, inputs in (
            (viewer.steer, steer, [shown_photo, *options]),
            (viewer.complete, complete, [shown_photo]),
        ):
            trigger(run, inputs, **work).failure(fn=None, js=_FAILED)
        viewer.take(
            _write_file, [shown_photo], [taken], api_visibility="private", show_progress="hidden"
        ).success(fn=None, js="() => document.querySelector('#taken').click()")
        link.click(fn=None, inputs=options, js=_COPY_LINK).then(
            lambda: gr.Info(_LINK_COPIED), api_visibility="private"
        )
        page.load(fn=None, js=_NAME_EXAMPLES)
        page.load(_from_link, outputs=[photo, *options], api_visibility="private")
    return page.queue(max_size=_MAX_WAITING)


def launch_options() -> dict[str, Any]:
    """What `gr.Blocks.launch` needs for this page: its looks, and limits for strangers.

    Gradio 6 takes looks when it launches, not where the page is built.
    """
    fonts = ["system-ui", "sans-serif"]  # Gradio's own default is fetched from Google
    theme = gr.themes.Default(primary_hue="amber", font=fonts, font_mono=["monospace"])
    # Gradio's own colours for these have contrasts of 2:1, and 4.5:1 is what it takes to read.
    theme.set(
        button_primary_text_color="*neutral_950",
        button_primary_text_color_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
    )
    return {
        "theme": theme,
        "css": _CSS,
        "max_file_size": "20mb",
        "footer_links": ["api", "gradio"],
        "run_history": False,
        "ssr_mode": False,
        "state_session_capacity": 500,  # each holds a photo and its features, about 400 kB
        "enable_monitoring": False,
        "app_kwargs": {"exception_handlers": {403: _forbidden}},
    }


async def _forbidden(request: HttpRequest, error: Exception) -> JSONResponse:
    """Gradio's own answer to who asks for a file of the server says in which folder it runs."""
    return JSONResponse({"detail": "This file is not open to visitors."}, status_code=403)


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


def _controls() -> tuple[gr.Image, list[gr.components.Component], gr.Button]:
    """The photo; how many captions, strategy, temperature, top-p and seed; the link to these."""
    photo = gr.Image(
        label="Photo",
        alt_text="Your photo",
        type="filepath",
        sources=["upload", "clipboard", "webcam"],
        height=260,
    )
    refuse_addresses(photo)
    with gr.Accordion("How many captions, and how", open=False):
        options = [
            gr.Slider(1, MAX_CAPTIONS, 3, step=1, label="Number of captions"),
            gr.Radio(
                (*STRATEGIES, COMPARE),
                value="sample",
                label="Strategy",
                info="Samples differ; greedy takes the best next word; beam looks further ahead; "
                "compare shows all three.",
            ),
            gr.Slider(
                0.1, 2.0, 0.5, step=0.1, label="Temperature", info="For samples: higher is wilder."
            ),
            gr.Slider(
                0.05,
                1.0,
                1.0,
                step=0.05,
                label="Top-p",
                info="For samples: only from the likeliest words that have this much probability.",
            ),
            gr.Number(
                0, label="Seed", precision=0, minimum=0, info="The same seed, the same samples."
            ),
        ]
        link = gr.Button("Copy a link to these options", size="sm")
    return photo, options, link


def _viewer() -> gr.HTML:
    here = Path(__file__)
    return gr.HTML(
        None,
        label="Captions",
        html_template=here.with_name("viewer.html").read_text("utf-8"),
        css_template=here.with_name("viewer.css").read_text("utf-8"),
        js_on_load=here.with_name("viewer.js").read_text("utf-8"),
        apply_default_css=False,
        elem_id="viewer",
        attended=ATTENDED,
        unattended=UNATTENDED,
    )


def search_plan(
    num_captions: Any, strategy: Any, temperature: Any, top_p: Any, seed: Any
) -> list[DecodingOptions]:
    """What the controls ask for: one search, or one of each strategy. Before several samples comes
    one, to be shown at once; the seed makes it the first of them."""
    several = ("greedy", "beam", "sample") if strategy == COMPARE else (strategy,)
    searches = [
        responses.search_options(num_captions, each, temperature, seed, top_p) for each in several
    ]
    if strategy == "sample" and searches[0].num_captions > 1:
        searches.insert(0, replace(searches[0], num_captions=1))
    return searches


def _on_page(
    shown_photo: ShownPhoto, word: Any = None, done: bool = True
) -> tuple[dict, ShownPhoto]:
    """The viewer's value, showing the word of this number, and what the session keeps; `done` if
    nothing more comes."""
    url = "data:image/jpeg;base64," + base64.b64encode(shown_photo.preview).decode()
    captions = [
        responses.to_json(caption, alternatives=True) | {"source": source}
        for source, caption in shown_photo.captions
    ]
    # As text: of a value that follows another, Gradio sends the differences alone, and what its
    # page makes of those of lists is a mixture of both.
    value = {"photo": url, "captions": json.dumps(captions), "region": shown_photo.region}
    value |= {"example": shown_photo.example}
    value |= {"done": done, "answer": uuid.uuid4().hex}  # Gradio sends the last one twice
    if isinstance(word, int):
        value["word"] = word
    return value, shown_photo


def _kept(shown_photo: ShownPhoto | None) -> ShownPhoto:
    if shown_photo is None:  # the server has been started anew, or has too many visitors
        raise responses.refusal("This photo is no longer here. Give it once more.", "No photo")
    return shown_photo


def _example_of(image: Mapping[str, Any]) -> int | None:
    """The number of the example that a photo is, from 1, if it is one."""
    path = image.get("path")
    for i, example in enumerate(example_photos(), start=1):
        if path and filecmp.cmp(path, example, shallow=False):
            return i
    return None


def _from_link(request: gr.Request) -> list[Any]:
    """The photo and the options that a link asks for; what makes no sense is left as it is."""
    query = request.query_params
    numbers: dict[str, float] = {}
    for name, low, high in (
        ("example", 1, len(example_photos())),
        ("captions", 1, MAX_CAPTIONS),
        ("temperature", 0.1, 2.0),
        ("top_p", 0.05, 1.0),
        ("seed", 0, 2**32 - 1),
    ):
        try:
            value = float(query.get(name, "nan"))
        except ValueError:
            continue
        if low <= value <= high:
            numbers[name] = value if name in ("temperature", "top_p") else math.floor(value)
    strategy = query.get("strategy")
    photo = gr.skip()
    if "example" in numbers:
        example = example_photos()[int(numbers["example"]) - 1]
        # Gradio lets out no file that lies elsewhere.
        photo = save_file_to_cache(example, get_upload_folder())
    return [
        photo,
        numbers.get("captions", gr.skip()),
        strategy if strategy in (*STRATEGIES, COMPARE) else gr.skip(),
        *(numbers.get(name, gr.skip()) for name in ("temperature", "top_p", "seed")),
    ]


def _write_file(shown_photo: ShownPhoto | None, event: gr.EventData) -> str:
    """The attention of one of the captions that are on the page, as a grid or as a film."""
    shown_photo = _kept(shown_photo)
    last = len(shown_photo.captions) - 1
    index = int(responses.number("index", event._data.get("index"), 0, last, whole=True))
    photo, caption = load_image(shown_photo.preview), shown_photo.captions[index][1]
    if event._data.get("kind") != "film":
        return responses.draw_grid(photo, caption, tile=600)
    file = io.BytesIO()
    write_attention_film(file, photo, caption)
    return save_bytes_to_cache(file.getvalue(), "attention.gif", get_upload_folder())
