"""PNG files of photos, made in a third of Pillow's time.

Pillow computes all five filters of every line of pixels and keeps the one that promises most. Of a
photo, "Sub" alone compresses nearly as well: the file is a fifth larger.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

SUB = 1  # the filter that takes the pixel to the left off each pixel


def png_bytes(image: Image.Image, dpi: int) -> bytes:
    """An RGB image as a PNG file (www.w3.org/TR/png-3) to be printed at `dpi` pixels an inch."""
    pixels = np.asarray(image)  # uint8 (height, width, 3)
    height, width, channels = pixels.shape
    lines = pixels.reshape(height, width * channels)
    filtered = np.empty((height, 1 + lines.shape[1]), np.uint8)
    filtered[:, 0] = SUB
    filtered[:, 1 : 1 + channels] = lines[:, :channels]
    np.subtract(lines[:, channels:], lines[:, :-channels], out=filtered[:, 1 + channels :])
    # Runs of like bytes are nearly all that there is to find in what the filter leaves.
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    per_metre = round(dpi / 0.0254)
    chunks = (
        # 8 bits a channel, RGB, and the standard's only compression, filters and order of lines.
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
        (b"IDAT", deflate.compress(filtered) + deflate.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
