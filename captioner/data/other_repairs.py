"""Rewrites WebP, AVIF and TIFF files without the metadata that keeps Pillow from opening them.

WebP: https://developers.google.com/speed/webp/docs/riff_container; AVIF and its boxes: ISO/IEC
14496-12; TIFF: TIFF 6.0, Adobe 1992. If the pixels themselves are cut short, nothing is repaired:
Chromium shows such a WebP or AVIF as an empty area, and it shows no TIFF.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_ALPHA_FLAG, _EXIF_FLAG = 0x10, 0x08
_FRAME_HEADER = 16  # bytes of an animation's frame in front of its own chunks
# An entry of a list of items, its fields up to the type: the item holds EXIF data.
_EXIF_ITEM = re.compile(
    rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})Exif", re.DOTALL
)  # version, flags, number, protection
# The tags of a TIFF that determine its pixels, and the orientation.
_TIFF_KEPT = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324,
     325, 332, 338, 339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532)
)  # fmt: skip


def repaired_webp(data: bytes) -> bytes | None:
    """The first frame of a WebP, with its orientation. The size in the file's header is ignored."""
    pixels, alpha, exif, size = b"", b"", b"", (0, 0)
    for kind, content in _chunks(data, 12):
        if kind == b"ANMF" and not pixels:
            frame = dict(_chunks(content, _FRAME_HEADER))
            alpha = frame.get(b"ALPH", b"")
            kind = next(k for k in (b"VP8 ", b"VP8L", kind) if k in frame or k == b"ANMF")
            content = frame.get(kind, b"")
        if kind in (b"VP8 ", b"VP8L") and not pixels:
            pixels = _chunk(kind, content)
            size = _webp_size(kind, content)
        elif kind == b"ALPH" and not pixels:
            alpha = content
        elif kind == b"EXIF":
            exif = content
    if not pixels:
        return None
    flags = _ALPHA_FLAG * bool(alpha) | _EXIF_FLAG * bool(exif)
    header = struct.pack("<I", flags) + b"".join(struct.pack("<I", n - 1)[:3] for n in size)
    body = _chunk(b"VP8X", header) if flags else b""
    body += _chunk(b"ALPH", alpha) if alpha else b""
    body += pixels
    body += _chunk(b"EXIF", exif) if exif else b""
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _chunks(data: bytes, position: int) -> Iterator[tuple[bytes, bytes]]:
    """The type and the content of each chunk that is whole."""
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, position)
        if position + 8 + size > len(data):
            return
        yield kind, data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _webp_size(kind: bytes, content: bytes) -> tuple[int, int]:
    """The width and the height in the header of a frame."""
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", content, 1)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 6)
    return width & 0x3FFF, height & 0x3FFF


def repaired_avif(data: bytes) -> bytes | None:
    """An AVIF whose EXIF data is not read. The orientation does not depend on it."""
    found = _EXIF_ITEM.sub(rb"\1free", data)
    return None if found == data else found


def repaired_tiff(data: bytes) -> bytes | None:
    """The first page of a TIFF without the tags that do not affect its pixels."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    kept = [
        e for e in entries if len(e) == 12 and struct.unpack(f"{order}H", e[:2])[0] in _TIFF_KEPT
    ]
    if len(kept) == len(entries):
        return None
    place = len(data) + len(data) % 2
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:4] + struct.pack(f"{order}I", place) + data[8:].ljust(place - 8, b"\0") + directory
