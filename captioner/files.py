"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it appears under `path` only once everything is on disk.

    After an exception, `path` is as it was. An `OSError` from writing names the file, and says what
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


# What the system lacks or forbids while the file may be whole, and what to do about it.
_REMEDIES = {
    errno.EMFILE: "Too many files are open at once: raise the limit (`ulimit -n 4096`)",
    errno.ENFILE: "The system has too many open files: close other programs",
    errno.EACCES: "Let your user read it",
    errno.EPERM: "Let your user read it",
    errno.ENOMEM: "Close other programs to free memory",
    errno.ENOSPC: "Make room on the disk",
    errno.EDQUOT: "Make room on the disk",
    errno.EIO: "The disk, or the way to it, has a fault: check it",
    errno.ESTALE: "The network drive is gone: connect it again",
    errno.ENOTCONN: "The network drive is gone: connect it again",
    errno.ETIMEDOUT: "The network drive does not answer: connect it again",
}


def system_fault(error: BaseException, *paths: Path) -> str | None:
    """Why the system, and not their content, kept the program from reading files; and the remedy.

    Args:
        error: What reading the file raised. Libraries hide the system's reason (safetensors says
            of every file that cannot be opened that it is missing), so they are opened here again.
        paths: The files that were read.

    Returns:
        Two sentences that name the file, or None if the system is not to blame: their content is,
        or one of them is not there.
    """
    fault, faulty = _errno(error), paths[0]
    for path in paths:
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as again:
            fault, faulty = _errno(again) or fault, path
    if fault is None:
        return None
    return (
        f"{faulty} cannot be read ({os.strerror(fault)}). {_REMEDIES[fault]}, then run the same "
        "command again; the file may be whole."
    )


def _errno(error: BaseException | None) -> int | None:
    """The system's number of a fault that has a remedy."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return error.errno
    return None


def allow_open_files(count: int) -> None:
    """Lets this process have `count` files open besides a few hundred others, if it may.

    Some systems let a program open 256 files unless it asks for more.
    """
    if sys.platform == "win32":  # no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a limit below the one that it states
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def file_sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unique_names(names: Iterable[str]) -> list[str]:
    """The names in their order, with a number behind each that another has already."""
    unique: list[str] = []
    taken: set[str] = set()
    for given in names:
        name, number = given, 1
        while name.lower() in taken:  # some file systems take upper and lower case for the same
            number += 1
            name = f"{given}-{number}"
        taken.add(name.lower())
        unique.append(name)
    return unique
