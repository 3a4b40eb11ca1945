"""How Gradio takes photos: uploads that break off leave nothing, and nothing is fetched."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import route_utils
from gradio.block_function import BlockFunction
from gradio.state_holder import SessionState
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException

from captioner.data.images import load_image
from captioner.web import responses
from captioner.web.examples import example_photos
from captioner.web.sent_files import SERVED

logger = logging.getLogger(__name__)


class _TidyParser(route_utils.GradioMultiPartParser):
    """Reads an upload, and removes what it has written if the upload does not come to its end."""

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part = self._current_part
        # Gradio would fail at text in a file's place, and at any text if it reports the progress.
        if part.file is None and (part.field_name == "files" or self.upload_progress):
            raise MultiPartException('A file needs a name, as in filename="photo.jpg".')

    async def parse(self) -> FormData:
        try:
            return await super().parse()
        except BaseException:  # the visitor has gone, the disk is full, or the server ends
            for file in self._files_to_close_on_error:
                file.close()
                Path(file.name).unlink(missing_ok=True)
            raise


def remove_broken_uploads() -> None:
    """Has the server remove the files of uploads that break off.

    Gradio itself keeps them for ever: it removes only files that were sent whole.
    """
    route_utils.GradioMultiPartParser = _TidyParser  # ty: ignore[invalid-assignment]


class UncheckedBlocks(gr.Blocks):
    """A page whose events without preprocessing take their inputs exactly as they were sent.

    Otherwise Gradio looks for files in every input. It would fetch their addresses, so that
    strangers could make this server call other servers, and no option turns that off. It would also
    refuse malformed files without a reason. `sent_files` checks pictures instead.
    """

    async def preprocess_data(
        self,
        block_fn: BlockFunction,
        inputs: list[Any],
        state: SessionState | None,
        explicit_call: bool = False,
    ) -> list[Any]:
        if block_fn.preprocess:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        nothing = [None] * len(inputs)
        kept = await super().preprocess_data(block_fn, nothing, state, explicit_call)
        given = zip(block_fn.inputs, kept, inputs, strict=True)
        return [value if block.stateful else sent for block, value, sent in given]


def example_address() -> str:
    """The address of an example photo on this server, without the server's own name."""
    photo = responses.preview(load_image(example_photos()[0]))
    try:
        return SERVED + Path(responses.cache_file(photo, "photo.jpg")).as_posix()
    except OSError as error:
        # The page is shown even with a full disk, and reports it when a photo is uploaded.
        logger.warning("no example photo can be offered to programs: %s", error)
        return f"{SERVED}photo.jpg"
