"""What `app.py` does before anything of the model can be imported: keep TensorFlow quiet."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator


def import_backend() -> None:
    """Imports Keras with its backend, and keeps to itself what TensorFlow has to say about it.

    Its C++ parts write notes about missing GPUs to standard error, past Python and past every
    setting, because their log is not ready yet. To those who start the app they look like errors.
    If the import fails, what was written is shown after all.
    """
    with _quiet_until_failure():
        importlib.import_module("keras")
    # Each search is traced for one photo and for many, which TensorFlow takes for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def _quiet_until_failure() -> Iterator[None]:
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
