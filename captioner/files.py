"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it appears under `path` only once everything is on disk.

    Left by an exception, `path` is as it was. An `OSError` names the file and, when the disk is
    full, says so.
    """
    temporary = path.with_name(
        f"{path.name}.tmp"
    )  # the same at every try: none are left behind
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """`path.write_bytes(content)`, all or nothing."""
    with atomic_file(path) as file:
        file.write(content)
