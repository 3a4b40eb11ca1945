"""What every browser shows is captioned: metadata never decides, and a missing tail is filled."""

from __future__ import annotations

import io
import struct
import warnings
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


ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
INTERLACED = b"".join(
    b"\0" + row.tobytes() for x, y, across, down in PASSES for row in PIXELS[y::down, x::across]
)


def png(extra: bytes = b"", wrong: int = 0, stream: bytes = b"", interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, interlaced)
    stream = stream or zlib.compress(INTERLACED if interlaced else ROWS)
    pixels = chunk(b"IDAT", stream, wrong)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def jpeg(**options: object) -> bytes:
    return encoded(PIXELS, "JPEG", quality=95, **options)


def encoded(pixels: np.ndarray, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
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
        png(stream=zlib.compress(ROWS)[:-4] + b"\0\0\0\0"),
        png(chunk(b"tRNS", b"\0")),
        png(chunk(b"tEXt", b"Software\0x", wrong=1), interlaced=True),
        png(interlaced=True)[:-12],
    ],
    ids=[
        *("profile", "text", "text's sum", "density's sum", "compression", "gamma", "sum", "end"),
        *("stream's sum", "transparency", "interlaced", "interlaced, end"),
    ],
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
    for name, whole in (
        ("a.jpg", jpeg()),
        ("a.png", png()),
        ("a.gif", encoded(PIXELS, "GIF", interlace=0)),
        ("a.bmp", encoded(PIXELS, "BMP")),
    ):
        path = tmp_path / name
        path.write_bytes(whole[: len(whole) * 9 // 10])
        found = np.asarray(load_image(path), int)
        there = (
            slice(SIZE // 2, None) if name == "a.bmp" else slice(SIZE // 2)
        )  # the last row first
        assert np.abs(found - PIXELS)[there].mean() < 10, "what is there is as it was"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ImageError, match=f"{name} is damaged or cut short"):
            load_image(path)


def test_files_that_refine_the_whole_picture_bit_by_bit() -> None:
    whole = {
        "between two scans": jpeg(progressive=True),
        "in the last pass": png(interlaced=True),
        "in the last rows": encoded(PIXELS, "GIF", interlace=1),
    }
    for name, data in whole.items():
        found = np.asarray(load_image(data[: len(data) * 9 // 10]), int)
        assert np.abs(found - PIXELS).mean() < 25, name


def test_the_end_of_a_plain_area_is_not_taken_for_missing() -> None:
    plain = PIXELS.copy()
    plain[SIZE // 2 :] = 255  # as in a photo of a product
    whole = encoded(plain, "JPEG", quality=95)
    for missing in (1, 2, 3):
        found = np.asarray(load_image(whole[:-missing]), int)
        assert np.abs(found - plain).mean() < 10
    first = whole.index(b"\xff\xda")
    with pytest.raises(ImageError, match="damaged or cut short"):
        load_image(whole[: first + (len(whole) - first) // 3])


def test_a_jpeg_that_is_damaged_inside() -> None:
    whole, plain = jpeg(), np.asarray(load_image(jpeg()), int)
    first = whole.index(b"\xff\xda")
    for share, is_shown in ((0.9, True), (0.3, False)):
        where = first + int((len(whole) - first) * share)
        data = whole[:where] + b"\xff\x3f" * 4 + whole[where + 8 :]
        if is_shown:
            found = np.asarray(load_image(data), int)
            assert np.array_equal(found[: SIZE // 2], plain[: SIZE // 2])
        else:
            with pytest.raises(ImageError, match="damaged or cut short"):
                load_image(data)


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
    short = b"\xff\xe0" + struct.pack(">H", 2 + 5) + b"JFIF\0"
    adobe = b"\xff\xee" + struct.pack(">H", 2 + 5) + b"Adobe"
    for data in (short + whole[20:], adobe + whole[2:]):
        assert np.abs(np.asarray(load_image(whole[:2] + data), int) - PIXELS).mean() < 20


def test_a_png_of_many_small_chunks_is_repaired_once_and_not_again_for_each() -> None:
    """100,000 chunks took half a minute when what was found before was copied for each."""
    stream = zlib.compress(ROWS) + bytes(100_000 * 100)  # what follows the pixels is no use
    chunks = b"".join(chunk(b"IDAT", stream[i : i + 100]) for i in range(0, len(stream), 100))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tEXt", b"S\0x", wrong=1)
    assert np.array_equal(np.asarray(load_image(data + chunks)), PIXELS)


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


WEBP = encoded(PIXELS, "WEBP", lossless=True)
VP8L = (b"VP8L", WEBP[20 : 20 + struct.unpack("<I", WEBP[16:20])[0]])
EXTENDED = (b"VP8X", struct.pack("<I", 0x0C) + struct.pack("<I", SIZE - 1)[:3] * 2)
XMP = (b"XMP ", b"<x:xmpmeta/>" * 500)


@pytest.mark.parametrize(
    "data",
    [
        riff(EXTENDED, VP8L, XMP)[:-1000],
        riff(VP8L, size=0),
        riff(VP8L, size=len(WEBP) + 1000),
        encoded(
            PIXELS,
            "WEBP",
            lossless=True,
            save_all=True,
            append_images=[Image.new("RGB", (SIZE, SIZE))],
        )[:-9],
    ],
    ids=["metadata", "size of 0", "size too large", "second frame"],
)
def test_a_webp_whose_first_frame_is_whole(data: bytes) -> None:
    assert np.array_equal(np.asarray(load_image(data)), PIXELS)


def test_a_repaired_webp_keeps_its_orientation_and_its_transparency() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({"lossless": True}, {"quality": 95}):
        clear = Image.fromarray(PIXELS[:32]).convert("RGBA")
        clear.putalpha(Image.fromarray(np.where(PIXELS[:32, :, 0] > 128, 255, 0).astype(np.uint8)))
        file = io.BytesIO()
        clear.save(file, "WEBP", exif=exif, **options)
        whole = file.getvalue()
        found = load_image(whole[:4] + bytes(4) + whole[8:])  # its size is missing
        assert np.array_equal(np.asarray(found), np.asarray(load_image(whole)))
        assert found.size == (32, 64)


def test_an_avif_with_broken_exif() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    whole = encoded(PIXELS[:32], "AVIF", exif=exif)
    assert b"MM\0*" in whole
    found = load_image(whole.replace(b"MM\0*", b"junk"))
    assert np.array_equal(np.asarray(found), np.asarray(load_image(whole)))


def test_a_tiff_with_a_broken_tag() -> None:
    whole = encoded(PIXELS, "TIFF", tiffinfo={0x0112: 6, 270: "a long description"})
    tag = whole.index(struct.pack("<HH", 270, 2)) + 8
    broken = whole[:tag] + b"\xff\xff\xff\x7f" + whole[tag + 4 :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow remarks on the damage
        assert np.array_equal(np.asarray(load_image(broken)), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    "extension",
    [b"\x21\xf9\2ab\0", b"\x21\xff\0", b"\x21\xff\x0bNETSCAPE2.0\0", b"\x21\xfe\0"],
    ids=["control", "application", "loop", "comment"],
)
def test_a_gif_with_a_broken_extension(extension: bytes) -> None:
    picture = Image.fromarray(PIXELS).quantize(64)
    file = io.BytesIO()
    picture.save(file, "GIF", transparency=picture.getpixel((0, 0)))
    whole = file.getvalue()
    start = 13 + 3 * 64
    found = load_image(whole[:start] + extension + whole[start:])
    assert np.array_equal(np.asarray(found), np.asarray(load_image(whole)))


def test_more_transparent_colours_than_colours() -> None:
    header = struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", bytes(30))
    data += chunk(b"tRNS", bytes(300)) + chunk(b"IDAT", zlib.compress(bytes(20)))
    assert np.asarray(load_image(data + chunk(b"IEND", b""))).max() == 0


def test_a_second_jpeg_in_place_of_the_end_of_the_first() -> None:
    whole = jpeg()
    found = np.asarray(load_image(whole[:-2] + whole), int)
    assert np.abs(found - np.asarray(load_image(whole), int))[: SIZE // 2].max() == 0
