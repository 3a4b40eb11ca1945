"""Downloads over HTTP from unreliable servers: requests are retried, zip archives are resumed."""

from __future__ import annotations

import contextlib
import errno
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from tqdm import tqdm

from captioner import retries
from captioner.errors import CaptionerError

T = TypeVar("T")

AGAIN = "run the same command again: it goes on from here"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError)


class DownloadError(CaptionerError, RuntimeError):
    """A download that failed; the message says what is missing, why, and the remedy."""


@dataclass(eq=False)
class ResponseError(Exception):
    """A response that does not contain what was asked for."""

    reason: str
    status: int = 200
    transient: bool = True
    retry_after: float | None = None  # seconds


@dataclass(frozen=True)
class DownloadSession:
    """What all requests of a download share."""

    client: httpx.Client
    stop: threading.Event  # once it is set, all requests end as soon as they can
    attempts: int
    backoff: float  # seconds
    quiet: bool


@contextlib.contextmanager
def get(session: DownloadSession, url: str, headers: dict[str, str] | None = None) -> Iterator:
    """Yields the httpx.Response to a request, before its body is read.

    Raises:
        ResponseError: The server answers with an error, or the session is stopped.
        httpx.TransportError: The connection fails.
    """
    if session.stop.is_set():
        raise ResponseError("cancelled", transient=False)
    headers = headers or {}
    with session.client.stream("GET", url, headers=headers) as response:
        status = response.status_code
        if status != 200 and not (status == 206 and "Range" in headers):
            raise ResponseError(
                f"HTTP {status}",
                status=status,
                transient=retries.status_may_pass(status),
                retry_after=retries.seconds_asked(response.headers.get("Retry-After")),
            )
        yield response


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ResponseError):
        return error.transient
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )


def with_retries(session: DownloadSession, attempt: Callable[[], T]) -> T:
    """Calls `attempt` until it succeeds, and returns its result.

    Failures that may pass are followed by another try. Any other failure, and that of the last try,
    is raised.
    """
    return retries.retried(
        attempt,
        session.attempts,
        _is_transient,
        lambda error: getattr(error, "retry_after", None),
        session.backoff,
        sleep=session.stop.wait,
    )


def reason(error: Exception) -> str:
    """The message of an error, or the name of its type if it has no message."""
    return str(error) or type(error).__name__


@contextlib.contextmanager
def archive_at(session: DownloadSession, url: str, part: Path) -> Iterator[zipfile.ZipFile]:
    """Downloads the zip archive at `url` into the file `part`, and yields it opened.

    A later call resumes the download. `part` is deleted once the block ends without an error.

    Raises:
        DownloadError: The archive cannot be downloaded, or it is damaged.
    """
    try:
        while not with_retries(session, lambda: _fetch_more(session, url, part)):
            pass
    except (ResponseError, httpx.HTTPError, httpx.InvalidURL) as error:
        if getattr(error, "status", None) == 416:  # the bytes on disk are not a part of this file
            discard(part)
        message = f"{url} could not be downloaded ({reason(error)}); {AGAIN}"
        raise DownloadError(message) from error
    try:
        with zipfile.ZipFile(part) as archive:
            yield archive
    except _DAMAGED as error:
        discard(part)
        raise DownloadError(
            f"{url} is not the zip archive it should be ({reason(error)}) and was deleted; "
            "run the same command again to fetch it anew"
        ) from error
    discard(part)


def discard(part: Path) -> None:
    """Deletes a part of an archive, and the tag file beside it."""
    # The part goes first, because a tag without its part is harmless.
    part.unlink(missing_ok=True)
    part.with_suffix(".tag").unlink(missing_ok=True)


def _fetch_more(session: DownloadSession, url: str, part: Path) -> bool:
    """Resumes the download of `part` with an HTTP range request (RFC 9110, section 14).

    The tag file beside `part` stores the length of the whole file and its validator (ETag or date).

    Returns:
        True once `part` is whole. False if the connection was lost after some progress, which does
        not count as a failed attempt.
    """
    tag = part.with_suffix(".tag")
    have = part.stat().st_size if part.exists() else 0
    size, _, validator = tag.read_text().partition("\n") if tag.exists() else ("", "", "")
    length = int(size) if size.isdecimal() else 0
    if length and have == length:
        return True
    resumable = have and length and validator
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if resumable else {}
    with get(session, url, headers) as response:
        resumed = response.status_code == 206
        if not resumed:
            have, length = 0, int(response.headers.get("Content-Length", 0))
            if not length:
                raise ResponseError("the length of the file is unknown", transient=False)
        elif response.headers.get("Content-Range") != f"bytes {have}-{length - 1}/{length}":
            discard(part)
            raise ResponseError("the server sent another range than the one asked for")
        if length - have > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, f"{(length - have) / 1e6:.1f} MB are to come")
        units = {"total": length, "initial": have, "unit": "B", "unit_scale": True}
        bar = tqdm(desc=part.stem, disable=session.quiet, **units)
        with bar, part.open("ab" if resumed else "wb") as file:
            if not resumed:  # not before `open`: the old tag belongs to the bytes that it dropped
                tag.write_text(f"{length}\n{_validator(response.headers)}")
            try:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    bar.update(len(chunk))
            except httpx.TransportError:
                if resumed and file.tell() > have:
                    return False
                raise
    return part.stat().st_size == length


def _validator(headers: httpx.Headers) -> str:
    etag = headers.get("ETag", "")
    # A weak tag does not promise the same bytes, and If-Range forbids it.
    return headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
