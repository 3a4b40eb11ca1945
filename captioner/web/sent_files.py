"""The pictures that visitors and programs send, or name by a path or an address.

Only files that were sent to this server are opened. The server never fetches an address.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradio.utils import get_upload_folder

from captioner.data.images import ImageError

ADDRESS = (
    "This server does not fetch addresses, and opens only files that it has been sent. Give the "
    "picture itself: as a file, or as a data URL (data:image/png;base64,...)."
)
NO_PHOTO = "There is no picture. Give one as a file, or as a data URL (data:image/png;base64,...)."
MAX_MEGABYTES = 20  # of a picture
SERVED = "/gradio_api/file="


def sent_file(name: str) -> Path | None:
    """Finds a file that was sent to this server.

    Args:
        name: The path that the upload returned, or the file's address on this server.

    Returns:
        The file, or None if `name` stands for anything else.
    """
    _, served, path = name.partition(SERVED)
    try:
        file = Path(unquote(path.partition("?")[0]) if served else name).resolve()
        inside = file.is_relative_to(Path(get_upload_folder()).resolve())
        return file if inside and file.is_file() else None
    except (
        OSError,
        ValueError,
        RuntimeError,
    ):  # too long, a null byte, a loop of links
        return None


def source(image: Any) -> Path | bytes:
    """The picture in what a visitor or a program sends: the path of an uploaded file, or the bytes
    of a data URL.

    Args:
        image: A dictionary with "path" or "url", as Gradio's clients send it, or the text alone.

    Raises:
        ImageError: There is neither, or the data URL is too long.
    """
    given = image.get("path") or image.get("url") if isinstance(image, dict) else image
    if not given:
        raise ImageError(NO_PHOTO)
    if not isinstance(given, str):
        raise ImageError(ADDRESS)
    if given.startswith("data:"):
        return _decoded(given)
    if file := sent_file(given):
        return file
    raise ImageError(ADDRESS)


def name(image: Any) -> str:
    """The name of the picture's file as the sender has it; empty if the sender gives none."""
    image = image if isinstance(image, dict) else {"path": image}
    if image.get("orig_name"):
        return str(image["orig_name"])
    path = image.get("path")
    return Path(path).name if isinstance(path, str) and not path.startswith("data:") else ""


def _decoded(url: str) -> bytes:
    """The bytes of a data URL."""
    _, is_base64, data = url.partition(";base64,")
    if len(data) * 3 / 4 > MAX_MEGABYTES * 2**20:
        raise ImageError(f"The picture is larger than {MAX_MEGABYTES} MB. Make it smaller first.")
    try:
        if not is_base64:
            raise binascii.Error
        # As browsers do: programs break base64 into lines, escape it, and leave out its end.
        data = re.sub(r"[ \t\r\n\f]", "", unquote(data)).rstrip("=")
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except ValueError:  # binascii.Error, or letters that are not ASCII
        raise ImageError("The picture's data URL is not valid base64.") from None
