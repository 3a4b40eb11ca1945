"""Pictures of every kind, their pixels right. Those to refuse: test_images_refused.py."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

import captioner.data.images
from captioner.data.images import load_image, to_network_input

ALONE = os.environ | {"PYTHONPATH": str(Path(captioner.data.images.__file__).parents[2])}

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def pixels(source) -> np.ndarray:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra) -> bytes:
    """A PNG written by hand: kinds, and lies, that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


# ------------------------------------------------------------------ kinds of pixels


@pytest.mark.parametrize(
    "file_format",
    ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "MPO", "AVIF"],
)
def test_every_format_we_promise(photo, file_format: str) -> None:
    if file_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    image = photo()
    found = pixels(encoded(image, file_format))
    assert np.abs(found.astype(int) - np.asarray(image)).mean() < 8


def test_every_format_is_known_to_a_fresh_program(tmp_path: Path) -> None:
    # Pillow learns formats as it goes: what works after some other picture may fail as the first.
    Image.new("RGB", (2, 2), RED).save(tmp_path / "first.webp", lossless=True)
    program = (
        "from captioner.data.images import load_image; "
        "print(load_image('first.webp').getpixel((0, 0)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=ALONE,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(255, 0, 0)\n", done.stderr


@pytest.mark.parametrize("alpha, expected", [(255, RED), (0, WHITE), (51, (255, 204, 204))])
def test_rgba_lies_over_white(alpha: int, expected: tuple) -> None:
    for file_format in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
        data = encoded(Image.new("RGBA", (3, 2), (*RED, alpha)), file_format, **options)
        assert (pixels(data) == expected).all(), file_format


def test_grey_with_alpha_lies_over_white() -> None:
    data = encoded(Image.new("LA", (3, 2), (0, 51)), "PNG")
    assert (pixels(data) == 204).all()


def test_premultiplied_alpha_lies_over_white() -> None:
    image = Image.new("RGBA", (3, 2), (*RED, 51)).convert("RGBa")
    assert np.abs(pixels(image).astype(int) - (255, 204, 204)).max() <= 2


def test_premultiplied_grey_lies_over_white() -> None:
    image = Image.new("LA", (3, 2), (100, 51)).convert("La")
    assert np.abs(pixels(image).astype(int) - 224).max() <= 2


def test_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    for file_format in ("PNG", "GIF"):
        data = encoded(image, file_format, transparency=1)
        assert pixels(data).tolist() == [[list(RED), list(WHITE)]], file_format
    graded = encoded(image, "PNG", transparency=bytes([51, 0]))  # one alpha for each colour
    assert pixels(graded).tolist() == [[[255, 204, 204], list(WHITE)]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_bands_of_a_transparent_picture_fit_together(mode: str) -> None:
    random = np.random.default_rng(0).integers(0, 256, (600, 5, 4), dtype=np.uint8)
    image = Image.fromarray(random)
    if mode != "RGBA":
        image = image.convert("LA" if mode == "LA" else "P")
    if mode == "PA":
        image = image.convert("PA")
    if mode == "P":
        image.info["transparency"] = 7
    layer = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    whole = Image.alpha_composite(white, layer).convert("RGB")
    assert (pixels(image) == np.asarray(whole)).all()


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_a_large_picture_takes_little_memory(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (4000, 4000), 9).save(tmp_path / "large.png")
    program = """if True:
        import re
        from pathlib import Path
        from captioner.data.images import load_image
        def most():
            return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        before = most()
        load_image("large.png")
        print(most() - before)
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=ALONE, capture_output=True, check=True)
    assert int(done.stdout) / 1000 < 180  # MB; the picture itself takes 64 as RGB


def test_one_transparent_colour() -> None:
    image = Image.fromarray(np.array([[RED, BLUE]], np.uint8))
    assert pixels(encoded(image, "PNG", transparency=RED)).tolist() == [[list(WHITE), list(BLUE)]]
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert pixels(encoded(grey, "PNG", transparency=7))[0, :, 0].tolist() == [255, 9]


@pytest.mark.parametrize(
    "ink, expected",
    [
        ((0, 0, 0, 0), WHITE),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 255, 0), (255, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 128), (127, 127, 127)),
    ],
)
def test_cmyk_jpeg(ink: tuple, expected: tuple) -> None:
    data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(pixels(data).astype(int) - expected).max() <= 6


def test_16_bit_grey_keeps_its_tones() -> None:
    grey = np.array([[0, 0x8080, 0xFFFF]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        found = pixels(encoded(Image.fromarray(grey), file_format))
        assert found.tolist() == [[[0] * 3, [128] * 3, [255] * 3]], file_format
    big_endian = Image.fromarray(grey.astype(">u2"))
    assert pixels(big_endian)[0, :, 0].tolist() == [0, 128, 255]
    graymap = b"P5 3 1 65535\n" + grey.astype(">u2").tobytes()
    assert pixels(graymap)[0, :, 0].tolist() == [0, 128, 255]


def test_16_bit_grey_with_a_transparent_value() -> None:
    values = np.array([[0, 30000, 65535]], ">u2")
    data = png(3, 1, 16, 0, b"\0" + values.tobytes(), (b"tRNS", struct.pack(">H", 0)))
    assert pixels(data)[0, :, 0].tolist() == [255, 117, 255]


def test_16_bit_grey_whose_largest_value_is_black() -> None:
    values = np.array([[0, 65535]], np.uint16)
    data = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    place = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data = data[:place] + bytes(2) + data[place + 2 :]
    assert pixels(data)[0, :, 0].tolist() == [255, 0]


def test_a_bitmap_with_an_empty_alpha_channel_is_opaque() -> None:
    header = struct.pack("<IiiHHIIiiII", 124, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    start = struct.pack("<IHHI", 138 + 8, 0, 0, 138)
    colours = bytes([30, 20, 10, 0, 60, 50, 40, 0])
    data = b"BM" + start + (header + masks).ljust(124, b"\0") + colours
    assert pixels(data).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_a_gif_whose_first_frame_is_smaller_lies_on_white() -> None:
    data = encoded(Image.new("RGB", (4, 3), (10, 200, 30)), "GIF")
    found = pixels(data[:6] + struct.pack("<HH", 6, 5) + data[10:])
    assert found.shape == (5, 6, 3)
    assert found[2, 3].tolist() == [10, 200, 30] and (found[3:] == 255).all()
    assert (found[:, 4:] == 255).all()


def test_16_bit_colour_keeps_its_tones() -> None:
    row = b"\0" + struct.pack(">3H", 0, 0x8080, 0xFFFF)
    assert pixels(png(1, 1, 16, 2, row)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-0.1, 0.5, 1.2]], np.float32), [0, 128, 255]),  # resampled, and so overshot
        (np.array([[0.0, 0.5, 4.0]], np.float32), [0, 128, 255]),  # a bright light
        (np.array([[0.0, 2.0, 4.0]], np.float32), [0, 2, 4]),  # a dark 8-bit picture
        (np.array([[0.0, 128.0, 255.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 32896.0, 65535.0]], np.float32), [0, 128, 255]),
        (np.array([[-5.0, np.nan, 200.0]], np.float32), [0, 0, 200]),
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 502_000, 1_000_000]], np.int32), [0, 128, 255]),
    ],
)
def test_32_bit_tiff(values: np.ndarray, expected: list[int]) -> None:
    data = encoded(Image.fromarray(values), "TIFF")
    assert Image.open(io.BytesIO(data)).mode in ("I", "F")
    assert pixels(data)[0, :, 0].tolist() == expected


def test_one_bit_palette_and_grey() -> None:
    checks = Image.fromarray(np.array([[True, False]]))
    assert pixels(encoded(checks, "PNG"))[0, :, 0].tolist() == [255, 0]
    palette = Image.new("P", (1, 1))
    palette.putpalette([10, 20, 30])
    assert pixels(encoded(palette, "PNG")).tolist() == [[[10, 20, 30]]]
    assert pixels(encoded(Image.new("L", (1, 1), 99), "PNG")).tolist() == [[[99, 99, 99]]]


def test_lab_has_a_channel_a_but_no_alpha() -> None:
    lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (128, 128, 128)])
    found = pixels(lab)
    assert np.abs(found.astype(int) - 119).max() <= 3  # L* = 50 with neither a* nor b*


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_first_of_several_frames(file_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.abs(pixels(data).astype(int) - RED).max() <= 2


# ------------------------------------------------------------------ sources, network input


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_the_same_picture_from_any_source_is_the_same_input(
    tmp_path: Path, photo, file_format: str
) -> None:
    data = encoded(photo(width=640, height=480), file_format)
    path = tmp_path / "photo"
    path.write_bytes(data)
    with path.open("rb") as file, Image.open(path) as image:
        file.seek(10)  # as if the file had been read before
        sources = [str(path), path, data, file, image, np.array(Image.open(path))]
        inputs = [to_network_input(load_image(source), 299) for source in sources]
        assert not file.closed, "a file that the caller opened is the caller's to close"
    for other in inputs[1:]:
        np.testing.assert_array_equal(inputs[0], other)


def test_arrays_of_any_layout() -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for view in (array[::2, ::-1], np.asfortranarray(array), np.flip(array)):
        np.testing.assert_array_equal(pixels(view), view)
    array.setflags(write=False)
    np.testing.assert_array_equal(pixels(array), array)


def test_the_callers_picture_is_left_alone() -> None:
    image = Image.new("RGB", (4, 4), RED)
    load_image(image).putpixel((0, 0), BLUE)
    assert image.getpixel((0, 0)) == RED
    array = np.zeros((4, 4, 3), np.uint8)
    loaded = load_image(array)
    array[:] = 255
    assert loaded.getpixel((0, 0)) == (0, 0, 0)


def test_network_input() -> None:
    array = np.zeros((30, 90, 3), np.uint8)
    array[:, 60:] = (255, 0, 255)  # the right third
    found = to_network_input(load_image(array), 299)
    assert found.shape == (299, 299, 3)
    assert found.dtype == np.float32
    assert found.min() == -1 and found.max() == 1
    assert (found[:, :190] == -1).all(), "the left two thirds stay left, whole and black"
    assert (found[:, 210:] == (1, -1, 1)).all(), "channels last, red first"
    assert to_network_input(load_image(array), size=75).shape == (75, 75, 3)
    grey = to_network_input(Image.new("RGB", (10, 10), (51, 102, 204)), 299)
    np.testing.assert_allclose(grey[5, 5], [-0.6, -0.2, 0.6], atol=1e-6)


def test_fine_patterns_are_averaged_not_picked_from() -> None:
    checkerboard = np.indices((1200, 1200)).sum(axis=0) % 2 * 255
    image = Image.fromarray(checkerboard.astype(np.uint8)).convert("RGB")
    assert np.abs(to_network_input(image, 299)).max() < 0.02


@pytest.mark.parametrize("width, height", [(1, 1), (50_000, 1), (1, 50_000), (3, 2000)])
def test_extreme_shapes(width: int, height: int) -> None:
    found = to_network_input(load_image(Image.new("RGB", (width, height), RED)), 299)
    assert (found == (1, -1, -1)).all()


def test_a_loaded_image_can_be_loaded_again(tmp_path, photo):
    """The orientation was applied already: the second time must leave the pixels alone."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    photo(1, 40, 20).save(tmp_path / "turned.jpg", exif=exif)
    once = load_image(tmp_path / "turned.jpg")
    assert once.size == (20, 40)
    np.testing.assert_array_equal(np.asarray(load_image(once)), np.asarray(once))
