"""InceptionV3 from files of two kinds, and every way in which such a file can be wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from captioner.data.images import load_image, to_network_input
from captioner.model.backbone import (
    BackboneError,
    FoldedBackbone,
    backbone_arrays,
    build_backbone,
    fingerprint,
)
from captioner.model.backbones import BACKBONES


@pytest.fixture(scope="module")
def photos(photo) -> np.ndarray:
    return np.stack([to_network_input(photo(seed), 75) for seed in range(3)])


@pytest.fixture(scope="module")
def carried(backbone, tmp_path_factory) -> Path:
    """The backbone as a checkpoint carries it."""
    path = tmp_path_factory.mktemp("carried") / "backbone.safetensors"
    save_file(backbone_arrays(backbone), path)
    return path


def refusal(path, image_size: int = 75) -> str:
    with pytest.raises(BackboneError) as caught:
        build_backbone(path, image_size)
    message = str(caught.value)
    assert str(path) in message
    return message


def test_the_network(backbone, random_backbone, photos: np.ndarray) -> None:
    assert backbone.input_shape == (None, 75, 75, 3)
    assert backbone.output_shape == (None, 1, 1, 2048)
    assert backbone.trainable_variables == []
    features = backbone.predict_on_batch(photos)
    assert features.dtype == np.float32
    assert np.abs(features[0] - features[1]).max() > 0.05, "features depend on the photo"
    # float16 keeps eleven bits of a weight, so that the two agree to about three digits.
    wanted = random_backbone.predict_on_batch(photos)
    np.testing.assert_allclose(features, wanted, atol=0.01 * wanted.max())
    assert fingerprint(random_backbone) != fingerprint(backbone), "weights are rounded when read"


def test_both_kinds_of_file_give_the_very_same_network(
    backbone, carried: Path, backbone_file: Path, photos: np.ndarray
) -> None:
    again = build_backbone(carried, image_size=75)
    assert fingerprint(again) == fingerprint(backbone)
    np.testing.assert_array_equal(again.predict_on_batch(photos), backbone.predict_on_batch(photos))
    arrays = load_file(carried)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float16)}
    assert carried.stat().st_size < 0.55 * backbone_file.stat().st_size

    other = again.variables[0]
    kept = other.numpy()
    changed = kept.copy()
    changed.flat[-1] += 0.01
    other.assign(changed)
    assert fingerprint(again) != fingerprint(backbone)
    other.assign(kept)
    assert fingerprint(again) == fingerprint(backbone)
    # What float16 cannot hold is carried as it is.
    changed.flat[-1] = 70_000
    other.assign(changed)
    array = next(iter(backbone_arrays(again).values()))
    assert array.dtype == np.float32 and array.flat[-1] == 70_000


def test_the_runs_precision_does_not_reach_the_backbone(
    backbone, carried: Path, photos: np.ndarray
) -> None:
    # Training in bfloat16 must extract the features that the app, in float32, will compute.
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        again = build_backbone(carried, image_size=75)
        assert keras.config.dtype_policy().name == "mixed_bfloat16", "the run's own stays"
    finally:
        keras.config.set_dtype_policy(kept)
    np.testing.assert_array_equal(again.predict_on_batch(photos), backbone.predict_on_batch(photos))


def test_folded_batch_normalisation_changes_nothing(backbone, photos: np.ndarray) -> None:
    folded = FoldedBackbone(backbone)
    assert len(folded.weights) == 2 * 94, "a kernel and a bias for each of its convolutions"
    wanted = backbone.predict_on_batch(photos)
    features = folded.predict_on_batch(photos)
    assert features.dtype == np.float32 and features.shape == wanted.shape
    np.testing.assert_allclose(features, wanted, rtol=1e-3, atol=1e-5 * wanted.max())


def test_folding_a_normalisation_with_all_its_parameters() -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3))
    conv = keras.layers.Conv2D(4, 3, padding="same", use_bias=True, bias_initializer="normal")
    norm = keras.layers.BatchNormalization()
    network = keras.Model(image, keras.layers.ReLU()(norm(conv(image))))
    random = np.random.default_rng(0)
    norm.set_weights([random.uniform(0.5, 2, 4).astype(np.float32) for _ in norm.weights])
    pixels = random.uniform(-1, 1, (2, 6, 6, 3)).astype(np.float32)
    wanted = network.predict_on_batch(pixels)
    assert np.abs(wanted).max() > 0.1
    features = FoldedBackbone(network).predict_on_batch(pixels)
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_folded_stays_as_it_is() -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((6, 6, 3))
    x = layers.BatchNormalization()(layers.Rescaling(2.0)(image))
    x = layers.Conv2D(4, 3, activation="relu", bias_initializer="normal")(x)
    x = read_twice = layers.Conv2D(4, 1)(layers.BatchNormalization()(x))
    x = layers.Add()([layers.BatchNormalization()(x), read_twice])
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(x))
    network = keras.Model(image, layers.BatchNormalization()(layers.Conv2D(2, 1)(x)))
    random = np.random.default_rng(0)
    norms = [x for x in network.layers if isinstance(x, layers.BatchNormalization)]
    for norm in norms:
        norm.set_weights([random.uniform(0.5, 2, w.shape) for w in norm.weights])
    pixels = random.uniform(-1, 1, (2, 6, 6, 3)).astype(np.float32)
    wanted = network.predict_on_batch(pixels)
    folded = FoldedBackbone(network)
    np.testing.assert_allclose(folded.predict_on_batch(pixels), wanted, rtol=1e-4, atol=1e-5)
    assert len(folded.others) == 5, "four normalisations and a convolution of each channel"
    norms[0].set_weights([0 * w for w in norms[0].get_weights()])
    np.testing.assert_allclose(folded.predict_on_batch(pixels), wanted, rtol=1e-4, atol=1e-5)


def test_networks_that_are_not_in_the_table() -> None:
    with pytest.raises(BackboneError, match=r'no backbone "inception".* mean inception_v3\?'):
        build_backbone(name="inception")
    entry = BACKBONES["inception_v3"]
    with pytest.raises(BackboneError, match=r'InceptionV3 has no block "mixed11"; it has mixed0'):
        entry.check_block("mixed11")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.weights.h5", tmp_path, "Imagenet"):
        message = refusal(path)
        assert "no backbone weights" in message and '"imagenet"' in message


def test_files_that_are_not_weights(tmp_path: Path, backbone_file: Path) -> None:
    half = backbone_file.read_bytes()[: backbone_file.stat().st_size // 2]
    for name, content in {
        "garbage.weights.h5": b"<html>404 Not Found</html>" * 100,
        "half.weights.h5": half,
        "garbage.safetensors": b"<html>404 Not Found</html>" * 100,
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert "does not hold weights of InceptionV3" in refusal(path)


def test_weights_of_another_network(tmp_path: Path, carried: Path) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    path = tmp_path / "other.weights.h5"
    other.save_weights(path)
    assert "does not hold weights of InceptionV3" in refusal(path)

    arrays = load_file(carried)
    name = list(arrays)[5]
    path = tmp_path / "missing.safetensors"
    save_file({k: a for k, a in arrays.items() if k != name}, path)
    assert f"{name} is missing" in refusal(path)
    path = tmp_path / "shape.safetensors"
    save_file(arrays | {name: np.zeros((3, 2), np.float16)}, path)
    assert f"{name} is of shape (3, 2)" in refusal(path)


def test_an_image_size_that_is_too_small(backbone_file: Path) -> None:
    with pytest.raises(BackboneError, match="at least 75") as caught:
        build_backbone(backbone_file, image_size=74)
    assert "download" not in str(caught.value)


def test_a_download_that_fails(tmp_path: Path) -> None:
    program = (
        "from captioner.model.backbone import BackboneError, build_backbone\n"
        "try: build_backbone('imagenet', 75)\n"
        "except BackboneError as error: print(error)\n"
    )
    nobody = "http://127.0.0.1:9"
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "KERAS_HOME": str(tmp_path),
        "HTTPS_PROXY": nobody,
        "https_proxy": nobody,
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert "could not be downloaded" in done.stdout, done.stderr
    assert "--backbone-weights FILE" in done.stdout


def test_the_bundled_weights_see_a_photo(coco_mini: Path) -> None:
    bundled = Path(__file__).parents[2] / "assets" / "checkpoint" / "backbone.safetensors"
    backbone = build_backbone(bundled, image_size=128)
    photos = sorted((coco_mini / "val2014").glob("*.jpg"))[:2]
    images = np.stack([to_network_input(load_image(path), 128) for path in photos])
    features = backbone.predict_on_batch(images)
    assert features.shape == (2, 2, 2, 2048)
    assert 0.1 < features.max() < 1000 and features.min() == 0, "within float16, after a ReLU"
    assert np.abs(features[0] - features[1]).max() > 0.2 * features.max(), "photos are told apart"
