"""The endpoints for programs: `/caption`, `/complete`, `/caption_region` and `/caption_batch`.

Their inputs and outputs are components that nobody sees: Gradio describes endpoints by components,
and by the docstrings here, of which it reads one line a parameter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from captioner.captioner import Captioner
from captioner.data.images import ImageError
from captioner.model.decoding_options import BOUNDS, DEFAULTS, STRATEGIES
from captioner.web import responses
from captioner.web.api_snippets import show_example
from captioner.web.responses import CaptionRequest
from captioner.web.uploads import example_address, refuse_addresses

MAX_PHOTOS = 16  # in one call of /caption_batch
TILE = 128  # pixels, of the attention grid: writing a PNG is what takes longest of it


class _Endpoints:
    """What the endpoints run; Gradio publishes the docstrings of the methods."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner

    def caption(
        self,
        image: dict,
        num_captions: int = DEFAULTS.num_captions,
        strategy: str = DEFAULTS.strategy,
        temperature: float = DEFAULTS.temperature,
        seed: int = DEFAULTS.seed,
    ) -> tuple[dict, str]:
        """Describe a photo: several captions, best first, with where the model looked for each
        word.

        Parameters:
            image: The photo, as a file.
            num_captions: How many captions, 1 to 10; "greedy" gives one.
            strategy: "sample" (drawn by chance), "beam" (most probable) or "greedy" (word by word).
            temperature: Of samples, 0.1 to 2: higher is wilder.
            seed: The same seed gives the same samples.

        Returns:
            Captions: text, words, and for each word the logarithm of its probability and a map.
            The attention of the best caption, drawn over the photo, as a PNG.
        """
        return self._single(
            image,
            CaptionRequest(responses.search_options(num_captions, strategy, temperature, seed)),
        )

    def complete(
        self,
        image: dict,
        prefix: str,
        num_captions: int = DEFAULTS.num_captions,
        strategy: str = DEFAULTS.strategy,
        temperature: float = DEFAULTS.temperature,
        seed: int = DEFAULTS.seed,
    ) -> tuple[dict, str]:
        """Complete a caption of a photo that begins with given words.

        Parameters:
            image: The photo, as a file.
            prefix: The first words, such as "a man in". The model must know all of them.
            num_captions: How many captions, 1 to 10; "greedy" gives one.
            strategy: "sample", "beam" or "greedy".
            temperature: Of samples, 0.1 to 2: higher is wilder.
            seed: The same seed gives the same samples.

        Returns:
            Captions, as `/caption` gives them, and for each word the likeliest other ones.
            The attention of the best caption, drawn over the photo, as a PNG.
        """
        if not isinstance(prefix, str):
            raise responses.refusal("prefix must be text.", "This option")
        asked = CaptionRequest(
            responses.search_options(num_captions, strategy, temperature, seed), prefix[:1000]
        )
        return self._single(image, asked, alternatives=True)

    def caption_region(
        self,
        image: dict,
        left: float,
        top: float,
        right: float,
        bottom: float,
        num_captions: int = DEFAULTS.num_captions,
        strategy: str = DEFAULTS.strategy,
        temperature: float = DEFAULTS.temperature,
        seed: int = DEFAULTS.seed,
    ) -> tuple[dict, str]:
        """Describe a part of a photo: the model looks at a box in it, for every word.

        Parameters:
            image: The photo, as a file.
            left: The box's left side, from 0 (the photo's left) to 1 (its right).
            top: The box's upper side, from 0 (the photo's top) to 1 (its bottom).
            right: The box's right side, more than left.
            bottom: The box's lower side, more than top.
            num_captions: How many captions, 1 to 10; "greedy" gives one.
            strategy: "sample", "beam" or "greedy".
            temperature: Of samples, 0.1 to 2: higher is wilder.
            seed: The same seed gives the same samples.

        Returns:
            Captions, as `/caption` gives them.
            The attention of the best caption, drawn over the photo, as a PNG.
        """
        region = responses.box(left, top, right, bottom)
        asked = CaptionRequest(
            responses.search_options(num_captions, strategy, temperature, seed), region=region
        )
        return self._single(image, asked)

    def caption_batch(
        self,
        images: list,
        num_captions: int = DEFAULTS.num_captions,
        strategy: str = DEFAULTS.strategy,
        temperature: float = DEFAULTS.temperature,
        seed: int = DEFAULTS.seed,
    ) -> dict:
        """Describe several photos, which go through the network together.

        Parameters:
            images: The photos, as files, 16 at most.
            num_captions: How many captions of each, 1 to 10; "greedy" gives one.
            strategy: "sample", "beam" or "greedy".
            temperature: Of samples, 0.1 to 2: higher is wilder.
            seed: The same seed gives the same samples.

        Returns:
            Photos, in the order sent: the file's name, and captions as of `/caption` or an error.
        """
        asked = responses.search_options(num_captions, strategy, temperature, seed)
        images = images if isinstance(images, list) else []
        if not 1 <= len(images) <= MAX_PHOTOS:
            raise responses.refusal(f"Send 1 to {MAX_PHOTOS} photos.", "These photos")
        with responses.messages_for_visitors():
            photos, pixels = [], []
            for image in images:
                try:
                    pixels.append(self.captioner.pixels(responses.source(image)))
                    photos.append({"name": _name(image)})
                except ImageError as error:
                    photos.append({"name": _name(image), "error": str(error)})
            good = [photo for photo in photos if "error" not in photo]
            if good:
                features = self.captioner.features_of_pixels(np.stack(pixels))
                found = self.captioner.caption_features(features, asked)
                for photo, captions in zip(good, found, strict=True):
                    photo["captions"] = [responses.to_json(c) for c in captions]
        return {"photos": photos}

    def _single(
        self, image: Any, asked: CaptionRequest, alternatives: bool = False
    ) -> tuple[dict, str]:
        photo, features = responses.read_photo(self.captioner, image)
        captions = responses.answer(self.captioner, features, asked)
        content = {"captions": [responses.to_json(c, alternatives) for c in captions]}
        return content, responses.draw_grid(photo, captions[0], TILE)


def add_endpoints(captioner: Captioner, **work: Any) -> None:
    """Adds the endpoints to the `gr.Blocks` that is being built; `work` is Gradio's options for
    events that run the network."""
    calls = _Endpoints(captioner)
    image = gr.Image(label="Photo", alt_text="Photo", type="filepath", visible=False)
    files = gr.File(label="Photos", file_count="multiple", visible=False)
    example = example_address()
    for uploaded in (image, files):
        refuse_addresses(uploaded)
        show_example(uploaded, example)
    prefix = gr.Textbox(label="First words", visible=False)
    sides = [gr.Number(label=s, visible=False) for s in ("Left", "Top", "Right", "Bottom")]
    content = gr.JSON(label="Captions", visible=False)
    grid = gr.Image(label="Attention grid", alt_text="Attention grid", format="png", visible=False)
    search = _search()
    for run, inputs, outputs in (
        (calls.caption, [image, *search], [content, grid]),
        (calls.complete, [image, prefix, *search], [content, grid]),
        (calls.caption_region, [image, *sides, *search], [content, grid]),
        (calls.caption_batch, [files, *search], [content]),
    ):
        gr.Button(visible=False).click(run, inputs, outputs, api_name=run.__name__, **work)


def _search() -> list[gr.components.Component]:
    """The inputs num_captions, strategy, temperature and seed, with the defaults of all calls."""
    count, heat = (BOUNDS[name].for_visitors for name in ("num_captions", "temperature"))
    return [
        gr.Slider(
            count.low,
            count.high,
            DEFAULTS.num_captions,
            step=1,
            label="Number of captions",
            visible=False,
        ),
        gr.Radio(STRATEGIES, value=DEFAULTS.strategy, label="Strategy", visible=False),
        gr.Slider(
            heat.low,
            heat.high,
            DEFAULTS.temperature,
            step=0.1,
            label="Temperature",
            visible=False,
        ),
        gr.Number(
            DEFAULTS.seed,
            label="Seed",
            precision=0,
            minimum=BOUNDS["seed"].low,
            visible=False,
        ),
    ]


def _name(image: Any) -> str:
    """The file's name as the sender had it."""
    return str(image.get("orig_name") or Path(str(image.get("path"))).name)
