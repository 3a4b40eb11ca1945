"""Fixtures for all tests: where the data is, and small photos made from a seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reads it when it is imported

import numpy as np
import pytest
from PIL import Image

Photo = Callable[..., Image.Image]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Keras asks TensorFlow's tensors for a copy in a way that NumPy 2 calls outdated; nothing of
    # ours can change that. A mark, because `-W error` overrules the settings file, not a mark.
    keras_and_numpy = pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    )
    for item in items:
        item.add_marker(keras_and_numpy)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data sets and weights beside the repository; the test is skipped without."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: this test needs its data")
    return folder


@pytest.fixture(scope="session")
def photo() -> Photo:
    """`photo(seed, width, height)`: an RGB image, smooth as photos are, no two corners alike."""

    def make(seed: int = 0, width: int = 48, height: int = 32) -> Image.Image:
        colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture(scope="session")
def random_backbone():
    """An InceptionV3 that has learnt nothing, small, but whose features depend on the photo."""
    import keras

    keras.utils.set_random_seed(0)
    backbone = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(75, 75, 3)
    )
    random = np.random.default_rng(0)
    for variable in backbone.variables:
        # As built, the signal dies away: features near 1e-4, below what float16 resolves.
        if variable.name == "moving_variance":
            variable.assign(random.uniform(0.5, 0.7, variable.shape))
        elif variable.name == "beta":
            variable.assign(random.normal(0, 0.005, variable.shape))
    return backbone


@pytest.fixture(scope="session")
def backbone_file(random_backbone, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "random.weights.h5"
    random_backbone.save_weights(path)
    return path


@pytest.fixture(scope="session")
def backbone(backbone_file):
    """`random_backbone` as the program has it from its file; nobody may change it."""
    from captioner.backbone import build_backbone

    return build_backbone(backbone_file, image_size=75)
