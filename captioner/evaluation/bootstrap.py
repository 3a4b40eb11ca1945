"""Confidence intervals by resampling the images of a data set (Efron 1979, Annals of Statistics 7).

Captions of one image have much in common, so images are drawn, not captions or words.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95


def bootstrap(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """`statistic` of each of `resamples` data sets drawn with replacement, float64 (resamples,).

    `values` (images, columns) are what an image contributes; `statistic` gets their sums over each
    drawn data set, (resamples, columns).
    """
    images = len(values)
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    return statistic(times_drawn @ np.asarray(values, np.float64))


def interval(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """The lower and upper end of the 95% percentile interval of `bootstrap`'s statistic."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(bootstrap(values, statistic), [tail, 100 - tail])
    return [float(low), float(high)]
