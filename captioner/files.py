"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it appears under `path` only once everything is on disk.

    Left by an exception, `path` is as it was. An `OSError` of writing names the file, and says what
    to do when the disk is full.
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
        with suppress(OSError):  # a path that leads through a file, or a disk that is gone
            temporary.unlink(missing_ok=True)
        if full:
            why = f"{os.strerror(errno.ENOSPC)}; make room, then run the same command again"
            raise OSError(errno.ENOSPC, why, str(path)) from error
        if isinstance(error, OSError) and error.filename is None:
            why = error.strerror or f"it could not be written whole ({error})"
            raise OSError(error.errno or errno.EIO, why, str(path)) from error
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
