"""The Gradio page and the endpoint `/caption`: components and events, nothing about models."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from gradio_client.utils import is_http_url_like
from PIL import Image

from captioner.captioner import Caption, Captioner
from captioner.images import ImageError, load_image
from captioner.overlay import ATTENDED, UNATTENDED, write_attention_grid

logger = logging.getLogger(__name__)

MAX_CAPTIONS = 10
STRATEGIES = ("sample", "greedy", "beam")

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
_NO_PHOTO = "There is no photo yet. Drop one on the page, paste it, or take it with the camera."
_ADDRESS = "This server does not fetch addresses. Send the picture itself, as a file."
_FAILED = "Something went wrong with this photo on the server, and its log has the details."


def build_page(captioner: Captioner) -> gr.Blocks:
    """The whole page around a captioner, ready to be launched with `launch_options()`.

    The endpoint `/caption` takes image, num_captions, strategy, temperature and seed, and gives
    `{"captions": [{"text", "words", "log_probs", "attention"}]}`, best first, followed by the
    attention grid of the best one as a PNG.
    """

    def caption(image: Any, num_captions: Any, strategy: Any, temperature: Any, seed: Any) -> Any:
        """Captions of a photo, best first: the words, the natural logarithm of each one's
        probability, and an attention map for each over the photo. Then the best caption's maps
        drawn over the photo, as a PNG."""
        photo, captions = _caption(captioner, image, num_captions, strategy, temperature, seed)
        return {"captions": [_to_json(c) for c in captions]}, _draw(photo, captions[0], tile=160)

    def show(image: Any, *options: Any) -> tuple[dict | None, tuple | None]:
        if image is None:
            return None, None
        photo, captions = _caption(captioner, image, *options)
        preview = _preview(photo)
        url = "data:image/jpeg;base64," + base64.b64encode(preview).decode()
        return {"photo": url, "captions": [_to_json(c) for c in captions]}, (preview, captions)

    def show_again(image: Any, *options: Any) -> tuple[dict | None, tuple | None]:
        if image is None:
            raise gr.Error(_NO_PHOTO, title="No photo", print_exception=False)
        return show(image, *options)

    with gr.Blocks(
        title="Image captions with visual attention",
        analytics_enabled=False,
        delete_cache=(600, 3600),  # seconds: look every ten minutes, delete after an hour
    ) as page:
        gr.Markdown(_INTRODUCTION)
        shown = gr.State(None)  # (photo as JPEG, captions), for the picture to take away
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                options = _controls()
                button = gr.Button("Caption it again", variant="primary")
                gr.Examples([[str(p)] for p in example_photos()], options[0], elem_id="examples")
            with gr.Column(scale=3, min_width=320):
                viewer = _viewer()
        picture = gr.DownloadButton(visible="hidden", elem_id="picture")
        answer = gr.JSON(label="Captions", visible=False)
        grid = gr.Image(
            label="Attention grid", alt_text="Attention grid", format="png", visible=False
        )
        endpoint = gr.Button(visible=False)

        # preprocess=False: Gradio would otherwise open the picture itself, before `load_image`
        # can. Its messages hold paths, and it re-encodes some pictures and has no pixel limit.
        # The check that the file was uploaded here, and is not any other, comes before that.
        work = {"preprocess": False, "concurrency_id": "captioner", "concurrency_limit": 1}
        endpoint.click(caption, options, [answer, grid], api_name="caption", **work)
        work |= {"outputs": [viewer, shown], "api_visibility": "private"}
        for trigger, run in ((options[0].change, show), (button.click, show_again)):
            # On failure, the captions of an earlier photo must not stand beside this one.
            trigger(run, options, show_progress_on=[viewer], **work).failure(
                lambda: (None, None), outputs=[viewer, shown], api_visibility="private"
            )
        viewer.download(
            _write_picture, [shown], [picture], api_visibility="private", show_progress="hidden"
        ).success(fn=None, js="() => document.querySelector('#picture').click()")
        page.load(fn=None, js=_NAME_EXAMPLES)
    return page.queue(max_size=64)


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
        "state_session_capacity": 500,  # each holds a photo of about 100 kB
        "enable_monitoring": False,
    }


def example_photos() -> list[Path]:
    """Photos that ship inside gradio and matplotlib, those of them that are installed."""
    gradio = Path(gr.__file__).parent / "media_assets" / "images"
    candidates = [
        Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"),
        gradio / "lion.jpg",
        gradio / "tower.jpg",
        gradio / "cheetah1.jpg",
    ]
    return [path for path in candidates if path.is_file()]


def _controls() -> list[gr.components.Component]:
    """The endpoint's inputs, in its order."""
    photo = gr.Image(
        label="Photo",
        alt_text="Your photo",
        type="filepath",
        sources=["upload", "clipboard", "webcam"],
        height=320,
    )
    _refuse_addresses(photo)
    with gr.Accordion("How many captions, and how", open=False):
        count = gr.Slider(1, MAX_CAPTIONS, 3, step=1, label="Number of captions")
        strategy = gr.Radio(
            STRATEGIES,
            value="sample",
            label="Strategy",
            info="Samples differ; greedy takes the best next word; beam looks further ahead.",
        )
        temperature = gr.Slider(
            0.1, 2.0, 0.5, step=0.1, label="Temperature", info="For samples: higher is wilder."
        )
        seed = gr.Number(
            0, label="Seed", precision=0, minimum=0, info="The same seed, the same samples."
        )
    return [photo, count, strategy, temperature, seed]


def _refuse_addresses(photo: gr.Image) -> None:
    """Gradio would fetch a picture whose address is sent in place of a file, so that strangers
    could make this server call others; no option turns that off."""
    keep = photo.async_move_resource_to_block_cache

    async def keep_upload(path: str | Path | None) -> str | None:
        if is_http_url_like(str(path)):
            raise gr.Error(_ADDRESS, title="This picture", print_exception=False)
        return await keep(path)

    photo.async_move_resource_to_block_cache = keep_upload


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


def _caption(
    captioner: Captioner, image: Any, num_captions: Any, strategy: Any, temperature: Any, seed: Any
) -> tuple[Image.Image, list[Caption]]:
    """The upright photo and its captions. Raises gr.Error, with a message for the visitor."""
    if strategy not in STRATEGIES:
        raise _bad_option("strategy", "one of " + ", ".join(STRATEGIES))
    options = {
        "num_captions": _number("num_captions", num_captions, 1, MAX_CAPTIONS, whole=True),
        "strategy": strategy,
        "temperature": _number("temperature", temperature, 0.1, 2.0),
        "seed": _number("seed", seed, 0, 2**32 - 1, whole=True),
    }
    try:
        photo = load_image(_source(image))
        # As pixels: a picture may still carry the EXIF orientation that was applied to it.
        return photo, captioner.caption(np.asarray(photo), **options)
    except ImageError as error:
        logger.warning("refused a picture: %s", error)
        raise gr.Error(str(error), title="This picture", print_exception=False) from None
    except Exception:
        logger.exception("captioning failed")
        raise gr.Error(_FAILED, print_exception=False) from None


def _source(image: Any) -> Path | bytes:
    """What Gradio hands over unprocessed: the file it keeps, or a data URL."""
    image = image if isinstance(image, dict) else {}
    if image.get("path"):
        return Path(image["path"])
    kind, _, data = (image.get("url") or "").partition(";base64,")
    if not kind.startswith("data:"):
        raise ImageError(_NO_PHOTO)
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise ImageError("The picture's data URL is not valid base64.") from None


def _number(name: str, value: Any, low: float, high: float, whole: bool = False) -> int | float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else low - 1
    if not low <= number <= high or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise _bad_option(name, f"{kind} from {low} to {high}")
    return int(number) if whole else float(number)


def _bad_option(name: str, expected: str) -> gr.Error:
    return gr.Error(f"{name} must be {expected}.", title="This option", print_exception=False)


def _to_json(caption: Caption) -> dict[str, Any]:
    return {
        "text": caption.text,
        "words": list(caption.words),
        "log_probs": [round(p, 6) for p in caption.log_probs],
        "attention": caption.attention.astype(float).round(6).tolist(),
    }


def _preview(photo: Image.Image) -> bytes:
    """The photo as it was understood, as a JPEG small enough to travel with the captions."""
    small = photo.copy()
    small.thumbnail((1024, 1024))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def _write_picture(shown: tuple[bytes, list[Caption]] | None, event: gr.EventData) -> str:
    """The attention grid of one of the captions that are on the page, in print quality."""
    if shown is None:
        raise gr.Error(_NO_PHOTO, title="No photo", print_exception=False)
    preview, captions = shown
    index = _number("index", event._data.get("index"), 0, len(captions) - 1, whole=True)
    return _draw(load_image(preview), captions[int(index)], tile=600)


def _draw(photo: Image.Image, caption: Caption, tile: int) -> str:
    """The attention grid as a file in Gradio's cache, which empties itself.

    Gradio would write a picture too, but its compression takes four times as long.
    """
    file = io.BytesIO()
    write_attention_grid(file, photo, caption, tile)
    return save_bytes_to_cache(file.getvalue(), "attention.png", get_upload_folder())
