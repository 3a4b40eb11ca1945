"""Answers the requests of the page: captions of a photo, a completion, a file to download."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from captioner.captioner import Caption
from captioner.data.images import load_image
from captioner.model.decoding_options import Bounds, DecodingOptions
from captioner.web import responses
from captioner.web.confidence import confidence_note
from captioner.web.controls import search_plan
from captioner.web.downloads import write_download
from captioner.web.examples import example_photos
from captioner.web.feedback import Feedback
from captioner.web.reading import read_picture
from captioner.web.responses import CaptionRequest, KeptPhoto
from captioner.web.sent_files import source
from captioner.web.shown_models import ShownModel

_MAX_PREFIX = 1000  # characters
PHOTO_GONE = "A photo that is gone"  # what a refusal is about, in `viewer/requests.js` too

Answer = tuple[str, KeptPhoto | None]


class PageEvents:
    """Answers what `viewer/requests.js` asks, in the form that `viewer/state.js` describes."""

    def __init__(self, models: Sequence[ShownModel], feedback: Feedback | None = None) -> None:
        self._models = models
        self._captioners = [model.captioner for model in models]
        self._feedback = feedback

    def answer(
        self, image: Any, kept: KeptPhoto | None, event: gr.EventData, *options: Any
    ) -> Iterator[Answer]:
        """Answers a request of the page for captions.

        Args:
            image: The uploaded file, for a request of the kind "photo".
            kept: The photo that the session has kept.
            event: Holds the request.
            options: The values of the controls.

        Yields:
            The answers as JSON text, each with everything that has been found so far, and the
            photo that the session shall keep.
        """
        request = _request(event)
        answers = {
            "photo": self._show,
            "example": self._show,
            "captions": self._caption,
            "completion": self._complete,
        }
        try:
            answer = answers.get(str(request.get("kind")))
            if answer is None:
                raise responses.refusal("The page has asked for something unknown.", "This page")
            for content, photo in answer(request, image, kept, options):
                kept = photo
                yield _written(request, content), kept
        except gr.Error as error:
            # Gradio's own message would disappear after a few seconds.
            refused = {"message": error.message, "about": error.title, "done": True}
            yield _written(request, refused), kept

    def write_file(self, kept: KeptPhoto | None, event: gr.EventData) -> str:
        """Writes a file to download about the caption that the page has sent. Returns its path."""
        request = _request(event)
        with responses.messages_for_visitors():
            photo = load_image(_preview(request, kept))
        return write_download(photo, responses.from_json(request.get("caption")), request)

    def keep_caption(self, kept: KeptPhoto | None, event: gr.EventData) -> str:
        """Keeps the photo and the visitor's caption of it, if the visitor has agreed to that.

        Returns:
            The reason why nothing was kept, for the visitor, or "" if it was kept.
        """
        request = _request(event)
        if self._feedback is None or request.get("consent") is not True:
            return "Nothing was kept, because you have not agreed to it."
        try:
            with responses.messages_for_visitors():
                self._feedback.keep(_preview(request, kept), str(request.get("caption") or ""))
        except gr.Error as error:
            return error.message
        return ""

    def _show(
        self, request: dict, image: Any, kept: KeptPhoto | None, options: tuple
    ) -> Iterator[tuple[dict, KeptPhoto]]:
        """Answers with a new photo and its captions."""
        number = None
        if request["kind"] == "example":
            bounds = Bounds(1, len(example_photos()), whole=True)
            number = int(responses.number("example", request.get("number"), bounds))
            image = example_photos()[number - 1]
        plan = search_plan(*options)  # checks the options before the work on the photo
        kept = responses.keep_photo(self._captioners, image)
        url = "data:image/jpeg;base64," + base64.b64encode(kept.preview).decode()
        new = {"photo": url, "size": kept.size, "example": number}
        for content in self._search(kept, None, plan, options):
            yield content | new, kept

    def _caption(
        self, request: dict, image: Any, kept: KeptPhoto | None, options: tuple
    ) -> Iterator[tuple[dict, KeptPhoto]]:
        """Answers with captions of the same photo by other options, or of another region."""
        plan = search_plan(*options)
        kept = self._photo(request, kept)
        for content in self._search(kept, _region(request), plan, options):
            yield content, kept

    def _complete(
        self, request: dict, image: Any, kept: KeptPhoto | None, options: tuple
    ) -> Iterator[tuple[dict, KeptPhoto]]:
        """Answers with the best caption that begins with the visitor's words. It is made by the
        model whose caption the visitor changes, or else by the first model."""
        kept = self._photo(request, kept)
        names = [model.name for model in self._models]
        which = names.index(request["model"]) if request.get("model") in names else 0
        prefix, region = str(request.get("prefix") or "")[:_MAX_PREFIX], _region(request)
        search = CaptionRequest(DecodingOptions("beam", num_captions=1), prefix, region)
        captioner, features = self._captioners[which], kept.features[which]
        found = responses.answer(captioner, features, search)[0]
        caption = _to_json(found, "yours", region, self._models[which])
        yield {"key": kept.key, "captions": [caption], "done": True}, kept

    def _search(
        self,
        kept: KeptPhoto,
        region: responses.Box | None,
        plan: list[DecodingOptions],
        options: tuple,
    ) -> Iterator[dict]:
        """Does one search after another, by one model after another. Each answer also has the
        captions of the searches before."""
        captions: list[dict] = []
        searches = [
            (model, features, search)
            for model, features in zip(self._models, kept.features, strict=True)
            for search in plan
        ]
        for done, (model, features, search) in enumerate(searches, start=1):
            found = responses.answer(
                model.captioner, features, CaptionRequest(search, region=region)
            )
            captions += [_to_json(caption, search.strategy, region, model) for caption in found]
            yield {
                "key": kept.key,
                "captions": captions,
                "sources": [{"source": s.strategy, "model": m.name} for m, _, s in searches],
                "options": options,
                "done": done == len(searches),
            }

    def _photo(self, request: dict, kept: KeptPhoto | None) -> KeptPhoto:
        """The photo that a request is about: the one that was kept, or else the page's copy."""
        if known := _known(request, kept):
            return known
        # The server has been restarted, or it has forgotten this visitor because of others. The
        # page asks again, with the photo.
        if request.get("key") and not request.get("photo"):
            raise responses.refusal("The server no longer has this photo.", PHOTO_GONE)
        return responses.keep_photo(self._captioners, {"url": request.get("photo")})


def _request(event: gr.EventData) -> dict:
    return event._data if isinstance(event._data, dict) else {}


def _known(request: dict, kept: KeptPhoto | None) -> KeptPhoto | None:
    """The photo that was kept, if it is the one that a request is about."""
    return kept if kept is not None and kept.key == request.get("key") else None


def _preview(request: dict, kept: KeptPhoto | None) -> bytes:
    """The photo as the page shows it, as a JPEG: the one that was kept, or else the page's copy."""
    if known := _known(request, kept):
        return known.preview
    photo, _ = read_picture(source({"url": request.get("photo")}))
    return responses.preview(photo)


def _to_json(
    caption: Caption, source: str, region: responses.Box | None, model: ShownModel
) -> dict[str, Any]:
    content = responses.to_json(caption, alternatives=True)
    note = confidence_note(caption, model.calibration)
    return content | {"source": source, "model": model.name, "region": region, "note": note}


def _region(request: dict) -> responses.Box | None:
    region = request.get("region")
    if region is None:
        return None
    sides = [*region, None, None, None, None] if isinstance(region, list) else [None] * 4
    return responses.box(*sides[:4])


def _written(request: dict, content: dict) -> str:
    """An answer as text.

    It is no JSON object, because Gradio would send only the differences to the answer before, and
    its page would mix up the lists of both.
    """
    # Gradio sends the last answer twice. The page recognises it by its unique name.
    return json.dumps({"answer": uuid.uuid4().hex, "request": request.get("request")} | content)
