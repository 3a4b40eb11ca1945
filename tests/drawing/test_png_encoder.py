"""PNG files against Pillow's reader."""

import io

import numpy as np
import pytest
from PIL import Image

from captioner.drawing.png_encoder import png_bytes


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (301, 97)])
def test_pillow_reads_the_same_pixels(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    with Image.open(io.BytesIO(png_bytes(Image.fromarray(noise), dpi=300))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", size)
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert np.array_equal(picture, noise)
    with Image.open(io.BytesIO(png_bytes(Image.fromarray(noise), dpi=300))) as picture:
        picture.verify()  # checksums


def test_a_plain_picture_is_small() -> None:
    assert len(png_bytes(Image.new("RGB", (1000, 1000), "white"), dpi=72)) < 20_000
