"""The curves of a run as a picture: the losses by epoch, and CIDEr-D if there was such training.

This is the only module of training that imports Matplotlib. No module that serves captions imports
this one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import accumulate

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

History = Sequence[Mapping[str, float]]


@style.context("default")  # a matplotlibrc of the user's may ask for LaTeX, which may be missing
def loss_plot(phases: Sequence[tuple[str, History]]) -> bytes:
    """Draws the phases of a run so far, from left to right, as a PNG.

    Args:
        phases: The name of an epoch and the history of each phase. Cross-entropy's entries have
            "nll" and "val_nll" (nats per word). Those of self-critical training have "val_cider"
            (percent), and the first of them is from before the phase.
    """
    losses = [(name, history) for name, history in phases if history and "nll" in history[0]]
    rewards = [history for _, history in phases if history and "val_cider" in history[0]]
    figure = Figure(figsize=(6 + 4 * bool(rewards), 4), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = canvas.figure.subplots(1, 1 + bool(rewards), squeeze=False)[0]
    _draw_losses(axes[0], losses)
    if rewards:
        values = [entry["val_cider"] for entry in rewards[0]]
        axes[1].plot(range(len(values)), values, marker=".", color="tab:green")
        axes[1].set_xlabel("epoch of self-critical training")
        axes[1].set_ylabel("CIDEr-D of validation captions (%)")
    for each in axes:
        each.xaxis.set_major_locator(MaxNLocator(integer=True))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_losses(axes: Axes, phases: Sequence[tuple[str, History]]) -> None:
    entries = [entry for _, history in phases for entry in history]
    epochs = range(1, len(entries) + 1)
    axes.plot(epochs, [e["nll"] for e in entries], marker=".", label="training (with dropout)")
    axes.plot(epochs, [e["val_nll"] for e in entries], marker=".", label="validation")
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy (nats per word)")
    # A line between two phases, with the later one's name.
    ends = accumulate(len(history) for _, history in phases)
    for end, (name, _) in zip(ends, phases[1:], strict=False):
        axes.axvline(end + 0.5, color="grey", linewidth=0.8)
        axes.annotate(
            f"{name}s",
            (end + 0.5, 1),
            (3, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
        )
    if entries:
        axes.legend()
