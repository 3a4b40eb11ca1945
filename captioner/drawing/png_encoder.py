"""PNG files of photos, made in a twentieth of Pillow's time.

Pillow computes all five filters of every line of pixels and keeps the one that promises most. For
photos, "Up" alone compresses nearly as well: the file is an eighth larger. Intel's library then
compresses at five times the speed of zlib.
"""

from __future__ import annotations

import struct

import numpy as np
from isal import isal_zlib
from PIL import Image

UP = 2  # the filter that takes the pixel above off each pixel


def png_bytes(image: Image.Image, dpi: int) -> bytes:
    """An RGB image as a PNG file (www.w3.org/TR/png-3) to be printed at `dpi` pixels per inch."""
    pixels = np.asarray(image)  # uint8 (height, width, 3)
    height, width, channels = pixels.shape
    lines = pixels.reshape(height, width * channels)
    filtered = np.empty((height, 1 + lines.shape[1]), np.uint8)
    filtered[:, 0] = UP
    filtered[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    per_metre = round(dpi / 0.0254)
    chunks = (
        # 8 bits per channel, RGB, and the standard's only compression, filters and order of lines.
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
