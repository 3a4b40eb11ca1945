"""Further views of training photos: their features, and whose turn it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from captioner.data.datasets import Record
from captioner.data.views import AREA, View, names_a_side
from captioner.model.feature_cache import FeatureCache, FeatureError
from captioner.model.features import FeatureExtractor, extract
from captioner.training.views import ViewsInTurn


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
    extractor = FeatureExtractor(backbone, 2)
    as_they_are = extract(records, extractor, folder)
    turned = extract(records, extractor.showing(View(mirrored=True)), folder / "mirrored")
    found, wanted = turned.gather(["upright"]), as_they_are.gather(["mirrored"])
    # Not to the last bit: they stand in different places of their batches.
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-6)
    other = as_they_are.gather(["upright"])
    assert not np.isclose(found, other, rtol=2e-3, atol=1e-6).all()


def test_mirrored_features_are_not_taken_for_others(photos, backbone, tmp_path: Path) -> None:
    records = [record("upright", "a photo", path=photos["upright"])]
    extractor = FeatureExtractor(backbone, 2)
    extract(records, extractor.showing(View(mirrored=True)), tmp_path / "features")
    with pytest.raises(FeatureError, match="mirrored"):
        FeatureCache(tmp_path / "features", extractor.stamp())


# Whether earlier versions showed two images mirrored, in six epochs of the seed 7.
SEEN_BEFORE = [[1, 0, 1, 1, 0, 0], [1, 1, 0, 1, 1, 0]]


class Constant:
    """Stands for a feature cache in which all is `value`."""

    def __init__(self, value: float, ids: set[str]) -> None:
        self.value, self.ids = value, ids

    def __contains__(self, image_id: str) -> bool:
        return image_id in self.ids

    def gather(self, image_ids: list[str]) -> np.ndarray:
        assert set(image_ids) <= self.ids
        return np.full((len(image_ids), 1, 1), self.value, np.float16)


def test_each_epoch_shows_another_view() -> None:
    ids = [f"image {i}.jpg" for i in range(300)]
    caches = [Constant(0, {*ids, "sided"}), Constant(1, {*ids}), Constant(2, {*ids, "sided"})]
    epochs = [ViewsInTurn(caches, seed=0, epoch=e) for e in range(20)]
    seen = np.stack([e.gather(ids)[:, 0, 0] for e in epochs])  # (epochs, images)
    np.testing.assert_array_equal(seen[3], epochs[3].gather(ids)[:, 0, 0])
    np.testing.assert_array_equal(seen[3, ::-1], epochs[3].gather(ids[::-1])[:, 0, 0])
    for view in range(3):
        assert 0.3 < (seen == view).mean() < 0.37
        assert (seen == view).any(axis=0).mean() > 0.98  # nearly every image in every view
    assert {float(e.gather(["sided"])[0, 0, 0]) for e in epochs} == {0, 2}
    other_seed = ViewsInTurn(caches, seed=1, epoch=3).gather(ids)[:, 0, 0]
    assert (other_seed != seen[3]).any()


def test_mirror_images_come_when_they_came_in_earlier_versions() -> None:
    """Else an unfinished run would go on with other photos than it began with."""
    caches = [Constant(0, {"a.jpg", "b.jpg"}), Constant(1, {"a.jpg", "b.jpg"})]
    seen = [ViewsInTurn(caches, 7, e).gather(["a.jpg", "b.jpg"])[:, 0, 0] for e in range(6)]
    np.testing.assert_array_equal(np.array(seen, int).T, SEEN_BEFORE)


def test_crops_differ_by_number_and_photo_and_come_again(photo) -> None:
    wide = photo(1, 200, 100)
    shown = [View(crop=n).show(record(i, "a dog"), wide, 75) for n in (1, 2) for i in "ab"]
    assert all(pixels.shape == (75, 75, 3) and pixels.dtype == np.uint8 for pixels in shown)
    assert len({pixels.tobytes() for pixels in shown}) == 4
    again = View(crop=2).show(record("b", "a dog"), wide, 75)
    np.testing.assert_array_equal(again, shown[-1])


def test_a_crop_keeps_most_of_the_photo_and_its_sides_where_a_caption_names_one() -> None:
    across = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    ramp = Image.fromarray(np.stack([across] * 3, axis=-1))  # brighter to the right
    rising = {"a dog": 0, "a dog on the left": 0}
    for caption in rising:
        for i in range(40):
            row = View(crop=1).show(record(str(i), caption), ramp, 75)[37, :, 0].astype(int)
            assert abs(row[-1] - row[0]) > 200 * AREA[0] * 0.75
            rising[caption] += row[-1] > row[0]
    assert 8 < rising["a dog"] < 32
    assert rising["a dog on the left"] == 40


def test_what_names_a_side() -> None:
    assert names_a_side(record("0", "a dog", "A man on the Left ."))
    assert names_a_side(record("0", "he turns right"))
    assert not names_a_side(record("0", "a bright dog", "leftovers"))
