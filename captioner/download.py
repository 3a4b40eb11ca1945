"""MS-COCO 2014 fetched into its official layout: the captions, and only the images asked for.

Source: https://cocodataset.org/#download. Everything may be interrupted at any time: a file under
its final name is whole, and the same call goes on from where the last one stopped.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import queue
import re
import shutil
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import httpx
import tenacity
from PIL import Image
from tqdm import tqdm

from captioner.datasets import COCO_URL, Record, abbreviate, read_coco, read_dataset, sample_records
from captioner.files import write_bytes

logger = logging.getLogger(__name__)
T = TypeVar("T")

_AGAIN = "run the same command again: it goes on from here"
_LONGEST_WAIT = 120.0  # seconds; a server that asks for more is not waited for
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError)


class DownloadError(RuntimeError):
    """A download that failed; the message says what is missing, why, and the remedy."""


@dataclass(eq=False)
class _ResponseError(Exception):
    reason: str
    status: int = 200
    transient: bool = True
    retry_after: float = 0.0  # seconds


@dataclass(frozen=True)
class _Session:
    client: httpx.Client
    stop: threading.Event  # set: everything under way ends as soon as it can
    attempts: int
    backoff: float  # seconds
    quiet: bool


def download_coco(
    data_dir: str | os.PathLike[str],
    *,
    num_images: int | None = 6000,
    seed: int = 0,
    split: str = "train",
    base_url: str = COCO_URL,
    workers: int = 16,
    progress: bool = True,
    attempts: int = 6,
    backoff: float = 1.0,
    timeout: float = 30.0,
) -> list[Record]:
    """Fetch what is missing of a COCO subset and return its records.

    For "train" these are the records of `read_dataset("coco", data_dir, ...)`, for "val" those of
    `sample_records(read_coco(data_dir, "val"), ...)`; `num_images` None means all. Nothing is
    requested when everything is there. The annotations come from
    `annotations/annotations_trainval2014.zip` (241 MB, deleted afterwards); the images one by one,
    `workers` at a time, or, where most of a whole split is missing, from `zips/{split}2014.zip`
    (train: 13 GB, and as much again while it is unpacked).

    `base_url` is a mirror of http://images.cocodataset.org; image addresses on that host are
    rewritten to it. A request is tried `attempts` times after lost connections, timeouts of
    `timeout` seconds, damaged content and answers 408, 429 and 5xx; the waits start at `backoff`
    seconds and double, or are as long as the server asks for. Two downloads into one folder at the
    same time are not supported.

    Raises DownloadError if an image cannot be had (after fetching all the others), if none can
    (after some dozens in a row), or at once if the disk is full or not writable; DatasetError if
    the captions cannot be read; ValueError if `num_images` is less than 1.
    """
    data_dir = Path(data_dir)
    base_url = base_url.rstrip("/")
    if not re.match(r"https?://[^/]", base_url):
        raise DownloadError(f'"{base_url}" is not a http or https address of a COCO mirror')
    images_dir = data_dir / f"{split}2014"
    try:
        with httpx.Client(
            timeout=timeout,
            limits=httpx.Limits(max_connections=workers),
            follow_redirects=True,
            # A compressed body could be neither resumed nor compared with its announced length.
            headers={"Accept-Encoding": "identity"},
        ) as client:
            session = _Session(client, threading.Event(), attempts, backoff, not progress)
            _fetch_annotations(session, base_url, data_dir, split)
            if split == "train":
                records = read_dataset("coco", data_dir, num_images=num_images, seed=seed)
            else:
                records = sample_records(read_coco(data_dir, split), num_images, seed)
            for leftover in images_dir.glob("*.tmp"):  # of a run that was killed
                leftover.unlink()
            missing = _missing(records)
            part = data_dir / f"{split}2014.zip.part"
            if not missing and num_images is None:
                _discard(part)
            elif num_images is None and (len(missing) > len(records) / 2 or part.exists()):
                _fetch_image_archive(session, f"{base_url}/zips/{split}2014.zip", part, missing)
                missing = _missing(missing)
            if missing:
                images_dir.mkdir(parents=True, exist_ok=True)
                _fetch_images(session, base_url, missing, workers)
    except OSError as error:
        raise _disk_error(error, data_dir) from error
    return records


def _missing(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if not record.path.exists()]


def _disk_error(error: OSError, folder: Path) -> DownloadError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(f"cannot use the folder {folder}: {error}; choose one to write to")
    free = shutil.disk_usage(folder if folder.exists() else folder.absolute().parent).free / 1e6
    return DownloadError(
        f"the disk is full: {folder} has {free:.1f} MB left ({error}); make room, then {_AGAIN}"
    )


@contextlib.contextmanager
def _get(session: _Session, url: str, headers: dict[str, str] | None = None) -> Iterator:
    """The httpx.Response of a request; its body is still to be read."""
    if session.stop.is_set():
        raise _ResponseError("cancelled", transient=False)
    headers = headers or {}
    with session.client.stream("GET", url, headers=headers) as response:
        status = response.status_code
        if status != 200 and not (status == 206 and "Range" in headers):
            raise _ResponseError(
                f"HTTP {status}",
                status=status,
                transient=status >= 500 or status in (408, 429),
                retry_after=_retry_after(response.headers.get("Retry-After", "")),
            )
        yield response


def _retry_after(value: str) -> float:
    """Seconds to wait, from a number of seconds or a date (RFC 9110, section 10.2.3)."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _ResponseError):
        return error.transient and error.retry_after <= _LONGEST_WAIT
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )


def _with_retries(session: _Session, attempt: Callable[[], T]) -> T:
    # The random part keeps the workers from coming back all at once.
    doubling = tenacity.wait_exponential(session.backoff, max=30.0)
    jittered = doubling + tenacity.wait_random(0, session.backoff)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(jittered(state), getattr(error, "retry_after", 0.0))

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(session.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(_is_transient),
        sleep=session.stop.wait,
        reraise=True,
    )(attempt)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _fetch_images(
    session: _Session, base_url: str, records: Sequence[Record], workers: int
) -> None:
    todo: queue.SimpleQueue[Record] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Record, Exception | None]] = queue.SimpleQueue()
    for record in records:
        todo.put(record)

    def work() -> None:
        while not session.stop.is_set():
            try:
                record = todo.get_nowait()
            except queue.Empty:
                return
            try:
                _fetch_image(session, _mirrored(record.url or "", base_url), record.path)
                done.put((record, None))
            except Exception as error:
                done.put((record, error))

    # Daemons, because an executor would hold up Ctrl-C until every pending read times out.
    threads = [
        threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(records)))
    ]
    failures: list[str] = []
    in_a_row = 0
    try:
        with tqdm(total=len(records), unit="image", disable=session.quiet) as bar:
            for thread in threads:
                thread.start()
            for _ in records:
                record, error = done.get()
                if isinstance(error, OSError):  # httpx has its own: this is the disk's
                    raise error
                if error is None:
                    in_a_row = 0
                    bar.update()
                    continue
                failures.append(f"{record.path.name} ({_reason(error)})")
                in_a_row += 1
                if in_a_row >= max(32, 2 * workers):
                    raise DownloadError(
                        f"{in_a_row} images in a row could not be downloaded from {base_url}, "
                        f"{abbreviate(failures)}; check the connection, then {_AGAIN}"
                    )
    finally:
        session.stop.set()
        deadline = time.monotonic() + 1.0
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise DownloadError(
            f"{len(failures)} of {len(records)} images could not be downloaded: "
            f"{abbreviate(failures)}; the others are in {records[0].path.parent}. To try "
            f"the missing ones, {_AGAIN}"
        )


def _fetch_image(session: _Session, url: str, path: Path) -> None:
    def attempt() -> bytes:
        body = bytearray()
        # The transport raises where the body is shorter than its announced length.
        with _get(session, url) as response:
            for chunk in response.iter_raw():
                if session.stop.is_set():
                    raise _ResponseError("cancelled", transient=False)
                body += chunk
        _check_picture(bytes(body))
        return bytes(body)

    write_bytes(path, _with_retries(session, attempt))


def _check_picture(body: bytes) -> None:
    if body.lstrip()[:1] == b"<":
        raise _ResponseError("the server sent a web page in place of the picture")
    try:
        with Image.open(io.BytesIO(body), formats=("JPEG", "PNG")) as image:
            image.load()
    except Exception as error:  # PIL's decoders raise many kinds
        raise _ResponseError(f"not a whole picture ({_reason(error)})") from error


def _mirrored(url: str, base_url: str) -> str:
    host = COCO_URL.partition("://")[2]
    return re.sub(rf"^https?://{re.escape(host)}(?=/)", lambda _: base_url, url)


def _fetch_annotations(session: _Session, base_url: str, data_dir: Path, split: str) -> None:
    name = f"annotations/captions_{split}2014.json"
    if (data_dir / name).exists():
        return
    (data_dir / "annotations").mkdir(parents=True, exist_ok=True)
    url = f"{base_url}/annotations/annotations_trainval2014.zip"
    with _archive(session, url, data_dir / "annotations_trainval2014.zip.part") as archive:
        write_bytes(data_dir / name, archive.read(name))


def _fetch_image_archive(
    session: _Session, url: str, part: Path, records: Sequence[Record]
) -> None:
    """Unpack those of the records that the archive has, if the server has the archive at all."""
    try:
        with _archive(session, url, part) as archive:
            records[0].path.parent.mkdir(exist_ok=True)
            members = set(archive.namelist())
            for record in tqdm(records, unit="image", disable=session.quiet):
                # Members are looked up by the names we expect, so none can lead elsewhere.
                member = f"{record.path.parent.name}/{record.path.name}"
                if member in members:
                    write_bytes(record.path, archive.read(member))
    except DownloadError as error:
        if getattr(error.__cause__, "status", None) != 404:
            raise
        logger.info(f"{url} does not exist; fetching its images one by one")


@contextlib.contextmanager
def _archive(session: _Session, url: str, part: Path) -> Iterator[zipfile.ZipFile]:
    """The zip archive at `url`, kept in `part` until the block has ended without an error."""
    try:
        while not _with_retries(session, lambda: _fetch_more(session, url, part)):
            pass
    except (_ResponseError, httpx.HTTPError, httpx.InvalidURL) as error:
        if getattr(error, "status", None) == 416:  # what we have cannot be a part of it
            _discard(part)
        message = f"{url} could not be downloaded ({_reason(error)}); {_AGAIN}"
        raise DownloadError(message) from error
    try:
        with zipfile.ZipFile(part) as archive:
            yield archive
    except _DAMAGED as error:
        _discard(part)
        raise DownloadError(
            f"{url} is not the zip archive it should be ({_reason(error)}) and was deleted; "
            "run the same command again to fetch it anew"
        ) from error
    _discard(part)


def _discard(part: Path) -> None:
    # This order, because a tag without its part is harmless.
    part.unlink(missing_ok=True)
    part.with_suffix(".tag").unlink(missing_ok=True)


def _fetch_more(session: _Session, url: str, part: Path) -> bool:
    """Go on with `part` by HTTP range (RFC 9110, section 14); True once it is whole.

    False if the connection was lost after some progress: that is not counted as a failed attempt.
    The tag file beside `part` keeps the length and the validator of the file it is a part of.
    """
    tag = part.with_suffix(".tag")
    have = part.stat().st_size if part.exists() else 0
    size, _, validator = tag.read_text().partition("\n") if tag.exists() else ("", "", "")
    length = int(size) if size.isdecimal() else 0
    if length and have == length:
        return True
    resumable = have and length and validator
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if resumable else {}
    with _get(session, url, headers) as response:
        resumed = response.status_code == 206
        if not resumed:
            have, length = 0, int(response.headers.get("Content-Length", 0))
            if not length:
                raise _ResponseError("the length of the file is unknown", transient=False)
        elif response.headers.get("Content-Range") != f"bytes {have}-{length - 1}/{length}":
            _discard(part)
            raise _ResponseError("the server sent another range than the one asked for")
        if length - have > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, f"{(length - have) / 1e6:.1f} MB are to come")
        units = {"total": length, "initial": have, "unit": "B", "unit_scale": True}
        bar = tqdm(desc=part.stem, disable=session.quiet, **units)
        with bar, part.open("ab" if resumed else "wb") as file:
            if not resumed:  # only now: the old tag belongs to the bytes just dropped
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
