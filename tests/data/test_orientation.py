"""Photos are turned upright as browsers turn them, however broken their metadata is."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_images import encoded, pixels

from captioner.data.images import load_image


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels as a camera stores them. The standard defines the tag by where the stored row 0
    and column 0 are seen: 1 top left, 2 top right, 3 bottom right, 4 bottom left, then with rows
    and columns exchanged 5 left top, 6 right top, 7 right bottom, 8 left bottom."""
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    return upright.transpose(1, 0, 2) if orientation >= 5 else upright


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photo, file_format: str, orientation: int) -> None:
    upright = np.asarray(photo())
    image = Image.fromarray(np.ascontiguousarray(stored(upright, orientation)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(image, file_format, exif=exif, **options)
    np.testing.assert_array_equal(pixels(data), upright)
    np.testing.assert_array_equal(load_image(load_image(data)), upright, "and not turned twice")


def test_exif_orientation_of_a_jpeg(tmp_path: Path, photo) -> None:
    upright = photo(width=64, height=32)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.jpg"
    turned = Image.fromarray(np.ascontiguousarray(stored(np.asarray(upright), 6)))
    turned.save(path, quality=95, exif=exif)
    with Image.open(path) as image:
        assert image.size == (32, 64)
    assert np.abs(pixels(path).astype(int) - np.asarray(upright)).mean() < 4


def test_orientation_of_a_16_bit_picture() -> None:
    grey = np.zeros((4, 6), np.uint16)
    grey[0, 0] = 65535
    data = encoded(Image.fromarray(grey), "TIFF", tiffinfo={0x0112: 6})
    assert np.argwhere(pixels(data)[:, :, 0]).tolist() == [[0, 3]]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_cost_good_pixels(photo, file_format: str) -> None:
    for exif in (b"Exif\0\0no such thing", b"Exif\0\0MM\0*", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        data = encoded(photo(), file_format, exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow remarks on the damage
            assert pixels(data).shape == (32, 48, 3)


@pytest.mark.filterwarnings("ignore")  # Pillow remarks on the damage
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_orientation_behind_broken_exif_entries(file_format: str) -> None:
    entry = struct.pack(">HHII", 0x010E, 2, 0xFFFFFFFF, 8)  # a description without an end
    turned = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + entry + turned
    image = Image.new("RGB", (40, 20))
    assert load_image(encoded(image, file_format, exif=exif)).size == (20, 40)
    assert load_image(encoded(image, file_format, exif=exif[:26])).size == (40, 20)  # cut short


def test_browsers_take_no_orientation_from_xmp() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for file_format in ("JPEG", "WEBP", "AVIF"):
        data = encoded(Image.new("RGB", (40, 20)), file_format, xmp=xmp)
        assert load_image(data).size == (40, 20)
