"""The names of the files in a checkpoint directory. Importing this module does not import Keras."""

from __future__ import annotations

from pathlib import Path

CONFIG, VOCABULARY, METRICS = "config.json", "vocabulary.json", "metrics.json"
DECODER, BACKBONE = "decoder.safetensors", "backbone.safetensors"
CARD, LOSS_PLOT = "README.md", "loss.png"
FILES = (CONFIG, VOCABULARY, DECODER, BACKBONE, METRICS, LOSS_PLOT, CARD)


def foreign_files(folder: Path) -> list[str]:
    """The names of what a new checkpoint in `folder` would delete although it is not its own.

    Pictures beside a checkpoint are for its model card. Files with names that end in ".tmp" are
    what a program left that was killed while it wrote.
    """
    if not folder.is_dir():
        return []
    present = {path.name for path in folder.iterdir() if path.suffix != ".tmp"}
    if CONFIG not in present:
        return sorted(present)
    return sorted(name for name in present - set(FILES) if not name.endswith(".png"))
