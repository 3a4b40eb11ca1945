"""The files that a visitor can download for one photo. They are made on demand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from gradio_client.utils import strip_invalid_filename_characters
from PIL import Image

from captioner.captioner import Caption
from captioner.data.text import clean
from captioner.drawing.embed import caption_html
from captioner.drawing.overlay import attention_grid_png, write_attention_film
from captioner.web import responses

_TILE = 600  # pixels per tile of the attention grid
_MOST_CHARACTERS = 5_000_000  # of the page's JSON: about ten times as much as it can have


def write_download(photo: Image.Image, caption: Caption, request: dict[str, Any]) -> str:
    """Writes the file that the page asks for into Gradio's cache, which deletes old files itself.

    Args:
        photo: The upright photo.
        caption: The caption that is selected on the page.
        request: What the page asks for. Its `form` is "grid", "film", "html" or "all". For "all",
            `name` is the photo's file name and `captions` is the page's JSON of all captions.

    Returns:
        The path of the file.

    Raises:
        gr.Error: The file cannot be made. The message is meant for the visitor.
    """
    with responses.messages_for_visitors():
        name, content = _file(photo, caption, request)
        return responses.cache_file(content, name)


def _file(photo: Image.Image, caption: Caption, request: dict[str, Any]) -> tuple[str, bytes]:
    form = request.get("form")
    if form == "html":
        return "caption.html", caption_html(photo, caption).encode()
    if form == "film":
        film = io.BytesIO()
        write_attention_film(film, photo, caption)
        return "attention.gif", film.getvalue()
    if form != "all":
        return "attention.png", attention_grid_png(photo, caption, _TILE)
    captions = str(request.get("captions") or "")[:_MOST_CHARACTERS]
    archive = io.BytesIO()
    add_to_zip(
        archive,
        [
            ("captions.json", captions.encode("utf-8", "backslashreplace")),
            ("attention.png", attention_grid_png(photo, caption, _TILE)),
            ("caption.html", caption_html(photo, caption).encode()),
        ],
    )
    stem = PurePosixPath(file_name(str(request.get("name") or ""))).stem
    return strip_invalid_filename_characters(f"{clean(stem)}.zip"), archive.getvalue()


def add_to_zip(archive: BinaryIO, files: Iterable[tuple[str, bytes]]) -> None:
    """Adds files, given as names and contents, to a ZIP archive, which may still be empty."""
    with zipfile.ZipFile(archive, "a") as target:
        for name, content in files:
            # Pictures are compressed already.
            packed = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            target.writestr(name, content, packed)


def file_name(name: str) -> str:
    """The name of a file without its folders, for paths of any system; "photo" if it is empty."""
    return PurePosixPath(name.replace("\\", "/")).name or "photo"
