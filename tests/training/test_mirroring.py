"""Mirrored training photos: their features, and whose turn it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageOps

from captioner.data.datasets import Record
from captioner.model.feature_cache import FeatureCache, FeatureError
from captioner.model.features import FeatureExtractor, extract
from captioner.training.mirroring import MirroredAtTimes, names_a_side


def record(image_id: str, *captions: str, path: Path = Path("none.jpg")) -> Record:
    return Record(image_id, path, captions, "train")


@pytest.fixture
def photos(photo, tmp_path: Path) -> dict[str, Path]:
    """A photo and its mirror image, of the network's size: nothing is lost in resizing."""
    upright, mirrored = tmp_path / "upright.png", tmp_path / "mirrored.png"
    photo(1, 75, 75).save(upright)
    ImageOps.mirror(photo(1, 75, 75)).save(mirrored)
    return {"upright": upright, "mirrored": mirrored}


def test_the_features_are_those_of_the_mirrored_photo(photos, backbone, tmp_path: Path) -> None:
    records = [record(name, "a photo", path=path) for name, path in photos.items()]
    folder = tmp_path / "features"
    as_they_are = extract(records, FeatureExtractor(backbone, 2), folder)
    turned = extract(records, FeatureExtractor(backbone, 2, mirrored=True), folder / "mirrored")
    found, wanted = turned.gather(["upright"]), as_they_are.gather(["mirrored"])
    # Not to the last bit: they stand in different places of their batches.
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-6)
    other = as_they_are.gather(["upright"])
    assert not np.isclose(found, other, rtol=2e-3, atol=1e-6).all()


def test_mirrored_features_are_not_taken_for_others(photos, backbone, tmp_path: Path) -> None:
    records = [record("upright", "a photo", path=photos["upright"])]
    extract(records, FeatureExtractor(backbone, 2, mirrored=True), tmp_path / "features")
    with pytest.raises(FeatureError, match="mirrored"):
        FeatureCache(tmp_path / "features", FeatureExtractor(backbone, 2).stamp())


class Constant:
    """Stands for a feature cache in which all is `value`."""

    def __init__(self, value: float, ids: set[str]) -> None:
        self.value, self.ids = value, ids

    def __contains__(self, image_id: str) -> bool:
        return image_id in self.ids

    def gather(self, image_ids: list[str]) -> np.ndarray:
        assert set(image_ids) <= self.ids
        return np.full((len(image_ids), 1, 1), self.value, np.float16)


def test_each_epoch_mirrors_another_half() -> None:
    ids = [f"image {i}.jpg" for i in range(200)]
    upright, mirrored = Constant(0, {*ids, "sided"}), Constant(1, {*ids})
    epochs = [MirroredAtTimes(upright, mirrored, seed=0, epoch=e) for e in range(20)]
    turned = np.stack([e.gather(ids)[:, 0, 0] for e in epochs])  # (epochs, images)
    np.testing.assert_array_equal(turned[3], epochs[3].gather(ids)[:, 0, 0])
    np.testing.assert_array_equal(turned[3, ::-1], epochs[3].gather(ids[::-1])[:, 0, 0])
    assert 0.45 < turned.mean() < 0.55
    assert turned.mean(axis=1).min() > 0.3 and turned.mean(axis=1).max() < 0.7
    assert turned.mean(axis=0).min() > 0.1 and turned.mean(axis=0).max() < 0.9
    assert not any(e.gather(["sided"]).any() for e in epochs)
    other_seed = MirroredAtTimes(upright, mirrored, seed=1, epoch=3).gather(ids)[:, 0, 0]
    assert (other_seed != turned[3]).any()


def test_what_names_a_side() -> None:
    assert names_a_side(record("0", "a dog", "A man on the Left ."))
    assert names_a_side(record("0", "he turns right"))
    assert not names_a_side(record("0", "a bright dog", "leftovers"))
