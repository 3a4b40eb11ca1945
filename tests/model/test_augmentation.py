"""Crops, mirror images and colours that the device makes, beside Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance

from captioner.data.images import NETWORK_INPUT
from captioner.data.views import AREA, ASPECT
from captioner.model.augmentation import augmented, draw, network_input

SIZE = 40
AS_IT_IS = (0, 0, 1, 1, 0, 1, 1, 1)


@pytest.fixture(scope="module")
def picture(photo) -> Image.Image:
    return photo(1, SIZE, SIZE)


def seen(picture: Image.Image, *ways: tuple[float, ...]) -> np.ndarray:
    """The picture shown in each of `ways`, as values of pixels."""
    photos = np.stack([np.asarray(picture)] * len(ways))
    x = ops.convert_to_numpy(augmented(ops.convert_to_tensor(photos), np.array(ways, np.float32)))
    assert x.dtype == np.float32 and x.min() >= -1 and x.max() <= 1
    return (x + 1) * 127.5


def test_a_photo_as_it_is_stays_as_it_is(picture) -> None:
    pixels = np.asarray(picture)
    plain = network_input(ops.convert_to_tensor(pixels[None]))
    np.testing.assert_array_equal(ops.convert_to_numpy(plain)[0], NETWORK_INPUT[pixels])
    np.testing.assert_allclose(seen(picture, AS_IT_IS)[0], pixels, atol=1e-2)


def test_crops_and_mirror_images_are_pillow_s(picture) -> None:
    top, left, height, width = 0.2, 0.1, 0.5, 0.75
    box = tuple(SIZE * share for share in (left, top, left + width, top + height))
    wanted = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    crop = (top, left, height, width)
    upright, turned = seen(picture, (*crop, 0, 1, 1, 1), (*crop, 1, 1, 1, 1))
    inner = np.s_[2:-2, 2:-2]  # at its edges Pillow does not look beyond the box
    # It rounds twice, once in each direction.
    np.testing.assert_allclose(upright[inner], np.asarray(wanted)[inner], atol=1.01)
    np.testing.assert_allclose(turned, upright[:, ::-1], atol=1e-2)


@pytest.mark.parametrize(
    "enhance", [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
)
def test_colours_are_pillow_s(picture, enhance) -> None:
    place = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color].index(enhance)
    for factor in (0.8, 1.2):
        how = list(AS_IT_IS)
        how[5 + place] = factor
        wanted = np.asarray(enhance(picture).enhance(factor)).astype(float)
        np.testing.assert_allclose(seen(picture, tuple(how))[0], wanted, atol=1.6)


def test_what_is_drawn_lies_within_the_photo() -> None:
    drawn = np.array([draw(np.random.default_rng(seed), seed % 2 == 0) for seed in range(200)])
    top, left, height, width, mirrored, *colours = drawn.T
    for start, extent in ((top, height), (left, width)):
        assert (start >= 0).all() and (start + extent <= 1 + 1e-6).all() and (extent > 0).all()
    area = height * width
    assert AREA[0] / ASPECT[1] <= area.min() < 0.65 and 0.9 < area.max() <= 1
    assert not mirrored[1::2].any() and 30 <= mirrored[::2].sum() <= 70
    assert np.min(colours) >= 0.8 and np.max(colours) <= 1.2
