"""Calibration: how often captions of a given probability are right, and a diagram of it.

A caption counts as right if at least half of its content words occur in the references. Captions
are grouped by their mean log-probability per word. The page warns of captions that are as
improbable as those of a group that is often wrong (`web.confidence`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from captioner.captioner import Caption
from captioner.data.records import Record
from captioner.data.words import split_words
from captioner.model.function_words import FUNCTION_WORDS

GROUPS = 5


def calibration(
    records: Sequence[Record], drawn: Sequence[Sequence[Caption]], groups: int = GROUPS
) -> list[dict[str, float]]:
    """All captions in groups of equal size, the least probable group first.

    Args:
        records: The photos, with the captions that people wrote.
        drawn: The model's captions of each photo.
        groups: How many groups. With fewer captions than that, there are fewer groups.

    Returns:
        For each group the highest and the average of `Caption.mean_log_prob` (nats per word), the
        share of captions that are right, and their number.
    """
    pairs = sorted(
        (caption.mean_log_prob, is_right(caption, record))
        for record, captions in zip(records, drawn, strict=True)
        for caption in captions
    )
    edges = np.linspace(0, len(pairs), groups + 1).astype(int)
    parts = [pairs[low:high] for low, high in pairwise(edges) if low < high]
    return [
        {
            "max_mean_log_prob": round(part[-1][0], 4),
            "average_mean_log_prob": round(float(np.mean([log_prob for log_prob, _ in part])), 4),
            "share_right": round(float(np.mean([right for _, right in part])), 4),
            "captions": len(part),
        }
        for part in parts
    ]


def is_right(caption: Caption, record: Record) -> bool:
    """Whether at least half of the caption's content words occur in the references."""
    said = {word for text in record.captions for word in split_words(text)}
    words = set(caption.words) - FUNCTION_WORDS
    return 2 * len(words & said) >= len(words)


def reliability_diagram(groups: Sequence[dict[str, float]]) -> bytes:
    """A PNG that shows, for each group, the share of right captions over the probability per word.

    Guo et al. 2017 (arXiv 1706.04599) introduced such diagrams for classifiers. On the dashed
    diagonal, the probability per word is the probability of being right. The bars are 95% intervals
    (`wilson_interval`).
    """
    from matplotlib import style

    with style.context("default"):  # a matplotlibrc may ask for LaTeX, which may be missing
        return _reliability_diagram(groups)


def _reliability_diagram(groups: Sequence[dict[str, float]]) -> bytes:
    from matplotlib.figure import Figure

    shares = np.array([group["share_right"] for group in groups])
    counts = np.array([group["captions"] for group in groups])
    probabilities = np.exp([group["average_mean_log_prob"] for group in groups])
    low, high = wilson_interval(shares, counts)
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    axes.errorbar(probabilities, shares, [shares - low, high - shares], marker="o", capsize=3)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="probability per word (geometric mean of the group)",
        ylabel="share of captions that are right",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def wilson_interval(shares: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper ends of the 95% intervals of shares of right captions.

    The intervals are Wilson's (1927, doi 10.1080/01621459.1927.10502953). `shares` and `counts`
    have the share and the number of captions of each group.
    """
    z = 1.96
    scale = 1 + z**2 / counts
    middle = (shares + z**2 / (2 * counts)) / scale
    half = z * np.sqrt(shares * (1 - shares) / counts + z**2 / (4 * counts**2)) / scale
    return middle - half, middle + half
