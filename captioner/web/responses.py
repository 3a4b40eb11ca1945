"""What visitors and programs ask for, checked, and answered or refused with a message for them.

The page and the endpoints share these functions. Every `gr.Error` raised here may be shown to a
visitor: it holds no path and no traceback; the log has them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import io
import logging
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from captioner.captioner import Caption, Captioner
from captioner.data.images import ImageError, load_image
from captioner.drawing.overlay import attention_grid_png
from captioner.model.decoding_options import BOUNDS, DEFAULTS, STRATEGIES, Bounds, DecodingOptions

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1

# What a page may send back for drawing: far more than any caption has.
_MOST_WORDS, _LONGEST_WORD, _MOST_CELLS = 40, 60, 32 * 32
NO_PHOTO = "There is no photo yet. Drop one on the page, paste it, or take it with the camera."
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM_LEFT = "The server has no room left for this photo. Try again later."
_FAILED = "Something went wrong with this photo on the server, and its log has the details."


@dataclass(frozen=True)
class CaptionRequest:
    """How the captioner shall look and search: everything but the photo."""

    options: DecodingOptions
    prefix: str = ""
    region: Box | None = None


@dataclass(frozen=True)
class KeptPhoto:
    """A photo that has been through the network once. A session keeps it for what is asked next;
    the captions that are on the page are kept by the page alone."""

    key: str  # by which the page says which photo it means
    preview: bytes  # the upright photo, as a JPEG small enough to travel
    size: tuple[int, int]  # the preview's width and height, in pixels
    features: np.ndarray  # float16 (1, locations, channels)


def keep_photo(captioner: Captioner, image: Any) -> KeptPhoto:
    """The photo that Gradio's `image` stands for, ready for any number of searches.

    Raises gr.Error, with a message for the visitor.
    """
    photo, features = read_photo(captioner, image)
    small = preview(photo)
    return KeptPhoto(uuid.uuid4().hex, small, Image.open(io.BytesIO(small)).size, features)


def read_photo(captioner: Captioner, image: Any) -> tuple[Image.Image, np.ndarray]:
    """The upright photo that Gradio's `image` stands for, and its features.

    Raises gr.Error, with a message for the visitor.
    """
    with messages_for_visitors():
        photo = load_image(source(image))
        return photo, captioner.features([photo])


def answer(captioner: Captioner, features: np.ndarray, request: CaptionRequest) -> list[Caption]:
    """Captions of one photo, best first. Raises gr.Error, with a message for the visitor."""
    forced = bias = None
    if request.prefix:
        try:
            forced = captioner.forced_words(request.prefix, request.options)
        except ValueError as error:
            raise refusal(f"{str(error)[0].upper()}{str(error)[1:]}.", "These words") from None
    if request.region is not None:
        try:
            bias = captioner.region_bias(request.region)
        except ValueError as error:
            raise refusal(str(error), "This region") from None
    with messages_for_visitors():
        return captioner.caption_features(features, request.options, forced, bias)[0]


def search_options(
    num_captions: Any, strategy: Any, temperature: Any, seed: Any, top_p: Any = 1.0
) -> DecodingOptions:
    """Checked options of a search. Raises gr.Error naming the one that is wrong."""
    if strategy not in STRATEGIES:
        raise _bad_option("strategy", "one of " + ", ".join(STRATEGIES))

    def checked(name: str, value: Any) -> float:
        return number(name, value, BOUNDS[name].for_visitors)

    nucleus = checked("top_p", top_p)
    return replace(
        DEFAULTS,
        num_captions=int(checked("num_captions", num_captions)),
        strategy=strategy,
        temperature=checked("temperature", temperature),
        seed=int(checked("seed", seed)),
        # Without a nucleus sampling is faster: nothing has to be sorted.
        top_p=nucleus if nucleus < 1 else None,
    )


def box(left: Any, top: Any, right: Any, bottom: Any) -> Box:
    """A region's sides as numbers in 0..1. Raises gr.Error naming the one that is wrong."""
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    left, top, right, bottom = (number(name, side, Bounds(0, 1)) for name, side in sides.items())
    if left >= right or top >= bottom:
        raise refusal("left must be less than right, and top less than bottom.", "This region")
    return left, top, right, bottom


def number(name: str, value: Any, bounds: Bounds) -> float:
    """`value`, if it is a number within `bounds`; 3.0 is a whole number, as JSON has no other.

    Raises gr.Error with `name` otherwise.
    """
    whole = isinstance(value, float) and bounds.whole and value.is_integer()
    if not bounds.allow(int(value) if whole else value):
        raise _bad_option(name, str(bounds))
    return float(value)


def source(image: Any) -> Path | bytes:
    """What Gradio hands over unprocessed: the file it keeps, or a data URL.

    Raises `ImageError` if it is neither.
    """
    image = image if isinstance(image, dict) else {}
    if image.get("path"):
        return Path(image["path"])
    kind, _, data = (image.get("url") or "").partition(";base64,")
    if not kind.startswith("data:"):
        raise ImageError(NO_PHOTO)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ImageError("The picture's data URL is not valid base64.") from None


@contextlib.contextmanager
def messages_for_visitors() -> Iterator[None]:
    """Whatever goes wrong becomes a gr.Error that may be shown; the log has what it was."""
    try:
        yield
    except ImageError as error:
        logger.warning("refused a picture: %s", error)
        raise refusal(str(error), "This picture") from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            logger.exception("captioning failed")
            raise gr.Error(_FAILED, print_exception=False) from None
        logger.error("no room on the disk: %s", error)
        raise refusal(NO_ROOM_LEFT, "This photo") from None
    except Exception:
        logger.exception("captioning failed")
        raise gr.Error(_FAILED, print_exception=False) from None


def refusal(message: str, title: str) -> gr.Error:
    return gr.Error(message, title=title, print_exception=False)


def to_json(caption: Caption, alternatives: bool = False) -> dict[str, Any]:
    """A caption as the endpoints give it, on demand with what it nearly said."""
    content = {
        "text": caption.text,
        "words": list(caption.words),
        "log_probs": [round(p, 6) for p in caption.log_probs],
        "attention": caption.attention.astype(float).round(6).tolist(),
    }
    if alternatives:
        content["alternatives"] = [
            [{"word": word, "log_prob": round(p, 6)} for word, p in words]
            for words in caption.alternatives
        ]
    return content


def from_json(content: Any) -> Caption:
    """The caption that `to_json` has written, as a page sends it back.

    Raises gr.Error if it is not one that can be drawn.
    """
    try:
        words = [str(word)[:_LONGEST_WORD] for word in content["words"]]
        log_probs = [min(0.0, float(p)) for p in content["log_probs"]]
        attention = np.asarray(content["attention"], np.float32)  # (n_words, rows, columns)
        fits = len(words) == len(log_probs) == len(attention) <= _MOST_WORDS
        fits = fits and all(map(math.isfinite, log_probs)) and attention.ndim == 3
        fits = fits and 0 < attention[0].size <= _MOST_CELLS and attention.min() >= 0
        if not fits or not np.isfinite(attention).all():
            raise ValueError("sizes or numbers")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise refusal("This caption cannot be drawn.", "This caption") from None
    return Caption(" ".join(words), words, log_probs, attention)


def preview(photo: Image.Image) -> bytes:
    """The photo as it was understood, as a JPEG small enough to travel with the captions."""
    small = photo.copy()
    small.thumbnail((1024, 1024))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def draw_grid(photo: Image.Image, caption: Caption, tile: int) -> str:
    """The attention grid as a file in Gradio's cache, which empties itself.

    Gradio would write a picture too, but more slowly.
    """
    with messages_for_visitors():
        png = attention_grid_png(photo, caption, tile)
        return save_bytes_to_cache(png, "attention.png", get_upload_folder())


def _bad_option(name: str, expected: str) -> gr.Error:
    return refusal(f"{name} must be {expected}.", "This option")
