"""How Gradio takes photos: uploads that break off leave nothing, and addresses are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import gradio as gr
from gradio import route_utils
from gradio_client.utils import is_http_url_like
from starlette.datastructures import FormData

from captioner.data.images import load_image
from captioner.web import responses
from captioner.web.examples import example_photos
from captioner.web.sent_files import ADDRESS, SERVED, sent_file

logger = logging.getLogger(__name__)


class _TidyParser(route_utils.GradioMultiPartParser):
    """Reads an upload, and removes what it has written if the upload does not come to its end."""

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


def refuse_addresses(component: gr.Image | gr.File | gr.UploadButton) -> None:
    """Makes a component refuse addresses that are sent in place of files.

    Gradio would fetch them, so that strangers could make this server call other servers, and no
    option turns that off. The address of a file that was sent to this server is still accepted.
    """
    keep = component.async_move_resource_to_block_cache

    async def keep_upload(path: str | Path | None) -> str | None:
        if is_http_url_like(str(path)):
            path = sent_file(str(path))
            if path is None:
                raise responses.refusal(ADDRESS, "This picture")
        return await keep(path)

    component.async_move_resource_to_block_cache = keep_upload  # ty: ignore[invalid-assignment]


def example_address() -> str:
    """The address of an example photo on this server, without the server's own name."""
    photo = responses.preview(load_image(example_photos()[0]))
    try:
        return SERVED + Path(responses.cache_file(photo, "photo.jpg")).as_posix()
    except OSError as error:
        # The page is shown even with a full disk, and reports it when a photo is uploaded.
        logger.warning("no example photo can be offered to programs: %s", error)
        return f"{SERVED}photo.jpg"
