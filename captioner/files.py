"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LFS_POINTER = b"version https://git-lfs"  # how what Git leaves in place of a large file begins
NOT_PULLED = "is a Git LFS pointer, not the file itself. Run `git lfs pull`."


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a binary file to write, which appears under `path` only once all of it is on disk.

    After an exception, `path` is as it was before. An `OSError` from writing names the file, and
    says what to do about a full or failing disk.
    """
    temporary = path.with_name(f"{path.name}.tmp")  # always the same, so that they do not pile up
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        told = _explained(error, path) if isinstance(error, OSError) else None
        with suppress(OSError):  # a path that leads through a file, or a disk that is gone
            temporary.unlink(missing_ok=True)
        if told:
            raise told from error
        raise


def _explained(error: OSError, path: Path) -> OSError | None:
    """An error with the name of `path` and the remedy. None if `error` says enough."""
    number = error.errno
    if number is None:  # NumPy and Pillow drop the system's error number
        with suppress(OSError):
            if shutil.disk_usage(path.parent).free < 1 << 16:
                number = errno.ENOSPC
    if number in (errno.ENOSPC, errno.EDQUOT):
        why = f"{os.strerror(errno.ENOSPC)}; make room, then run the same command again"
        return OSError(errno.ENOSPC, why, str(path))
    ours = error.filename is None or str(error.filename).startswith(str(path))
    if ours and number in _REMEDIES and number not in _FORBIDDEN:
        what = _REMEDIES[number]
        why = f"{os.strerror(number)}; {what[0].lower()}{what[1:]}, then run the same command again"
        return OSError(number, why, str(path))
    if error.filename is None:
        why = error.strerror or f"it could not be written whole ({error})"
        return OSError(number or errno.EIO, why, str(path))
    return None


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git leaves in place of a large one."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER
    return False


def user_path(text: str) -> Path:
    """A path of a command line. Shells leave a ~ as it is if it does not begin a word, as in
    --output=~/run."""
    return Path(os.path.expanduser(text))


def make_folder(path: Path) -> None:
    """`path.mkdir(parents=True, exist_ok=True)`, with errors that say what to do."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(error, path) or error from None


def move(source: Path, target: Path) -> None:
    """`os.replace`, with errors that say what to do."""
    try:
        os.replace(source, target)
    except OSError as error:
        raise _explained(error, target) or error from None


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, all or nothing: see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content)


# The system errors that do not mean that a file is damaged, and what to do about each.
_REMEDIES = {
    errno.EMFILE: "Raise the limit on open files (`ulimit -n 4096`)",
    errno.ENFILE: "Close other programs",
    errno.EACCES: "Let your user read it",
    errno.EPERM: "Let your user read it",
    errno.ENOMEM: "Close other programs to free memory",
    errno.ENOSPC: "Make room on the disk",
    errno.EDQUOT: "Make room on the disk",
    errno.EIO: "Check the disk and its connection",
    errno.ESTALE: "Connect the network drive again",
    errno.ENOTCONN: "Connect the network drive again",
    errno.ETIMEDOUT: "Connect the network drive again",
}
_UNKNOWN = "Put that right"  # the remedy for all other errors
_FORBIDDEN = (errno.EACCES, errno.EPERM)
# The errors of a wrong path, at which there is no file.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def remedy(error: BaseException | None) -> str | None:
    """What to do about a system error while reading a file, in the imperative and without a full
    stop. None if the system is not the reason."""
    number = _errno(error)
    return None if number is None else _REMEDIES.get(number, _UNKNOWN)


def system_fault(error: BaseException, *paths: Path) -> str | None:
    """Says why the system kept the program from reading files that may be whole.

    Libraries hide the system's reason: safetensors reports every file that it cannot open as
    missing. This function therefore opens the files again.

    Args:
        error: What reading the files raised.
        paths: The files that were read.

    Returns:
        Two sentences that name the file, the reason and the remedy. None if the system is not the
        reason, because a file is damaged or missing.
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
    what = _REMEDIES.get(fault, _UNKNOWN)
    return (
        f"{faulty} cannot be read ({os.strerror(fault)}). {what}, then run the same command again; "
        "the file may be whole."
    )


# The reasons why a folder cannot be written to, and what to do other than to use another folder.
_WRITE_REMEDIES = {
    errno.EACCES: "Let your user write there",
    errno.EPERM: "Let your user write there",
    errno.ENOTDIR: "Move the file away that is in its place",
    errno.EEXIST: "Move the file away that is in its place",
    errno.EROFS: "Mount that disk for writing",
}


def write_fault(folder: Path, error: OSError, option: str) -> str:
    """Says why a folder cannot be written to, and what to do.

    Args:
        folder: The folder.
        error: The error of the attempt to write there.
        option: The option that names the folder, such as "--output".
    """
    why = f"{folder} cannot be written to ({os.strerror(error.errno) if error.errno else error})."
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # no other folder would help
        return f"{why} {_REMEDIES[error.errno]}, then run the same command again."
    remedy = (_REMEDIES | _WRITE_REMEDIES).get(error.errno or 0)
    return (
        f"{why} {remedy}, or give another {option}." if remedy else f"{why} Give another {option}."
    )


def check_writable(folder: Path) -> None:
    """Checks that files can be written to `folder`, and leaves no file or new folder behind.

    Raises:
        OSError: Files cannot be written there.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"can this be written?")
    finally:
        for path in missing:
            with suppress(OSError):  # it was not made, or another program uses it already
                path.rmdir()


def _errno(error: BaseException | None) -> int | None:
    """The number of a system error that is not about the path, or None."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno not in (None, *_NO_FILE):
        return error.errno  # libraries raise OSError without a number when content is damaged
    return None


def allow_open_files(count: int) -> None:
    """Lets this process open `count` files besides a few hundred others, if the system allows it.

    Some systems limit a program to 256 open files unless it asks for more.
    """
    if sys.platform == "win32":  # it has no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # the true limit of macOS is below the reported one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def file_sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unique_names(names: Iterable[str]) -> list[str]:
    """The names in their order, with a number appended to each that occurred before."""
    unique: list[str] = []
    taken: set[str] = set()
    for given in names:
        name, number = given, 1
        while name.lower() in taken:  # some file systems do not distinguish upper and lower case
            number += 1
            name = f"{given}-{number}"
        taken.add(name.lower())
        unique.append(name)
    return unique
