"""What is no usable picture is refused in words that help and give no folder away."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_images import ALONE, encoded, png

from captioner.data.images import ImageError, load_image, to_network_input


def refusal(source, **options) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    return str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    for name, reason in {
        "missing.jpg": "does not exist",
        "folder.jpg": "not a file",
        "dangling.jpg": "does not exist",
        "empty.jpg": "empty",
        "x" * 300 + ".jpg": "cannot be opened",
        "no\0name.jpg": "does not exist",
    }.items():
        message = refusal(tmp_path / name)
        assert name in message and reason in message
        assert tmp_path.name not in message
    assert "empty" in refusal(b"")


class Flaky(io.BytesIO):
    """A file on a disk that fails behind its first bytes."""

    def __init__(self, content: bytes, fault: BaseException) -> None:
        super().__init__(content)
        self.fault = fault

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() + (len(self.getbuffer()) if size in (-1, None) else size) > 200:
            raise self.fault
        return super().read(size)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "(Input/output error). Check the disk"),
        (OSError(errno.ESTALE, "Stale file handle"), "(Stale file handle). Connect the network"),
        (OSError(errno.ENODATA, "No data available"), "(No data available). Put that right"),
        (MemoryError(), "(Cannot allocate memory). Close other programs"),
    ],
)
def test_a_fault_of_the_system_is_no_damage(photo, fault: BaseException, reason: str) -> None:
    message = refusal(Flaky(encoded(photo(0, 64, 64), "PNG"), fault))
    assert message.startswith("the picture cannot be read") and reason in message
    assert message.endswith("it may be whole.") and "damaged" not in message


def test_too_many_open_files_are_not_the_path_s_fault(
    photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo().save(tmp_path / "photo.png")

    def full(path: object, *more: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr("builtins.open", full)
    message = refusal(tmp_path / "photo.png")
    monkeypatch.undo()
    assert "photo.png cannot be opened (Too many open files). Raise the limit" in message
    assert "Check the path" not in message and tmp_path.name not in message


def test_a_file_we_may_not_read(tmp_path: Path, photo) -> None:
    path = tmp_path / "private.jpg"
    photo().save(path)
    path.chmod(0)
    as_root = os.geteuid() == 0
    try:
        if as_root:
            os.seteuid(65534)  # nothing is forbidden to root
        message = refusal(path)
    finally:
        if as_root:
            os.seteuid(0)
    assert "private.jpg cannot be opened (Permission denied). Let your user read it" in message
    assert tmp_path.name not in message


@pytest.mark.parametrize(
    "content",
    [
        b"Only text, whatever the name says.\n" * 20,
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
        b"\0",
    ],
)
def test_files_that_are_not_pictures(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "renamed.jpg"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith("renamed.jpg is not a picture") and "JPEG" in message
    assert "is not a picture" in refusal(content)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIC photo. Export it as a JPEG"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "a video. Take a still picture"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\1webm", "a video. Take a still picture"),
        (b"%PDF-1.7\n", "a document (PDF). Export its page as a PNG"),
        (b"<?xml version='1.0'?><svg/>", "a drawing (SVG). Export it as a PNG"),
    ],
)
def test_files_that_are_often_taken_for_pictures(
    tmp_path: Path, content: bytes, advice: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    for source in (tmp_path / "file", content, io.BytesIO(content)):
        assert advice in refusal(source)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_files_cut_short(tmp_path: Path, photo, file_format: str) -> None:
    data = encoded(photo(width=200, height=200), file_format)
    path = tmp_path / "half"
    path.write_bytes(data[: len(data) // 2])
    message = refusal(path)
    assert message.startswith("half is damaged or cut short")
    assert tmp_path.name not in message


def test_arrays_that_are_not_pictures() -> None:
    good = np.zeros((4, 5, 3), np.uint8)
    for dtype in (np.float32, np.int64, np.int8, np.uint16, bool, object):
        assert "uint8 (height, width, 3)" in refusal(good.astype(dtype))
    for shape in ((4, 5), (4, 5, 1), (4, 5, 4), (3,), (1, 4, 5, 3), ()):
        assert "uint8 (height, width, 3)" in refusal(np.zeros(shape, np.uint8))
    for shape in ((0, 5, 3), (5, 0, 3), (0, 0, 3)):
        assert "no pixels" in refusal(np.zeros(shape, np.uint8))
    assert "no pixels" in refusal(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("source", [None, 3, [1, 2, 3], {"path": "x.jpg"}])
def test_things_that_are_no_source_at_all(source) -> None:
    message = refusal(source)
    assert type(source).__name__ in message and "path" in message


def test_the_pixel_limit_is_exact() -> None:
    for source in (Image.new("RGB", (10, 11)), np.zeros((11, 10, 3), np.uint8)):
        assert load_image(source, max_pixels=110).size == (10, 11)
        assert "pixels" in refusal(source, max_pixels=109)


BOMBS = """
import resource, sys, time
from pathlib import Path
from captioner.data.images import ImageError, load_image
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
for path in sorted(Path.cwd().glob("bomb*")):
    try:
        load_image(path)
    except ImageError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.monotonic() - start)
"""


def test_decompression_bombs_are_refused_by_their_headers(tmp_path: Path) -> None:
    # Sizes on all sides of Pillow's own two limits, which are higher than ours.
    for side in (20_000, 13_000, 9_500, 8_100):
        rows = bytes(4_000_000)  # decoding would begin
        (tmp_path / f"bomb{side}.png").write_bytes(png(side, side, 8, 0, rows))
    bitmap = encoded(Image.new("RGB", (1, 1)), "BMP")
    huge = bitmap[:18] + struct.pack("<ii", 20_000, 20_000) + bitmap[26:]
    (tmp_path / "bomb.bmp").write_bytes(huge)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BOMBS],
        cwd=tmp_path,
        env=ALONE,
        capture_output=True,
        text=True,
        check=True,
    )
    *messages, figures = done.stdout.splitlines()
    assert len(messages) == 5
    for message in messages:
        assert "has more than 64 million pixels" in message
    kilobytes, seconds = map(float, figures.split())
    assert kilobytes < 20_000 and seconds < 2


def test_icons_are_refused_unopened(tmp_path: Path) -> None:
    # Pillow decodes an icon's inner picture as it opens it, whatever size the header gave.
    inner = encoded(Image.new("L", (64, 64)), "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    path = tmp_path / "bomb.ico"
    path.write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inner)
    assert "is not a picture" in refusal(path)


def test_damaged_pictures_raise_nothing_but_image_error(photo) -> None:
    formats = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"]
    image = photo(width=40, height=30)
    originals = [encoded(image, name) for name in formats]
    originals.append(encoded(image, "TIFF", compression="tiff_lzw"))
    originals.append(encoded(image, "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08"))
    random = np.random.default_rng(0)
    outcomes = {"loaded": 0, "refused": 0}
    for i in range(300):
        data = bytearray(originals[i % len(originals)])
        if i % 3 == 0:
            del data[random.integers(1, len(data)) :]
        head = min(len(data), 200)  # structure is at the front
        for where in random.integers(0, head if i % 2 else len(data), random.integers(1, 8)):
            data[where] ^= 1 << int(random.integers(8))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as when the app runs
                found = to_network_input(load_image(bytes(data), max_pixels=1_000_000), 75)
        except ImageError as error:
            assert str(error)
            outcomes["refused"] += 1
        else:
            assert np.isfinite(found).all()
            outcomes["loaded"] += 1
    assert min(outcomes.values()) > 30, outcomes


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf", "It is a damaged AVIF. Save or"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf", "It is a damaged AVIF. Save or"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "It is a HEIC photo."),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "It is a camera's raw photo. Export it as"),
        (b"\0\0\0\x18ftypM4A \0\0\0\0M4A isom", "It is a recording of sound."),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "It is a video."),
        (b"version https://git-lfs.github.com/spec/v1\n", "Run `git lfs pull`."),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>", "It is a web page (HTML). Save the picture"),
        (b"PK\3\4", "It is an archive. Unpack it"),
        (b"\xff\n", "It is a JPEG XL. Export it"),
        (b"\x89PNG\n\x1a\n", "It is a damaged PNG. Save or download it again."),
        (b"GIF89a", "It is a damaged GIF."),
        (b"RIFF\0\0\0\0WEBP", "It is a damaged WebP."),
        (b"II*\0", "or of a kind that cannot be read here. Export it as a PNG or JPEG."),
        (b"", "Its content is not that of a JPEG"),
    ],
)
def test_what_else_it_is(tmp_path: Path, head: bytes, advice: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(head + bytes(1000))
    assert advice in refusal(tmp_path / "photo.jpg")
    assert advice in refusal(io.BytesIO(head + bytes(1000)))


def test_a_kind_of_bitmap_that_cannot_be_read_is_not_called_damaged() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 2, 0, 4, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 74, 0, 0, 70) + header + bytes(20)
    assert "cannot be read here (Unsupported BMP pixel depth (2)). Export it" in refusal(data)


def test_what_cannot_be_repaired_is_not_read_whole(tmp_path: Path) -> None:
    """A video may exceed the memory."""
    with (tmp_path / "film.mp4").open("wb") as film:
        film.write(b"\0\0\0\x18ftypisom")
        film.truncate(1 << 40)  # 1 TB, of which nothing is on the disk
    assert "It is a video" in refusal(tmp_path / "film.mp4")
    with (tmp_path / "film.mp4").open("rb") as film:
        assert "It is a video" in refusal(film)
    assert "(StringIO) is not a picture" in refusal(io.StringIO("text"))
    with open(__file__, encoding="utf-8") as file:
        assert 'Open files in binary mode: open(path, "rb")' in refusal(file)


def test_colours_in_floating_point_are_refused_with_a_way_out(tmp_path: Path) -> None:
    header = b"II*\0" + struct.pack("<I", 8)
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 32), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 200), (277, 3, 1, 3), (278, 4, 1, 1), (279, 4, 1, 12), (339, 3, 1, 3)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    data = (header + body + bytes(4)).ljust(200, b"\0") + struct.pack("<3f", 0.1, 0.5, 0.9)
    (tmp_path / "photo.tif").write_bytes(data)
    assert "Export it as a PNG or JPEG." in refusal(tmp_path / "photo.tif")
