"""Confidence intervals by resampling the images of a data set (Efron 1979, Annals of Statistics 7).

Whole images are drawn, not captions or words, because the captions of an image are not independent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95


def bootstrap(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
) -> np.ndarray:
    """Computes a statistic of `RESAMPLES` data sets that are drawn with replacement.

    Args:
        values: (images, columns), what each image contributes to the sums.
        statistic: Maps the sums over the images of each data set, (resamples, columns), to
            (resamples,).
        seed: Which data sets are drawn.

    Returns:
        float64 (resamples,), the statistic of each data set.
    """
    images = len(values)
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    return statistic(times_drawn @ np.asarray(values, np.float64))


def interval(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """The lower and the upper end of the 95% percentile interval of the statistic."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(bootstrap(values, statistic), [tail, 100 - tail])
    return [float(low), float(high)]
