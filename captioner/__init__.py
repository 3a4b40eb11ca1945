"""An image captioner with visual attention: `Captioner.from_pretrained(...).caption(photo)`."""

import os

# Before anything imports TensorFlow: its notes about missing GPUs and CPU instructions are not
# errors, but they look like it to whoever starts the app.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from captioner.captioner import Caption, Captioner
from captioner.checkpoint import CheckpointError
from captioner.decoding import DecodingOptions
from captioner.images import ImageError

__all__ = ["Caption", "Captioner", "CheckpointError", "DecodingOptions", "ImageError"]
