"""Opens the pictures that visitors send; of the large ones, few at the same time."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from captioner.captioner import Captioner
from captioner.data.images import FORMATS, load_image

PREVIEW_SIZE = (1024, 1024)  # pixels, at most, of a photo that is kept to be shown or drawn
LARGE = 16_000_000  # pixels; most photos of phones have fewer, and take less than 150 MB
# A picture of 64 million pixels takes 0.5 GB while it is opened.
_LARGE_ONES = threading.Semaphore(2)


def read_picture(
    picture: Path | bytes, captioners: Sequence[Captioner] = ()
) -> tuple[Image.Image, list[np.ndarray]]:
    """Opens a picture. Small ones never wait for large ones.

    Returns:
        The upright photo, made small enough to be kept; and for each of `captioners` the network's
        input for the whole photo.

    Raises:
        ImageError: The picture cannot be used.
    """
    with _LARGE_ONES if _is_large(picture) else contextlib.nullcontext():
        photo = load_image(picture)
        pixels = [captioner.pixels(photo) for captioner in captioners]
        photo.thumbnail(PREVIEW_SIZE)
    return photo, pixels


def _is_large(picture: Path | bytes) -> bool:
    """Whether a picture has many pixels. Its header says so, unless it is damaged."""
    file = io.BytesIO(picture) if isinstance(picture, bytes) else picture
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.width * image.height > LARGE
    except Exception:  # Pillow reports damage by errors of many kinds
        return True
