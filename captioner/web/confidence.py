"""A note for the visitor beside captions of which the model is unsure.

What "unsure" means is measured once for each checkpoint and written into its `metrics.json`:

    "calibration": [{"max_mean_log_prob": -1.5, "share_right": 0.31}, ...]

Each entry is a bin of captions. Their mean log-probability per word is at most `max_mean_log_prob`
and above that of the bin before, and the share `share_right` of them was right. Without these
figures there is no note.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from captioner.captioner import Caption
from captioner.checkpoint.file_names import METRICS

# One (mean log-probability, share) per bin. The bin of the least probable captions comes first.
Calibration = tuple[tuple[float, float], ...]

UNSURE_BELOW = 0.6  # a note stands beside captions of which more than four in ten are wrong


def read_calibration(folder: Path | None) -> Calibration | None:
    """Reads the bins from `metrics.json` in a checkpoint directory; None without valid bins."""
    try:
        metrics = json.loads((Path(folder or "") / METRICS).read_text("utf-8"))
        bins = sorted(
            (float(b["max_mean_log_prob"]), float(b["share_right"])) for b in metrics["calibration"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = bins and all(math.isfinite(low) and 0 <= share <= 1 for low, share in bins)
    return tuple(bins) if usable else None


def confidence_note(caption: Caption, calibration: Calibration | None) -> str | None:
    """Writes one sentence for the visitor if captions as improbable as this one are often wrong.

    Args:
        caption: The caption, with one log-probability per word.
        calibration: The bins from `read_calibration`; None means that nothing is known.

    Returns:
        The sentence, or None if there is no need for a warning.
    """
    if not calibration or not caption.words:
        return None
    for highest, share in calibration:
        if caption.mean_log_prob <= highest:
            return _sentence(share) if share < UNSURE_BELOW else None
    return None


def _sentence(share: float) -> str:
    tenths = round(10 * share)
    right = f"about {tenths}" if tenths else "fewer than 1"
    return (
        f"The model is unsure here: {right} in 10 captions with a probability this low were right."
    )
