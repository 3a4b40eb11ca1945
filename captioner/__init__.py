"""An image captioner with visual attention: `Captioner.from_pretrained(...).caption(photo)`."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# This is set before anything imports TensorFlow. Its notes about missing GPUs and CPU instructions
# are not errors, but look like errors to users who start the app.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from captioner.environment import defend_import

if TYPE_CHECKING:
    from captioner.captioner import Caption, Captioner
    from captioner.checkpoint.checkpoint_folder import CheckpointError
    from captioner.data.images import ImageError
    from captioner.model.decoding_options import DecodingOptions

_HOMES = {
    "Caption": "captioner",
    "Captioner": "captioner",
    "CheckpointError": "checkpoint.checkpoint_folder",
    "DecodingOptions": "model.decoding_options",
    "ImageError": "data.images",
}
__all__ = ["Caption", "Captioner", "CheckpointError", "DecodingOptions", "ImageError"]


def __getattr__(name: str) -> Any:
    # Names are imported at their first use, because importing TensorFlow takes seconds, and neither
    # reading a data set nor printing --help needs it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    defend_import()
    return getattr(importlib.import_module(f"captioner.{_HOMES[name]}"), name)
