"""Finds the EXIF orientation of a picture as browsers do, however broken its other metadata is."""

from __future__ import annotations

import struct

from PIL import ExifTags, Image

_UPRIGHT = {  # EXIF orientation -> the operation that turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_VALUE = {3: "H", 4: "I"}  # how a number is stored, by the type of its entry
_WITHOUT = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP")


def upright(image: Image.Image) -> Image.Image:
    """Like Pillow's `exif_transpose`, except that a picture with broken EXIF data is still used.

    Pillow loses the orientation if an entry before it is broken, and takes one from XMP, which
    browsers ignore.
    """
    image.load()  # damaged pixels are an error
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """From 1 to 8; also another number, which means nothing."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        return _orientation_in(exif)
    if image.format in _WITHOUT:
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the EXIF parser raises errors of many kinds
        return 1


def _orientation_in(exif: bytes) -> int:
    """The orientation in the first directory of EXIF data, or 1."""
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", data, place)
            if tag == ExifTags.Base.Orientation and kind in _VALUE:
                return struct.unpack_from(f"{order}{_VALUE[kind]}", data, place + 8)[0]
    except struct.error:  # it is cut short
        pass
    return 1
