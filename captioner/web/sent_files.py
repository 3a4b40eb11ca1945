"""The pictures that visitors and programs send, or name by a path or an address.

Only files that were sent to this server are opened. The server never fetches an address.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradio.utils import get_upload_folder

from captioner.data.images import ImageError

ADDRESS = (
    "This server does not fetch addresses, and opens only files that it has been sent. Give the "
    "picture itself: as a file, or as a data URL (data:image/png;base64,...)."
)
NO_PHOTO = "There is no photo yet. Drop one on the page, paste it, or take it with the camera."
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
    """The picture in what Gradio hands over unprocessed: the path of an uploaded file, or the bytes
    of a data URL.

    Gradio checks only those paths that have the mark of an uploaded file, which a program may leave
    out. So every path is checked here.

    Raises:
        ImageError: There is neither.
    """
    image = image if isinstance(image, dict) else {}
    if image.get("path"):
        if file := sent_file(str(image["path"])):
            return file
        raise ImageError(ADDRESS)
    kind, _, data = (image.get("url") or "").partition(";base64,")
    if not kind.startswith("data:"):
        raise ImageError(NO_PHOTO)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ImageError("The picture's data URL is not valid base64.") from None
