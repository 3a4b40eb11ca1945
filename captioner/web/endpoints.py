"""The endpoints for programs: `/caption`, `/complete`, `/caption_region` and `/caption_batch`.

Gradio describes an endpoint by components, which are invisible here, and by a docstring, of which
it reads one line per parameter.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np

from captioner.captioner import Captioner
from captioner.data.images import ImageError
from captioner.model.decoding_options import BOUNDS, DEFAULTS, MEANINGS, DecodingOptions
from captioner.web import responses
from captioner.web.api_snippets import show_example
from captioner.web.controls import search_control
from captioner.web.reading import read_picture
from captioner.web.responses import CaptionRequest
from captioner.web.sent_files import name, source
from captioner.web.uploads import example_address

MAX_PHOTOS = 16  # in one call of /caption_batch
TILE = 128  # pixels per tile of the attention grid; small, because writing the PNG takes longest
SEARCH = ("num_captions", "strategy", "temperature", "seed")  # the options that programs can set


class _Endpoints:
    """The functions behind the endpoints. Gradio publishes their docstrings, to which
    `_with_search_options` adds the options of the search."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner

    def caption(self, image: dict, options: DecodingOptions) -> tuple[dict, str]:
        """Describe a photo by several captions, best first. For each word there is a map of where
        the model looked.

        Parameters:
            image: The photo, as a file.

        Returns:
            Captions: text, words, and for each word the logarithm of its probability and a map.
            The attention of the best caption, drawn over the photo, as a PNG.
        """
        return self._single(image, CaptionRequest(options))

    def complete(self, image: dict, prefix: str, options: DecodingOptions) -> tuple[dict, str]:
        """Complete a caption of a photo that begins with given words.

        Parameters:
            image: The photo, as a file.
            prefix: The first words, such as "a man in". The model must know all of them.

        Returns:
            Captions as from `/caption`, and for each word the most probable other words.
            The attention of the best caption, drawn over the photo, as a PNG.
        """
        if not isinstance(prefix, str):
            raise responses.refusal("prefix must be text.", "This option")
        return self._single(image, CaptionRequest(options, prefix[:1000]), alternatives=True)

    def caption_region(
        self,
        image: dict,
        left: float,
        top: float,
        right: float,
        bottom: float,
        options: DecodingOptions,
    ) -> tuple[dict, str]:
        """Describe a part of a photo. The model looks at this part for every word.

        Parameters:
            image: The photo, as a file.
            left: The left side of the part, from 0 (the photo's left side) to 1 (its right side).
            top: The upper side of the part, from 0 (the photo's upper side) to 1 (its lower side).
            right: The right side of the part, more than left.
            bottom: The lower side of the part, more than top.

        Returns:
            Captions as from `/caption`.
            The attention of the best caption, drawn over the photo, as a PNG.
        """
        region = responses.box(left, top, right, bottom)
        return self._single(image, CaptionRequest(options, region=region))

    def caption_batch(self, images: list, options: DecodingOptions) -> dict:
        """Describe several photos, which go through the network together.

        Parameters:
            images: The photos, as files; at most 16.

        Returns:
            One entry per photo, in the order sent: its name, and captions or an error.
        """
        images = images if isinstance(images, list) else []
        if not 1 <= len(images) <= MAX_PHOTOS:
            raise responses.refusal(f"Send 1 to {MAX_PHOTOS} photos.", "These photos")
        with responses.messages_for_visitors():
            photos, pixels = [], []
            for image in images:
                try:
                    _, (given,) = read_picture(source(image), [self.captioner])
                    pixels.append(given)
                    photos.append({"name": name(image)})
                except ImageError as error:
                    photos.append({"name": name(image), "error": str(error)})
            good = [photo for photo in photos if "error" not in photo]
            if good:
                features = self.captioner.features_of_pixels(np.stack(pixels))
                found = self.captioner.caption_features(features, options)
                for photo, captions in zip(good, found, strict=True):
                    photo["captions"] = [responses.to_json(c) for c in captions]
        return {"photos": photos}

    def _single(
        self, image: Any, request: CaptionRequest, alternatives: bool = False
    ) -> tuple[dict, str]:
        photo, (features,) = responses.read_photo([self.captioner], image)
        captions = responses.answer(self.captioner, features, request)
        content = {"captions": [responses.to_json(c, alternatives) for c in captions]}
        return content, responses.draw_grid(photo, captions[0], TILE)


def _with_search_options(run: Callable[..., Any]) -> Callable[..., Any]:
    """The function that Gradio calls and describes in place of `run`.

    Args:
        run: Its last parameter is the checked options of the search.

    Returns:
        A function that takes the options in `SEARCH` one by one in place of that parameter, each
        with its default, and has a line about each of them in its docstring.
    """
    *own, _ = inspect.signature(run).parameters.values()
    options = [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=getattr(DEFAULTS, name)
        )
        for name in SEARCH
    ]
    signature = inspect.Signature([*own, *options])

    @functools.wraps(run)
    def endpoint(*inputs: Any) -> Any:
        values = signature.bind(*inputs)
        values.apply_defaults()
        asked = {name: values.arguments.pop(name) for name in SEARCH}
        return run(*values.args, responses.search_options(**asked))

    lines = "".join(f"\n    {name}: {_meaning(name)}" for name in SEARCH)
    if documentation := inspect.getdoc(run):  # `python -OO` removes it
        description, returns = documentation.split("\n\nReturns:")
        endpoint.__doc__ = f"{description}{lines}\n\nReturns:{returns}"
    endpoint.__signature__ = signature  # ty: ignore[missing-attribute] - `inspect` reads it
    return endpoint


def _meaning(option: str) -> str:
    meaning = MEANINGS[option][0].upper() + MEANINGS[option][1:]
    bounds = BOUNDS.get(option)
    return f"{meaning}; {bounds.for_visitors}." if bounds else f"{meaning}."


def add_endpoints(captioner: Captioner, **work: Any) -> None:
    """Adds the endpoints to the `gr.Blocks` that is being built.

    Args:
        captioner: Makes the captions.
        work: Gradio's options for events that run the network.
    """
    calls = _Endpoints(captioner)
    image = gr.Image(label="Photo", alt_text="Photo", type="filepath", visible=False)
    files = gr.File(label="Photos", file_count="multiple", visible=False)
    example = example_address()
    for uploaded in (image, files):
        show_example(uploaded, example)
    prefix = gr.Textbox(label="First words", visible=False)
    sides = [gr.Number(label=s, visible=False) for s in ("Left", "Top", "Right", "Bottom")]
    content = gr.JSON(label="Captions", visible=False)
    grid = gr.Image(label="Attention grid", alt_text="Attention grid", format="png", visible=False)
    search = [search_control(name, visible=False) for name in SEARCH]
    for run, inputs, outputs in (
        (calls.caption, [image, *search], [content, grid]),
        (calls.complete, [image, prefix, *search], [content, grid]),
        (calls.caption_region, [image, *sides, *search], [content, grid]),
        (calls.caption_batch, [files, *search], [content]),
    ):
        gr.Button(visible=False).click(
            _with_search_options(run), inputs, outputs, api_name=run.__name__, **work
        )
