"""Steers the attention to a region of the photo, by a bias on the attention scores.

The attention weights are multiplied by the region and then normalised. Adding the logarithm of the
region to the scores before their softmax has exactly this effect (`BahdanauAttention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np

from captioner.model.decoding_options import OptionError

Region = Sequence[float] | np.ndarray

# The largest factor outside a region. It is not 0, because the scores must be finite.
LEAK = 0.01

_NO_REGION = (
    "region must be a box of four numbers or a mask (rows, columns) of finite, non-negative weights"
)


def leak_of(coverage: np.ndarray) -> float:
    """The default factor on the attention outside a region, from its coverage (rows, columns).

    The smaller a region is, the more cells compete with it, and the less attention it has by
    itself. The factor therefore falls with the square of the region's share of the photo.
    `benchmarks/steering.py --boxes` measures the attention inside boxes of several sizes.
    """
    return float(min(LEAK, 0.04 * coverage.mean() ** 2))


def attention_bias(
    region: Region, rows: int, columns: int, leak: float | None = None
) -> np.ndarray:
    """The bias to add to the attention scores of a photo's cells.

    Args:
        region: A box (left, top, right, bottom) in fractions of the photo's width and height, or a
            mask (any number of rows and columns) of non-negative weights over the photo.
        rows: Rows of the grid of cells.
        columns: Columns of the grid of cells.
        leak: The factor on the attention of cells outside the region; None for that of `leak_of`.
            The factor rises with the coverage of a cell, to 1 for the best covered one.

    Returns:
        float32 (rows * columns,).

    Raises:
        OptionError: `region` is neither a box nor a mask, or is empty, or `leak` is not in (0, 1].
    """
    coverage = region_coverage(region, rows, columns)
    leak = leak_of(coverage) if leak is None else leak
    if not (isinstance(leak, Real) and 0 < leak <= 1):
        raise OptionError(f"leak is {leak!r}: it must be above 0 and at most 1")
    leak = float(leak)
    return np.log(leak + (1 - leak) * coverage).astype(np.float32).reshape(-1)


def region_coverage(region: Region, rows: int, columns: int) -> np.ndarray:
    """How much of each cell of a grid a region covers, relative to the best covered cell.

    The arguments and errors are those of `attention_bias`. Returns float64 (rows, columns) in 0..1.
    """
    try:
        mask = np.asarray(region, np.float64)
    except (TypeError, ValueError):  # text, a dictionary, rows of different lengths
        raise OptionError(_NO_REGION) from None
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
        mask = mask / (mask.max() or 1)  # so that sums of its weights are finite
        coverage = vertical @ mask @ _overlaps(np.linspace(0, 1, mask.shape[1] + 1), columns).T
    else:
        raise OptionError(_NO_REGION)
    if coverage.max() <= 0:
        raise OptionError("region is a mask without any weight: nothing to look at")
    return coverage / coverage.max()


def _overlaps(edges: np.ndarray, cells: int) -> np.ndarray:
    """Divides 0..1 into `cells` equal cells, and returns the share of each cell that lies between
    two neighbouring `edges`: (cells, len(edges) - 1)."""
    borders = np.linspace(0, 1, cells + 1)
    low = np.maximum(borders[:-1, None], edges[None, :-1])
    high = np.minimum(borders[1:, None], edges[None, 1:])
    return np.maximum(high - low, 0) * cells
