"""What the extractor computes: with convolutions in bfloat16, and of batches begun together."""

from __future__ import annotations

import numpy as np
import pytest
from small_backbone import small_backbone

from captioner.model.feature_cache import FeatureCache, FeatureError
from captioner.model.features import FeatureExtractor


def test_features_in_bfloat16_are_near_those_in_float32_and_not_mixed_with_them(tmp_path) -> None:
    network = small_backbone()
    exact, mixed = (FeatureExtractor(network, 4, mixed_precision=m) for m in (False, True))
    photos = np.random.default_rng(0).integers(0, 256, (4, 80, 80, 3), dtype=np.uint8)
    features = exact(photos).astype(np.float32)
    apart = np.abs(mixed(photos) - features).max()
    assert 0 < apart < 0.02 * features.max()
    FeatureCache(tmp_path, mixed.stamp())
    with pytest.raises(FeatureError, match="convolutions in bfloat16"):
        FeatureCache(tmp_path, exact.stamp())


def test_batches_that_are_begun_together_are_not_mixed_up() -> None:
    extractor = FeatureExtractor(small_backbone(), 3)
    photos = np.random.default_rng(0).integers(0, 256, (3, 80, 80, 3), dtype=np.uint8)
    wait = [extractor.start(photos[i : i + 2]) for i in range(2)]
    found = [one() for one in wait]
    assert found[0].shape == (2, *extractor.shape) and found[0].dtype == np.float16
    np.testing.assert_array_equal(found[0][1], found[1][0])
    np.testing.assert_array_equal(found[0], extractor.padded(photos[:2]))
    assert (found[0][0] != found[0][1]).any()
