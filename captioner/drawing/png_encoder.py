"""Encodes photos as PNG files twenty times as fast as Pillow.

Pillow computes all five filters for every line of pixels and keeps the most promising one. For
photos, the filter "Up" alone compresses nearly as well: the files are an eighth larger. Intel's
library then compresses five times as fast as zlib.
"""

from __future__ import annotations

import struct

import numpy as np
from isal import isal_zlib
from PIL import Image

UP = 2  # the filter that subtracts the pixel above from each pixel


def png_bytes(image: Image.Image, dpi: int) -> bytes:
    """An RGB image as the bytes of a PNG file (www.w3.org/TR/png-3) with `dpi` pixels per inch."""
    pixels = np.asarray(image)  # uint8 (height, width, 3)
    height, width, channels = pixels.shape
    lines = pixels.reshape(height, width * channels)
    filtered = np.empty((height, 1 + lines.shape[1]), np.uint8)
    filtered[:, 0] = UP
    filtered[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    per_metre = round(dpi / 0.0254)
    chunks = (
        # 8 bits per channel, RGB, the only compression and filters of the standard, no interlacing.
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
        (b"IDAT", isal_zlib.compress(filtered, 1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + _checksum(kind + data) for kind, data in chunks
    )


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", isal_zlib.crc32(data))
