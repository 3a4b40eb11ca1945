"""Loads any picture and turns it into the network's input, for the trainer and the app alike.

Both must see the same pixels, so both call `load_image` and `to_network_input` and nothing else.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from captioner.data.image_repair import FILLING, known_format, lacks_too_much, repaired
from captioner.data.orientation import upright
from captioner.errors import CaptionerError
from captioner.files import LFS_POINTER, NOT_PULLED, remedy

MAX_PIXELS = 64_000_000  # 192 MB as RGB; what phones usually save stays below, bombs do not

# Formats that libraries inside Pillow decode; "JPEG" opens MPO as well. EPS and the like are left
# out because they start other programs, ICO because it is decoded before its size can be checked.
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "PPM",
)

# The network's input for each value of a pixel. It is a table because a compiler may turn a
# division into a product, which differs in the last bit.
NETWORK_INPUT = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)

# The 8-bit value of each 16-bit one. A table takes less memory than the picture in floating point.
_EIGHT_BIT = np.rint(np.arange(65536, dtype=np.float32) / 257).astype(np.uint8)

_PHOTOMETRIC = 262  # TIFF's tag PhotometricInterpretation
_BAND = 256  # rows of a transparent picture that are laid over white at a time

ImageSource = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray


class ImageError(CaptionerError, ValueError):
    """A picture that cannot be used. The message says which, why, and what to do instead.

    The message never contains a folder, only the file's name, so it can be shown to a visitor.
    """


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads any picture as an upright 8-bit RGB image of its own size.

    EXIF orientation is applied. Transparent pictures are laid over white. CMYK, palette, greyscale
    and 16-bit pictures are converted. An animation gives its first frame.

    Damaged files that browsers show are repaired (`image_repair`): damaged metadata is ignored, and
    in a JPEG, PNG, GIF or BMP that is cut short, up to a quarter of the picture may be missing.

    Args:
        source: A path, the bytes of a file, an open binary file, a PIL image, or a uint8 array
            (height, width, 3).
        max_pixels: The most pixels (width times height) that are accepted.

    Returns:
        The image in mode "RGB", without metadata.

    Raises:
        ImageError: `source` is not a picture, or it is cut short, empty or larger than
            `max_pixels`.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    try:
        return _load(source, max_pixels)
    except ImageError as error:
        # If the system is the reason, the file is not damaged.
        again = None if remedy(error.__cause__) else _repaired(source, max_pixels)
        if again is None:
            raise
        return again


def _repaired(source: ImageSource, max_pixels: int) -> Image.Image | None:
    """The picture as `image_repair` restores it; None if it cannot be repaired."""
    data = _content(source)
    if not data:
        return None

    def load(filling: bytes = b"") -> Image.Image:
        mended = repaired(data, max_pixels, filling)
        if mended is None:
            raise ImageError("the picture cannot be repaired.")
        return _load(mended, max_pixels)

    try:
        image = load()
        too_little = lacks_too_much(np.asarray(image), lambda: np.asarray(load(FILLING)))
    except ImageError:
        return None
    return None if too_little else image


def _content(source: Any) -> bytes:
    """All bytes of the file behind `source`; empty if there is none, or none that can be repaired.

    Only such a file is read whole: it might as well be a video that exceeds the memory.
    """
    try:
        if isinstance(source, bytes):
            return source
        if hasattr(source, "read"):
            return _repairable(source)
        if isinstance(source, str | os.PathLike) and Path(source).is_file():
            with Path(source).open("rb") as file:
                return _repairable(file)
    except (OSError, ValueError, MemoryError):  # it was deleted or closed in the meantime
        pass
    return b""


def _repairable(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(64)
    return head + file.read() if isinstance(head, bytes) and known_format(head) else b""


def _load(source: Any, max_pixels: int) -> Image.Image:
    """`load_image` without repairs, for a file or a PIL image."""
    name = "the picture"
    if isinstance(source, bytes):
        if not source:
            raise ImageError(f"{name} is empty. Save or download it again.")
        source = io.BytesIO(source)
    try:
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            raise ImageError(
                "addresses are not fetched. Download the picture, and give the path of its file."
            )
        if isinstance(source, str | os.PathLike):
            name = Path(source).name
            _check_file(Path(source))
        elif isinstance(source, io.TextIOBase):
            raise ImageError(
                f"a text file ({type(source).__name__}) is not a picture. Open files in binary "
                'mode: open(path, "rb").'
            )
        elif not hasattr(source, "read") and not isinstance(source, Image.Image):
            raise ImageError(
                f"a {type(source).__name__} is not a picture. Give a path, the bytes of a file, an "
                "open file, a PIL image or a uint8 array (height, width, 3)."
            )
        if isinstance(source, Image.Image):
            return _to_rgb(source, name, max_pixels)
        with Image.open(source, formats=FORMATS) as image:
            return _to_rgb(image, name, max_pixels)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_too_large(name, max_pixels)) from None
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name} is not a picture this program can read. {_advice(source)}"
        ) from None
    except Exception as error:
        what = remedy(error)
        if isinstance(error, OSError) and error.filename is not None:
            # The system refused the path; the error's own text would show the folder.
            what = f"{what}; it may be whole" if what else "Check the path"
            raise ImageError(f"{name} cannot be opened ({error.strerror}). {what}.") from error
        if what:
            why = getattr(error, "strerror", None) or os.strerror(errno.ENOMEM)
            raise ImageError(f"{name} cannot be read ({why}). {what}; it may be whole.") from error
        # Pillow's decoders report damage with whatever their parsing stumbled over: OSError,
        # SyntaxError, struct.error, ValueError, EOFError, zlib.error, IndexError and more.
        why = f" ({error})" if str(error) else ""
        what = f"is damaged or cut short{why}. Save or download it again"
        if "unsupported" in str(error).lower():
            what = f"is of a kind that cannot be read here{why}. Export it as a PNG or JPEG"
        raise ImageError(f"{name} {what}.") from error


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """An RGB image, resized to uint8 (size, size, 3).

    The whole photo is squeezed into the square, so the network sees all of it and the attention
    maps cover all of it.
    """
    resized = image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(resized)


def to_network_input(image: Image.Image, size: int) -> np.ndarray:
    """`to_square` as float32 (size, size, 3) in -1..1, the range that every backbone takes."""
    return NETWORK_INPUT[to_square(image, size)]


# Files that are often mistaken for pictures: the byte at which their signature begins, the possible
# signatures, and what to do with such a file. HEIC is not in `FORMATS` because a damaged file can
# crash its decoder (libheif 1.23) and the whole program: one of the first 1,000 files that were
# tried with a few bytes changed did so.
_OTHERS = (
    (4, (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1"), "It is a HEIC photo. Export it as a "
     "JPEG; an iPhone takes JPEGs if its camera's format is set to Most Compatible."),
    (4, (b"ftypcrx ",), "It is a camera's raw photo. Export it as a JPEG."),
    (4, (b"ftypM4A ", b"ftypM4B "), "It is a recording of sound. Use a picture."),
    (4, (b"ftyp",), "It is a video. Take a still picture of it."),
    (0, (b"\x1aE\xdf\xa3",), "It is a video. Take a still picture of it."),
    (0, (b"%PDF",), "It is a document (PDF). Export its page as a PNG or JPEG."),
    (0, (b"<svg", b"<?xml", b"<!doctype svg"), "It is a drawing (SVG). Export it as a PNG or "
     "JPEG."),
    (0, (b"<!doctype html", b"<html"), "It is a web page (HTML). Save the picture that it shows, "
     "as a JPEG or PNG."),
    (0, (b"PK\3\4", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf"), "It is an archive. Unpack it, and use "
     "the pictures in it, such as JPEG or PNG files."),
    (0, (b"\xff\n", b"\0\0\0\x0cJXL "), "It is a JPEG XL. Export it as a JPEG or PNG."),
    (0, (b"II*\0", b"MM\0*"), "It is a TIFF or a raw photo that is damaged, or of a kind that "
     "cannot be read here. Export it as a PNG or JPEG."),
    (0, (LFS_POINTER,), f"It {NOT_PULLED}"),
)  # fmt: skip


def _advice(source: Any) -> str:
    """What to do with a file that is not a picture."""
    try:
        if hasattr(source, "read"):
            source.seek(0)
            head = source.read(64)
        else:
            with open(source, "rb") as file:
                head = file.read(64)
    except OSError:
        head = b""
    if (kind := known_format(head)) not in ("", "TIFF"):  # which has kinds of its own
        return f"It is a damaged {kind}. Save or download it again."
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()  # of a web page or a drawing
    for start, signatures, advice in _OTHERS:
        if head[start:].startswith(signatures) or (not start and text.startswith(signatures)):
            return advice
    return (
        "Its content is not that of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file. Save or "
        "download it again, or use another one."
    )


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ImageError(f"{path.name} does not exist or is not a file. Check the path.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path.name} is empty. Save or download it again.")


def _too_large(name: str, max_pixels: int) -> str:
    return f"{name} has more than {max_pixels / 1e6:.0f} million pixels. Make it smaller first."


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = image.size  # known from the header, before a pixel is decoded
    if width == 0 or height == 0:
        raise ImageError(f"{name} has no pixels ({width} x {height}). Use another picture.")
    if width * height > max_pixels:
        raise ImageError(_too_large(name, max_pixels))
    # A picture that has been turned has lost its format and tags.
    is_bitmap, is_inverted, drawn = image.format == "BMP", _is_inverted(image), _drawn(image)
    image = upright(image)
    if image.mode.startswith("I;16"):
        return _from_16_bits(image, is_inverted)
    if image.mode in ("I", "F"):
        return _scaled_to_rgb(_to_byte_range(np.asarray(image, np.float32)))
    if image.mode == "La":  # which can be turned into nothing else
        image = image.convert("LA")
    if is_bitmap and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image = image.convert("RGB")  # programs without transparency leave these bytes empty
    rgb = _over_white(image) if image.has_transparency_data else image.convert("RGB")
    if drawn:
        whole = Image.new("RGB", rgb.size, "white")
        whole.paste(rgb.crop(drawn), drawn[:2])
        rgb = whole
    rgb.info = {}  # otherwise loading this image again would apply its orientation a second time
    return rgb


def _over_white(image: Image.Image) -> Image.Image:
    """A transparent picture, laid over white: band by band, because each step makes one more copy
    of its pixels."""
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        rgb.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return rgb


def _drawn(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the part that a GIF's first frame covers; None if that is all.
    The rest is transparent in browsers; Pillow gives it any colour."""
    tiles = getattr(image, "tile", ())
    if image.format != "GIF" or not tiles or tiles[0][1] == (0, 0, *image.size):
        return None
    return tiles[0][1]


def _is_inverted(image: Image.Image) -> bool:
    """Whether the largest value of a TIFF's pixels stands for black. Pillow itself inverts only
    pictures of 8 bits and fewer."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _from_16_bits(image: Image.Image, is_inverted: bool) -> Image.Image:
    """A grey picture of 16 bits. Pillow's own conversion clips values at 255 and so turns photos
    white, and forgets the transparent value, which becomes white here."""
    values = np.asarray(image)
    grey = _EIGHT_BIT[values]
    if is_inverted:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _to_byte_range(values: np.ndarray) -> np.ndarray:
    """Greyscale (height, width) of an unknown range, scaled to 0..255.

    The largest value tells the ranges 0..1, 8-bit and 16-bit apart. Resampling may lead beyond 1,
    and so may bright lights; but values with fractions are not 8-bit if the largest is small.
    """
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    largest = values.max()
    if largest <= 1.0 or (largest <= 16.0 and (values % 1).any()):
        return values * 255  # what exceeds 255 is clipped
    return values if largest <= 255 else values * (255 / max(largest, 65535.0))


def _scaled_to_rgb(grey: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            f"an array of {array.dtype} {array.shape} is not a picture: it must be uint8 "
            "(height, width, 3)."
        )
    if 0 in array.shape:
        raise ImageError(f"an array of shape {array.shape} has no pixels.")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise ImageError(_too_large("the array", max_pixels))
    return Image.fromarray(array)
