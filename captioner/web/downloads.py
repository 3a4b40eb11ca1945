"""What a visitor takes away of one photo: files that are made when they are asked for."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from gradio_client.utils import strip_invalid_filename_characters
from PIL import Image

from captioner.captioner import Caption
from captioner.data.text import clean
from captioner.drawing.embed import caption_html
from captioner.drawing.overlay import attention_grid_png, write_attention_film
from captioner.web import responses

_TILE = 600  # pixels, of the attention grid
_MOST_CHARACTERS = 5_000_000  # of the page's JSON; what it has at most is about a tenth of it


def write_download(photo: Image.Image, caption: Caption, wish: dict[str, Any]) -> str:
    """The file that a wish of the page asks for: its path in Gradio's cache, which empties itself.

    Args:
        photo: The upright photo.
        caption: The caption that is chosen on the page.
        wish: `form` is "grid", "film", "html", or "all" of one photo, for which `name` is the
            photo's file name and `captions` the page's JSON of all captions.

    Raises:
        gr.Error: with a message for the visitor.
    """
    with responses.messages_for_visitors():
        name, content = _file(photo, caption, wish)
        return save_bytes_to_cache(content, name, get_upload_folder())


def _file(photo: Image.Image, caption: Caption, wish: dict[str, Any]) -> tuple[str, bytes]:
    form = wish.get("form")
    if form == "html":
        return "caption.html", caption_html(photo, caption).encode()
    if form == "film":
        film = io.BytesIO()
        write_attention_film(film, photo, caption)
        return "attention.gif", film.getvalue()
    if form != "all":
        return "attention.png", attention_grid_png(photo, caption, _TILE)
    captions = str(wish.get("captions") or "")[:_MOST_CHARACTERS]
    archive = io.BytesIO()
    add_to_zip(
        archive,
        [
            ("captions.json", captions.encode("utf-8", "backslashreplace")),
            ("attention.png", attention_grid_png(photo, caption, _TILE)),
            ("caption.html", caption_html(photo, caption).encode()),
        ],
    )
    stem = PurePosixPath(file_name(str(wish.get("name") or ""))).stem
    return strip_invalid_filename_characters(f"{clean(stem)}.zip"), archive.getvalue()


def add_to_zip(archive: BinaryIO, files: Iterable[tuple[str, bytes]]) -> None:
    """Adds files, each a name and its content, to an archive that may be empty yet."""
    with zipfile.ZipFile(archive, "a") as target:
        for name, content in files:
            # Pictures are compressed already.
            packed = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            target.writestr(name, content, packed)


def file_name(name: str) -> str:
    """A file's name without its folders, in whatever system it lies; "photo" if it has none."""
    return PurePosixPath(name.replace("\\", "/")).name or "photo"
