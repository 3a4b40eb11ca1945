"""Regions of a photo as a bias on the attention."""

from pathlib import Path

import numpy as np
import pytest

from captioner.model.steering import LEAK, attention_bias, leak_of, region_coverage

ROOT = Path(__file__).parents[2]


def test_a_box_covers_its_cells():
    expected = np.zeros((4, 8))
    expected[2:, :4] = 1
    np.testing.assert_allclose(region_coverage((0, 0.5, 0.5, 1), 4, 8), expected)


def test_cells_are_covered_in_part():
    coverage = region_coverage((0.125, 0, 0.5, 1), 2, 4)
    np.testing.assert_allclose(coverage, [[0.5, 1, 0, 0]] * 2)


def test_a_box_within_a_cell_means_that_cell():
    coverage = region_coverage((0.3, 0.3, 0.31, 0.31), 4, 4)
    assert coverage[1, 1] == 1 and coverage.sum() == 1


def test_a_mask_of_any_size_is_averaged_over_the_cells():
    mask = np.zeros((6, 6))
    mask[:3, :3] = 2
    np.testing.assert_allclose(region_coverage(mask, 2, 2), [[1, 0], [0, 0]])
    np.testing.assert_allclose(region_coverage(mask, 4, 4)[:2, :2], [[1, 1], [1, 1]])
    np.testing.assert_allclose(region_coverage(mask, 3, 3)[0], [1, 0.5, 0])
    np.testing.assert_allclose(region_coverage([[1.0, 2.0]], 1, 2), [[0.5, 1]])
    for weight in (1e308, 5e-324):  # their sum is no number, or a part of them 0
        np.testing.assert_allclose(region_coverage(np.full((9, 9), weight), 2, 2), np.ones((2, 2)))


def test_the_bias_multiplies_the_attention_weights():
    scores = np.random.default_rng(0).normal(size=16)
    weights = np.exp(scores) / np.exp(scores).sum()
    bias = attention_bias((0, 0, 0.5, 1), 4, 4, leak=0.1)
    assert bias.shape == (16,) and bias.dtype == np.float32
    steered = np.exp(scores + bias) / np.exp(scores + bias).sum()
    factor = np.tile([1, 1, 0.1, 0.1], 4)
    np.testing.assert_allclose(steered, weights * factor / (weights * factor).sum(), rtol=1e-5)


def test_the_whole_photo_is_no_bias():
    np.testing.assert_allclose(attention_bias((0, 0, 1, 1), 8, 8), 0, atol=1e-6)


@pytest.mark.parametrize(
    "region",
    [
        (0.5, 0, 0.5, 1),
        (0, 0.9, 1, 0.1),
        (-0.1, 0, 1, 1),
        (0, 0, 1, 1.1),
        (0, 0, float("nan"), 1),
        (0, 0, 1),
        np.zeros((4, 4)),
        np.full((4, 4), -1.0),
        np.full((4, 4), np.inf),
        np.zeros((0, 4)),
        np.zeros((2, 2, 2)),
        [[1], [1, 2]],
        "left",
        {"left": 0},
    ],
)
def test_what_is_no_region_is_refused(region):
    with pytest.raises(ValueError, match="region"):
        attention_bias(region, 8, 8)


@pytest.mark.parametrize("leak", [0, -1, 1.5, float("nan")])
def test_the_leak_is_a_factor(leak):
    with pytest.raises(ValueError, match="leak"):
        attention_bias((0, 0, 1, 1), 8, 8, leak=leak)


def test_the_smaller_the_region_the_less_is_let_through():
    leaks = [
        leak_of(region_coverage((0, 0, side, side), 8, 8)) for side in (1 / 8, 0.3, 0.5, 0.75, 1)
    ]
    assert leaks == sorted(leaks) and leaks[0] < 1e-4 and leaks[-1] == leaks[-2] == LEAK
    bias = attention_bias((0, 0, 0.25, 0.25), 8, 8).reshape(8, 8)
    assert bias[0, 0] == 0 and bias[7, 7] == pytest.approx(np.log(0.04 / 16**2), rel=1e-5)


@pytest.mark.slow
def test_the_attention_lies_inside_a_box_of_any_size(coco_mini: Path) -> None:
    from benchmarks import steering
    from captioner import Captioner

    captioner = Captioner.from_pretrained(ROOT / "assets" / "checkpoint")
    found = steering.measure_boxes(captioner, coco_mini, photos=16, sides=(1 / 8, 0.3, 0.5), seed=1)
    for box in found:
        assert box["inside"] >= 0.8, box
        assert box["unfinished"] <= 7, box


@pytest.mark.slow
def test_steered_captions_are_about_their_half(shared):
    """The bundled model on pictures of two photos each: the 95% interval lies above 0."""
    from benchmarks import steering
    from captioner import Captioner

    captioner = Captioner.from_pretrained(ROOT / "assets" / "checkpoint")
    pairs = steering.choose_pairs(shared / "data" / "coco-mini", 75, seed=0)
    assert len({record.image_id for pair in pairs for record in pair}) == 150
    pictures = [steering.composite(*pair, 299, "crop") for pair in pairs]
    features = np.concatenate([captioner.features(pictures[i : i + 25]) for i in (0, 25, 50)])
    texts = steering.steered_captions(captioner, features, "beam", None)
    assert np.mean([left != right for left, right in texts]) > 0.5
    figures = steering.figures(pairs, texts)
    assert figures["interval"][0] > 0, figures
