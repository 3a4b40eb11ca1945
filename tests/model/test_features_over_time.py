"""The feature cache over time: replaced photos, caches of old, shards verified once, two runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from test_features import (
    SHARD,
    CountingExtractor,
    contents,
    copy_of,
    copy_of_photos,
    damage,
    extractor,
    features,
    records,
    records_in,
    shard_of,
    whole,
)

import captioner.model.feature_cache
from captioner.data.datasets import Record
from captioner.model.feature_cache import VERIFIED, FeatureCache, FeatureError
from captioner.model.features import extract

__all__ = ["extractor", "records", "whole"]  # fixtures


def copied(records, to: Path) -> list[Record]:
    """The same photos elsewhere, as if just written."""
    return records_in(copy_of_photos(records, to))


def test_a_replaced_photo_gets_new_features(
    records, whole, photo, extractor, tmp_path: Path, caplog
) -> None:
    folder = copy_of(whole, tmp_path / "features")
    mine = copied(records, tmp_path / "photos")
    before = features(extract(mine, extractor, folder, SHARD), mine)
    assert extractor.images == 0, "a copy of the data set is the same photos"
    old = mine[5].path.read_bytes()
    mine[5].path.write_bytes(mine[6].path.read_bytes())
    after = features(extract(mine, extractor, folder, SHARD), mine)
    assert extractor.images == 1
    assert "1 photos were replaced" in caplog.text and "again: photo5" in caplog.text
    others = [i for i in range(10) if i != 5]
    np.testing.assert_array_equal(after[others], before[others])
    np.testing.assert_allclose(after[5].astype(float), before[6].astype(float), atol=2e-4)
    assert np.abs(after[5].astype(float) - before[5]).max() > 0.01
    without_records = FeatureCache(folder, extractor.stamp())
    np.testing.assert_array_equal(features(without_records, mine), after)
    mine[5].path.write_bytes(old)  # and back again: those features are still there
    np.testing.assert_array_equal(features(extract(mine, extractor, folder, SHARD), mine), before)
    mine[5].path.unlink()  # the cache alone is enough
    assert len(extract(mine, extractor, folder, SHARD)) == 10
    assert extractor.images == 1


def test_photos_replaced_in_the_middle_are_not_believed(records, extractor, tmp_path: Path) -> None:
    mine = copied(records, tmp_path / "photos")

    class Meanwhile(CountingExtractor):
        def start(self, images: np.ndarray) -> Callable[[], np.ndarray]:
            mine[0].path.write_bytes(mine[1].path.read_bytes())
            return super().start(images)

    with pytest.raises(FeatureError, match=r"1 photos were replaced while .*: photo0\. Run again"):
        extract(mine, Meanwhile(extractor.backbone, 3), tmp_path / "features", SHARD)
    assert len(extract(mine, extractor, tmp_path / "features", SHARD)) == 10
    assert extractor.images == 1


def test_caches_of_the_earlier_version_are_read(records, whole, photo, extractor, tmp_path) -> None:
    folder = copy_of(whole, tmp_path / "features")
    for index_file in folder.glob("shard-*.json"):
        index = json.loads(index_file.read_text())
        del index["photos"]
        key = hashlib.sha256("\n".join(index["ids"]).encode()).hexdigest()[:16]
        index_file.with_suffix(".npy").rename(folder / f"shard-{key}.npy")
        (folder / f"shard-{key}.json").write_text(json.dumps(index))
        index_file.unlink()
    before = contents(folder)
    cache = extract(records, extractor, folder, SHARD)
    assert extractor.images == 0 and contents(folder) == before
    reference = FeatureCache(whole, extractor.stamp())
    np.testing.assert_array_equal(features(cache, records), features(reference, records))


def test_what_was_verified_is_not_read_again(
    records, whole, extractor, tmp_path: Path, monkeypatch
) -> None:
    folder = copy_of(whole, tmp_path / "features")
    monkeypatch.setattr(
        "captioner.model.hash_cache.SETTLED", -(10**18)
    )  # as if all were written long ago
    read: list[int] = []
    sha256 = captioner.model.feature_cache._sha256
    monkeypatch.setattr(
        "captioner.model.feature_cache._sha256", lambda a: read.append(len(a)) or sha256(a)
    )
    for expected in (10, 10, 10):
        extract(records, extractor, folder, SHARD)
        assert sum(read) == expected
    victim = shard_of(folder, "photo5").with_suffix(".npy")
    damage(victim, "flip")
    with pytest.raises(FeatureError, match=f"{victim.name} is damaged"):
        FeatureCache(folder, extractor.stamp())
    (folder / VERIFIED).unlink()
    damage(victim, "flip")
    FeatureCache(folder, extractor.stamp())
    assert sum(read) == 10 + SHARD + 10


def test_two_runs_may_fill_a_folder_at_once(records, whole, backbone, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    runs = [CountingExtractor(backbone, batch_size=3) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda run: extract(records, run, folder, SHARD), runs))
    assert [len(cache) for cache in found] == [10, 10]
    assert sorted(run.images for run in runs) == [0, 10], "no photo is looked at twice"
    assert contents(folder) == contents(whole)
