"""Where to look: a region of the photo as a bias on the attention scores.

The region multiplies the attention weights, which are then renormalised. Its logarithm, added to
the scores before their softmax, does just that (`model.BahdanauAttention`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from captioner.model.decoding_options import OptionError

Region = Sequence[float] | np.ndarray

# The factor outside a region is at most this. It is not 0, or the scores would not be finite.
LEAK = 0.01


def leak_of(coverage: np.ndarray) -> float:
    """The factor on the attention outside a region that has this coverage (rows, columns).

    The smaller a region, the more cells compete with it, and the less attention it would have by
    itself: the factor falls with the square of the covered share of the photo.
    `benchmarks/steering.py --boxes` shows what lies inside boxes of several sizes.
    """
    return float(min(LEAK, 0.04 * coverage.mean() ** 2))


def attention_bias(
    region: Region, rows: int, columns: int, leak: float | None = None
) -> np.ndarray:
    """float32 (rows * columns,), to be added to the attention scores of a photo's cells.

    `region` is a box (left, top, right, bottom) in fractions of the photo's width and height, or a
    mask (any number of rows and columns) of non-negative weights over the photo. The factor on a
    cell's attention is 1 where the region covers it best and `leak` (by default `leak_of`) where it
    does not.

    Raises OptionError if the region is neither, or empty, or if `leak` is not in (0, 1].
    """
    coverage = region_coverage(region, rows, columns)
    leak = leak_of(coverage) if leak is None else leak
    if not 0 < leak <= 1:
        raise OptionError(f"leak is {leak!r}: above 0, at most 1")
    return np.log(leak + (1 - leak) * coverage).astype(np.float32).reshape(-1)


def region_coverage(region: Region, rows: int, columns: int) -> np.ndarray:
    """How far a region covers each cell of a grid: float64 (rows, columns), 1 for the best covered.

    Takes and raises what `attention_bias` does.
    """
    mask = np.asarray(region, np.float64)
    if mask.shape == (4,):
        left, top, right, bottom = mask
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise OptionError(
                f"region is {tuple(mask.tolist())}: (left, top, right, bottom) in fractions of the "
                "photo, 0 to 1, left below right and top below bottom"
            )
        vertical = _overlaps(np.array([top, bottom]), rows)
        coverage = vertical @ _overlaps(np.array([left, right]), columns).T
    elif mask.ndim == 2 and mask.size and np.isfinite(mask).all() and mask.min() >= 0:
        vertical = _overlaps(np.linspace(0, 1, mask.shape[0] + 1), rows)
        coverage = vertical @ mask @ _overlaps(np.linspace(0, 1, mask.shape[1] + 1), columns).T
    else:
        raise OptionError(
            "region must be a box of four numbers or a mask (rows, columns) of finite, "
            "non-negative weights"
        )
    if coverage.max() <= 0:
        raise OptionError("region is a mask without any weight: nothing to look at")
    return coverage / coverage.max()


def _overlaps(edges: np.ndarray, cells: int) -> np.ndarray:
    """The share of each of `cells` equal cells of 0..1 that lies between each two neighbours of
    `edges`: (cells, len(edges) - 1)."""
    borders = np.linspace(0, 1, cells + 1)
    low = np.maximum(borders[:-1, None], edges[None, :-1])
    high = np.minimum(borders[1:, None], edges[None, 1:])
    return np.maximum(high - low, 0) * cells
