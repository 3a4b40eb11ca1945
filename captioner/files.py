"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it appears under `path` only once everything is on disk.

    Left by an exception, `path` is as it was. When the disk is full, the `OSError` says so and
    names the file.
    """
    temporary = path.with_name(f"{path.name}.tmp")  # the same at every try: none are left behind
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        full = isinstance(error, OSError) and _disk_is_full(error, path.parent)
        temporary.unlink(missing_ok=True)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _disk_is_full(error: OSError, folder: Path) -> bool:
    if error.errno is None:  # NumPy and Pillow lose the system's reason
        return shutil.disk_usage(folder).free < 1 << 16
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_bytes(path: Path, content: bytes) -> None:
    """`path.write_bytes(content)`, all or nothing."""
    with atomic_file(path) as file:
        file.write(content)


def file_sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
