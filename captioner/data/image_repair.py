"""Repairs files that browsers show although they break the rules of their format.

Metadata must not decide whether a photo can be used. Pillow refuses a PNG whose text or colour
profile is damaged or large, and a JPEG, GIF or BMP that lacks its last bytes. This module rewrites
such files without the metadata and with a proper end; `other_repairs` does so for WebP, AVIF and
TIFF. PNG: https://www.w3.org/TR/png-3/; JPEG: ITU-T T.81,
https://www.w3.org/Graphics/JPEG/itu-t81.pdf; GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from captioner.data.other_repairs import repaired_avif, repaired_tiff, repaired_webp

MAX_MISSING = 0.25  # share of a picture that may be missing and is filled
FILLING = bytes(range(1, 0xC0))  # no part of a plain area, and no marker of a JPEG

_PNG = b"\x89PNG\r\n\x1a\n"
# The chunks that determine the pixels, and the orientation.
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PNG_TRANSPARENT = {0: 2, 2: 6}  # bytes of tRNS by colour type
# The passes of an interlaced PNG: the first column and row, and the steps to the next ones.
_PNG_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
_PIECE = 1024  # bytes of compressed data that are lost at most in front of damaged ones
_END, _SCAN = 0xD9, 0xDA
# Segments of a JPEG that do not affect the pixels: comments, and application data except the
# density (APP0), the orientation (APP1) and the colours (APP14).
_JPEG_DROPPED = {0xFE, *range(0xE2, 0xEE), 0xEF}
_JPEG_SHORTEST = {0xE0: 16, 0xEE: 14}  # bytes of a whole APP0 and APP14; shorter ones are dropped
_JPEG_DAMAGE = re.compile(rb"\xff[\x01-\xbf\xd8]")  # what no scan can contain
_JPEG_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xda-\xfe](?=(.{0,2}))", re.DOTALL)
_GIF = (b"GIF87a", b"GIF89a")
_GIF_EXTENSION, _GIF_IMAGE = 0x21, 0x2C
_GIF_CONTROL = b"\x21\xf9\x04"  # how the extension begins that says what is transparent
_SIGNATURES = {
    "PNG": (_PNG, b"\x89PNG"),  # the second if its line ends were changed
    "JPEG": (b"\xff\xd8",),
    "GIF": _GIF,
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*"),
}


def known_format(head: bytes) -> str:
    """The format of a picture that may be repaired, by the first 64 bytes of its file; "" for any
    other file."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and (b"avif" in head[8:64] or b"avis" in head[8:64]):
        return "AVIF"
    return next((name for name, begins in _SIGNATURES.items() if head.startswith(begins)), "")


def repaired(data: bytes, max_pixels: int, filling: bytes = b"") -> bytes | None:
    """The same picture without metadata and with a proper end.

    Args:
        data: The content of a file that could not be decoded.
        max_pixels: A PNG or GIF with more pixels is not repaired, because that could take much
            memory.
        filling: What is put in place of the missing bytes of a JPEG: see `lacks_too_much`.

    Returns:
        The content of the repaired file, or None if it cannot be repaired.
    """
    repairs: dict[str, Callable[[], bytes | None]] = {
        "PNG": lambda: _png(data, max_pixels),
        "JPEG": lambda: _jpeg(data, filling),
        "GIF": lambda: _gif(data, max_pixels),
        "BMP": lambda: data + bytes(int(len(data) * MAX_MISSING / (1 - MAX_MISSING))),
        "WebP": lambda: repaired_webp(data),
        "AVIF": lambda: repaired_avif(data),
        "TIFF": lambda: repaired_tiff(data),
    }
    try:
        return repairs[known_format(data[:64])]()
    except (struct.error, zlib.error, IndexError, KeyError, ValueError):
        return None


def lacks_too_much(pixels: np.ndarray, again: Callable[[], np.ndarray]) -> bool:
    """Whether more than `MAX_MISSING` of a repaired picture is missing.

    Decoders fill missing rows with one colour, but the lower part of a photo may have one colour,
    too. What is missing changes with the bytes that take its place; what is there does not.

    Args:
        pixels: The repaired picture, (height, width, 3).
        again: Returns the same picture, repaired with `FILLING` in place of the missing bytes.
    """
    needed = math.ceil(len(pixels) * (1 - MAX_MISSING))
    if (pixels[needed - 1 :] != pixels[-1, -1]).any():
        return False
    return bool((pixels[:needed] != again()[:needed]).any())


def _png(data: bytes, max_pixels: int) -> bytes | None:
    parts: dict[bytes, list[bytes]] = {}
    for kind, content in _png_chunks(data):
        if kind in _PNG_KEPT:
            parts.setdefault(kind, []).append(content)
    chunks = {kind: b"".join(contents) for kind, contents in parts.items()}
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if width * height > max_pixels:
        return None
    if not _fits(len(chunks.get(b"tRNS", b"")), colour, len(chunks.get(b"PLTE", b"")) // 3):
        chunks.pop(b"tRNS", None)
    passes = _png_passes(width, height, depth * _PNG_CHANNELS[colour], interlaced)
    size = sum(rows * row for rows, row in passes)
    found = _decompressed(chunks[b"IDAT"], size)
    if len(found) < size * (1 - MAX_MISSING):
        return None
    chunks[b"IDAT"] = zlib.compress(_filled(found, passes), 1)
    body = b"".join(_png_chunk(kind, chunks[kind]) for kind in _PNG_KEPT if kind in chunks)
    return _PNG + body + _png_chunk(b"IEND", b"")


def _fits(transparent: int, colour: int, palette: int) -> bool:
    """Whether tRNS may have so many bytes. A palette's has at most one for each of its colours."""
    if colour in _PNG_TRANSPARENT:
        return transparent == _PNG_TRANSPARENT[colour]
    return 0 < transparent <= palette


def _png_passes(width: int, height: int, bits: int, interlaced: int) -> list[tuple[int, int]]:
    """For each pass the number of rows, and the bytes of a row with its filter type."""
    passes = []
    for left, top, across, down in _PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0:
            passes.append((max(0, rows), 1 + (columns * bits + 7) // 8))
    return passes


def _decompressed(compressed: bytes, size: int) -> bytes:
    """As much as possible of a zlib stream, and at most `size` bytes. Its checksum is ignored."""
    stream, found = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    for start in range(2, len(compressed), _PIECE):  # behind the header of two bytes
        if len(found) == size or stream.eof:
            break
        try:
            found += stream.decompress(compressed[start : start + _PIECE], size - len(found))
        except zlib.error:
            break
    return bytes(found)


def _filled(found: bytes, passes: list[tuple[int, int]]) -> bytes:
    """Appends the missing rows. Each of them repeats the one above it (filter type 2)."""
    end = 0
    for rows, row in passes:
        end += rows * row
        missing = max(0, end - len(found))
        found += bytes(missing % row) + (b"\2" + bytes(row - 1)) * (missing // row)
    return found


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


def _jpeg(data: bytes, filling: bytes) -> bytes:
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _SCAN:
            break
        if marker in (0xFF, 0x01):  # any number may stand in front of a marker; one without content
            position += 1 if marker == 0xFF else 2
            continue
        size = struct.unpack_from(">H", data, position + 2)[0]
        if marker not in _JPEG_DROPPED and 2 + size >= _JPEG_SHORTEST.get(marker, 0):
            kept.append(data[position : position + 2 + size])
        position += 2 + size
    rest = data[position:].removesuffix(b"\xff")  # the first half of an end marker
    if damage := _JPEG_DAMAGE.search(rest, 2):
        rest = rest[: damage.start()]
    segments = list(_JPEG_SEGMENT.finditer(rest))
    if segments and segments[-1].end() + int.from_bytes(segments[-1][1].ljust(2, b"\xff")) > len(
        rest
    ):
        rest = rest[: segments[-1].start()]  # a progressive JPEG that ends between two scans
    end = bytes([0xFF, _END])
    return b"".join(kept) + rest + (b"" if rest.endswith(end) else filling + end)


def _gif(data: bytes, max_pixels: int) -> bytes | None:
    """The first image of a GIF, filled with the first colour of its palette."""
    position = 13 + _gif_palette(data[10])
    kept = data[:position]
    while data[position] == _GIF_EXTENSION:
        begin, position = position, _gif_blocks(data, position + 2)[0] + 1
        if data[begin:position].startswith(_GIF_CONTROL):
            kept += data[begin : begin + 7] + b"\0"
    begin = position
    if data[position] != _GIF_IMAGE:
        return None
    width, height, flags = struct.unpack_from("<HHB", data, position + 5)
    if width * height > max_pixels:
        return None
    position, missing = _gif_blocks(data, position + 11 + _gif_palette(flags))
    # Each code of zeros, which has up to 12 bits, is one pixel. There are no more of them than may
    # be missing, so that decoding fails if more is missing.
    blocks = int(width * height * MAX_MISSING * 12 / 8 / 255) + 1
    return kept + data[begin:position] + bytes(missing) + (b"\xff" + bytes(255)) * blocks + b"\0;"


def _gif_palette(flags: int) -> int:
    """The bytes of the palette that `flags` announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks(data: bytes, position: int) -> tuple[int, int]:
    """Where a chain of blocks ends, and how many bytes the last block lacks."""
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return min(position, len(data)), max(0, position - len(data))
