"""Functions of the page and the endpoints that check requests, answer them, or refuse them.

Every `gr.Error` raised here may be shown to a visitor: its message holds no path and no traceback.
These are written to the log.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from captioner.captioner import Caption, Captioner
from captioner.data.images import ImageError
from captioner.drawing.overlay import attention_grid_png
from captioner.model.decoding_options import BOUNDS, DEFAULTS, STRATEGIES, Bounds, DecodingOptions
from captioner.web.feedback import CaptionRefused
from captioner.web.reading import PREVIEW_SIZE, read_picture
from captioner.web.sent_files import source

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1

# The largest caption that a page may send back to be drawn. Real captions are much smaller.
_MOST_WORDS, _LONGEST_WORD, _MOST_CELLS = 40, 60, 32 * 32
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM_LEFT = "The server has no room left for this photo. Try again later."
_FAILED = "Something went wrong with this photo on the server, and its log has the details."


@dataclass(frozen=True)
class CaptionRequest:
    """What is asked of the captioner about a photo: how to search, and where to look."""

    options: DecodingOptions
    prefix: str = ""
    region: Box | None = None


@dataclass(frozen=True)
class KeptPhoto:
    """A photo whose features have been computed. The session keeps it for further requests. It does
    not keep the captions, which only the page has."""

    key: str  # identifies the photo in the page's requests
    preview: bytes  # the upright photo, as a small JPEG
    size: tuple[int, int]  # the preview's width and height, in pixels
    features: tuple[np.ndarray, ...]  # for each model, float16 (1, locations, channels)


def keep_photo(captioners: Sequence[Captioner], image: Any) -> KeptPhoto:
    """Computes the features of the photo in Gradio's `image`, or of a file of the server's own, for
    each model.

    Raises:
        gr.Error: The photo cannot be used. The message is for the visitor.
    """
    photo, features = read_photo(captioners, image)
    small = preview(photo)
    return KeptPhoto(uuid.uuid4().hex, small, Image.open(io.BytesIO(small)).size, features)


def read_photo(
    captioners: Sequence[Captioner], image: Any
) -> tuple[Image.Image, tuple[np.ndarray, ...]]:
    """Reads the photo in Gradio's `image`, or in a file of the server's own; computes its features.

    Returns:
        The upright photo, small enough to be kept, and for each model its features, float16
        (1, locations, channels).

    Raises:
        gr.Error: The photo cannot be used. The message is for the visitor.
    """
    with messages_for_visitors():
        picture = image if isinstance(image, Path) else source(image)
        networks = {id(c.extractor): c for c in captioners}  # two models may share one
        photo, pixels = read_picture(picture, list(networks.values()))
        found = {
            network: captioner.features_of_pixels(one[None])
            for (network, captioner), one in zip(networks.items(), pixels, strict=True)
        }
    return photo, tuple(found[id(captioner.extractor)] for captioner in captioners)


def answer(captioner: Captioner, features: np.ndarray, request: CaptionRequest) -> list[Caption]:
    """Captions one photo, best caption first.

    Raises:
        gr.Error: The request is not valid, or captioning failed. The message is for the visitor.
    """
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
    """Checks the options of a search.

    Raises:
        gr.Error: An option is not valid; the message names it.
    """
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
        # Sampling is faster without top_p, because nothing has to be sorted.
        top_p=nucleus if nucleus < 1 else None,
    )


def box(left: Any, top: Any, right: Any, bottom: Any) -> Box:
    """Checks the sides of a region, which are numbers in 0..1.

    Raises:
        gr.Error: A side is not valid; the message names it.
    """
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    left, top, right, bottom = (number(name, side, Bounds(0, 1)) for name, side in sides.items())
    if left >= right or top >= bottom:
        raise refusal("left must be less than right, and top less than bottom.", "This region")
    return left, top, right, bottom


def number(name: str, value: Any, bounds: Bounds) -> float:
    """Checks that `value` is a number within `bounds`. 3.0 counts as a whole number, because some
    programs write whole numbers so in JSON.

    Raises:
        gr.Error: It is not; the message has `name`.
    """
    whole = isinstance(value, float) and bounds.whole and value.is_integer()
    if not bounds.allow(int(value) if whole else value):
        raise _bad_option(name, str(bounds))
    return float(value)


@contextlib.contextmanager
def messages_for_visitors() -> Iterator[None]:
    """Turns every error into a gr.Error that may be shown to a visitor, and logs the error."""
    try:
        yield
    except ImageError as error:
        logger.warning("refused a picture: %s", error)
        raise refusal(str(error), "This picture") from None
    except CaptionRefused as error:
        raise refusal(str(error), "This caption") from None
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
    """A caption as a JSON object; with `alternatives`, also the most probable other words."""
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
    """Reads a caption that `to_json` has written and a page has sent back.

    Raises:
        gr.Error: It cannot be drawn.
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
    """The upright photo as a JPEG, small enough to be sent along with the captions."""
    small = photo.copy()
    small.info = {}  # a comment would be written into the file
    small.thumbnail(PREVIEW_SIZE)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def draw_grid(photo: Image.Image, caption: Caption, tile: int) -> str:
    """Writes the attention grid into Gradio's cache. Gradio could write the picture as well, but
    more slowly.

    Returns:
        The path of the file.
    """
    with messages_for_visitors():
        return cache_file(attention_grid_png(photo, caption, tile), "attention.png")


def cache_file(content: bytes, name: str) -> str:
    """Writes a file into Gradio's cache, which deletes old files itself. Returns its path."""
    return save_bytes_to_cache(content, name, get_upload_folder())


def _bad_option(name: str, expected: str) -> gr.Error:
    return refusal(f"{name} must be {expected}.", "This option")
