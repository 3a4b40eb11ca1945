"""What happens on the page: a photo is given, steered, a caption completed, a file taken away."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from captioner.captioner import Caption, Captioner
from captioner.data.images import load_image
from captioner.drawing.overlay import write_attention_film
from captioner.model.decoding import DecodingOptions
from captioner.web import responses
from captioner.web.controls import search_plan
from captioner.web.examples import example_number
from captioner.web.responses import NO_PHOTO, CaptionRequest, ShownPhoto

_MAX_OWN = 5  # captions that the visitor has had a word in, kept on the page


class PageEvents:
    """The answers to a visitor's doings. Each gives what is on the page (the viewer's value, as
    `viewer/state.js` describes it), and what the session keeps of it."""

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner

    def show(self, image: Any, *options: Any) -> Iterator[tuple[dict | None, ShownPhoto | None]]:
        """A photo was given, or taken away: what is on the page, while it becomes more."""
        if image is None:
            yield None, None
            return
        photo, features = responses.read_photo(self._captioner, image)
        shown_photo = ShownPhoto(responses.preview(photo), features, example=example_number(image))
        yield from self._caption_photo(shown_photo, None, *options)

    def show_again(
        self, image: Any, *options: Any
    ) -> Iterator[tuple[dict | None, ShownPhoto | None]]:
        """The button: captions of the same photo."""
        if image is None:
            raise responses.refusal(NO_PHOTO, "No photo")
        yield from self.show(image, *options)

    def steer(
        self, shown_photo: ShownPhoto | None, event: gr.EventData, *options: Any
    ) -> Iterator[tuple[dict, ShownPhoto]]:
        """A region was chosen, or given up."""
        region = event._data.get("region")
        if region is not None:
            sides = [*region, None, None, None, None] if isinstance(region, list) else [None] * 4
            region = responses.box(*sides[:4])
        yield from self._caption_photo(_kept(shown_photo), region, *options)

    def complete(
        self, shown_photo: ShownPhoto | None, event: gr.EventData
    ) -> tuple[dict, ShownPhoto]:
        """The best caption that begins as the visitor wants, above the others."""
        shown_photo = _kept(shown_photo)
        prefix = str(event._data.get("prefix") or "")[:1000]
        search = CaptionRequest(DecodingOptions("beam", num_captions=1), prefix, shown_photo.region)
        found = responses.answer(self._captioner, shown_photo.features, search)[0]
        own = [("yours", found)]
        own += [c for c in shown_photo.captions if c[0] == "yours" and c[1].text != found.text]
        others = [c for c in shown_photo.captions if c[0] != "yours"]
        word = event._data.get("word")
        return _on_page(replace(shown_photo, captions=own[:_MAX_OWN] + others), word)

    def _caption_photo(
        self, shown_photo: ShownPhoto, region: responses.Box | None, *options: Any
    ) -> Iterator[tuple[dict, ShownPhoto]]:
        """Captions that look at a region, or at the whole photo, one search after another."""
        captions: dict[str, list[Caption]] = {}
        searches = search_plan(*options)
        for search in searches:
            request = CaptionRequest(search, region=region)
            found = responses.answer(self._captioner, shown_photo.features, request)
            captions[search.strategy] = found
            shown = [(source, c) for source, several in captions.items() for c in several]
            now = replace(shown_photo, region=region, captions=shown)
            yield _on_page(now, done=search is searches[-1])


def write_file(shown_photo: ShownPhoto | None, event: gr.EventData) -> str:
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
