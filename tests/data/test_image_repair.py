"""What every browser shows is captioned: metadata never decides, and a missing tail is filled."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.data.images import ImageError, load_image

SIZE = 64
PIXELS = np.kron(
    np.random.default_rng(0).integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1), int)
).astype(np.uint8)


def chunk(kind: bytes, content: bytes, wrong: int = 0) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content) ^ wrong)
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(extra: bytes = b"", wrong: int = 0) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows), wrong)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        png(chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * 2_000_000))),
        png(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000))),
        png(chunk(b"tEXt", b"Software\0x", wrong=1)),
        png(chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1), wrong=1)),
        png(chunk(b"iCCP", b"p\0\1x")),
        png(chunk(b"gAMA", b"")),
        png(wrong=1),
        png()[:-12],
    ],
    ids=["profile", "text", "text's sum", "density's sum", "compression", "gamma", "sum", "end"],
)
def test_a_png_whose_pixels_are_whole(data: bytes) -> None:
    assert np.array_equal(np.asarray(load_image(data)), PIXELS)


@pytest.mark.parametrize("missing", [1, 2, 3])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes(missing: int, progressive: bool) -> None:
    whole = jpeg(progressive=progressive)
    expected = np.asarray(load_image(whole), int)
    found = np.asarray(load_image(whole[:-missing]), int)
    assert np.abs(found - expected)[: SIZE * 3 // 4].max() <= 40


def test_up_to_a_quarter_of_the_rows_is_filled(tmp_path: Path) -> None:
    for name, whole in (("a.jpg", jpeg()), ("a.png", png())):
        path = tmp_path / name
        path.write_bytes(whole[: len(whole) * 9 // 10])
        found = np.asarray(load_image(path), int)
        assert np.abs(found - PIXELS)[: SIZE // 2].mean() < 10, "what is there is as it was"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ImageError, match=f"{name} is damaged or cut short"):
            load_image(path)


def test_the_orientation_is_kept_and_the_limit_holds() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    file = io.BytesIO()
    Image.fromarray(PIXELS[:32]).save(file, "JPEG", exif=exif)
    assert load_image(file.getvalue()[:-2]).size == (32, 64)
    with pytest.raises(ImageError, match="million pixels"):
        load_image(png(wrong=1), max_pixels=SIZE * SIZE - 1)


def test_photos_behind_comments_and_odd_segments() -> None:
    whole = jpeg()
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 40_000) + b"x" * 40_000
    profile = b"\xff\xe2" + struct.pack(">H", 2 + 14) + b"ICC_PROFILE\0\xff\xff"
    data = whole[:2] + comment + profile + whole[2:-2]
    assert np.abs(np.asarray(load_image(data), int) - PIXELS).mean() < 20
