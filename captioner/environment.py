"""What `app.py` does before anything of the model can be imported: no messages to the makers of
its libraries, no messages of TensorFlow to whoever starts it, and memory for one caption after the
other."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

from captioner.allocator import keep_freed_memory


def prepare() -> None:
    """Turns telemetry off, keeps freed memory, then imports Keras with its backend, quietly."""
    keep_freed_memory(even_large=False)
    # Variables, not arguments: with --mcp, Gradio's own client inside the server heeds only these,
    # and both libraries read them when they are imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # TensorFlow's C++ parts write notes about missing GPUs to standard error, past Python and past
    # every setting, because their log is not ready yet. They look like errors.
    with _quiet_until_failure():
        importlib.import_module("keras")
    # Each search is traced for one photo and for many, which TensorFlow takes for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def _quiet_until_failure() -> Iterator[None]:
    """Nothing goes to standard error, unless an exception leaves: then all of it does after all."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError):  # there is no real standard error, as under pythonw
        yield
        return
    sys.stderr.flush()
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), descriptor)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            if failed:
                notes.seek(0)
                shutil.copyfileobj(notes, sys.stderr.buffer)
                sys.stderr.flush()
