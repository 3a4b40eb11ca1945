"""Repairs files that browsers show although they break the rules of their format.

Metadata must not decide whether a photo can be used. Pillow refuses a PNG whose text or colour
profile is damaged or large, and a JPEG that lacks its last bytes. This module rewrites such files
without the metadata and with a proper end. PNG: https://www.w3.org/TR/png-3/; JPEG: ITU-T T.81,
https://www.w3.org/Graphics/JPEG/itu-t81.pdf.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

MAX_MISSING = 0.25  # share of a photo's rows that may be missing and are filled

_PNG = b"\x89PNG\r\n\x1a\n"
# The chunks that determine the pixels, and the orientation.
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_END, _SCAN = 0xD9, 0xDA
# Segments of a JPEG that do not affect the pixels: comments, and application data except the
# density (APP0), the orientation (APP1) and the colours (APP14).
_JPEG_DROPPED = {0xFE, *range(0xE2, 0xEE), 0xEF}


def repaired(data: bytes, max_pixels: int) -> bytes | None:
    """The same picture without metadata and with a proper end.

    Args:
        data: The content of a file that could not be decoded.
        max_pixels: A PNG with more pixels is not repaired, because that could take much memory.

    Returns:
        The content of the repaired file, or None if it cannot be repaired.
    """
    try:
        if data.startswith(_PNG):
            return _png(data, max_pixels)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
    except (struct.error, zlib.error, IndexError, KeyError, ValueError):
        return None
    return None


def filled_share(pixels: np.ndarray) -> float:
    """The share of rows at the bottom of `pixels` (height, width, 3) that all have one colour.

    Decoders fill missing rows in this way.
    """
    other = (pixels != pixels[-1, -1]).any(axis=(1, 2))  # (height,)
    last = int(np.flatnonzero(other)[-1]) if other.any() else -1
    return 1 - (last + 1) / len(pixels)


def _png(data: bytes, max_pixels: int) -> bytes | None:
    chunks: dict[bytes, bytes] = {}
    for kind, content in _png_chunks(data):
        if kind in _PNG_KEPT:
            chunks[kind] = chunks.get(kind, b"") + content
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if width * height > max_pixels:
        return None
    if not interlaced:
        row = 1 + (width * depth * _PNG_CHANNELS[colour] + 7) // 8  # bytes, with the filter type
        chunks[b"IDAT"] = _whole_stream(chunks[b"IDAT"], row * height)
    body = b"".join(_png_chunk(kind, chunks[kind]) for kind in _PNG_KEPT if kind in chunks)
    return _PNG + body + _png_chunk(b"IEND", b"")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The type and the content of each chunk. The last one may be cut; checksums are ignored."""
    position = len(_PNG)
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + size]
        position += 12 + size


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def _whole_stream(compressed: bytes, size: int) -> bytes:
    """Decompresses as much as possible, fills it with zeros to `size` bytes, and compresses it."""
    stream = zlib.decompressobj()
    found = stream.decompress(compressed, size)
    return zlib.compress(found.ljust(size, b"\0"), 1)


def _jpeg(data: bytes) -> bytes:
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _SCAN:
            break
        size = struct.unpack_from(">H", data, position + 2)[0]
        if marker not in _JPEG_DROPPED:
            kept.append(data[position : position + 2 + size])
        position += 2 + size
    rest = data[position:].removesuffix(b"\xff")  # the first half of an end marker
    end = bytes([0xFF, _END])
    return b"".join(kept) + rest + (b"" if rest.endswith(end) else end)
