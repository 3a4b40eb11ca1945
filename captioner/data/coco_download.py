"""Downloads MS-COCO 2014 into its official layout: the captions, and the images asked for.

Source: https://cocodataset.org/#download. A download may be interrupted at any time: a file under
its final name is whole, and the same call continues where the last one stopped.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from PIL import Image
from tqdm import tqdm

from captioner.data.captions_file import abbreviate
from captioner.data.coco import COCO_URL, captions_path, read_coco, read_coco_subset
from captioner.data.http_download import (
    AGAIN,
    DownloadError,
    DownloadSession,
    ResponseError,
    archive_at,
    discard,
    get,
    reason,
    with_retries,
)
from captioner.data.records import Record, sample_records
from captioner.files import remedy, write_bytes

logger = logging.getLogger(__name__)

_GONE = (404, 410)
_Done = tuple[Record, Exception | None]
_MOST_GONE = 0.01  # share of the images; if more of them do not exist, something else is wrong


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
    """Downloads the missing files of a COCO subset, and returns the subset's records.

    The annotations come from `annotations/annotations_trainval2014.zip` (241 MB, deleted
    afterwards). The images come one by one; if most of a whole split is missing, they come from
    `zips/{split}2014.zip` (train: 13 GB, and as much again while it is unpacked). If no file is
    missing, nothing is requested. Two downloads into one folder at the same time are not supported.

    If the server says that an image does not exist (404, 410), the image is left out of the
    records, as long as that concerns one image in a hundred at most, or a single one. The names of
    such images are stored in `absent_{split}2014.txt`, so that later calls return the same records
    without asking again.

    Args:
        data_dir: The folder for the annotations and images.
        num_images: How many images the subset has; None for all.
        seed: Which images are chosen.
        split: "train" for the records of `read_coco_subset(data_dir, ...)`, or "val" for those of
            `sample_records(read_coco(data_dir, "val"), ...)`.
        base_url: A mirror of http://images.cocodataset.org. Image addresses on that host are
            rewritten to it.
        workers: How many images are downloaded at the same time.
        progress: Whether to show a progress bar.
        attempts: How often a request is tried. Another try follows lost connections, timeouts,
            damaged content and the statuses 408, 425, 429 and 5xx.
        backoff: Seconds before the second try; they double before each further one. A server that
            asks for a longer wait gets it.
        timeout: Seconds until a request without an answer has failed.

    Returns:
        The records of the images that are in `data_dir` now.

    Raises:
        DownloadError: Some images cannot be downloaded, or too many do not exist; then all others
            were downloaded first. Or dozens of images in a row failed, or the disk is full or not
            writable; then the download stops at once. Or a variable of the environment, such as
            HTTP_PROXY, cannot be used.
        DatasetError: The captions cannot be read.
        ValueError: `num_images` is less than 1.
    """
    data_dir = Path(data_dir)
    base_url = base_url.rstrip("/")
    if not re.match(r"https?://[^/]", base_url):
        raise DownloadError(f'"{base_url}" is not a http or https address of a COCO mirror')
    try:
        with _client(timeout, workers) as client:
            session = DownloadSession(client, threading.Event(), attempts, backoff, not progress)
            _fetch_annotations(session, base_url, data_dir, split)
            if split == "train":
                records = read_coco_subset(data_dir, num_images, seed)
            else:
                records = sample_records(read_coco(data_dir, split), num_images, seed)
            part = data_dir / f"{split}2014.zip.part"
            note = _AbsentNote(data_dir / f"absent_{split}2014.txt")
            _fetch_missing(session, base_url, records, part, note, num_images is None, workers)
            present = _present(records, base_url, note.path)
            note.save()
    except OSError as error:
        raise _disk_error(error, data_dir) from error
    return present


def _client(timeout: float, workers: int) -> httpx.Client:
    try:
        return httpx.Client(
            timeout=timeout,
            limits=httpx.Limits(max_connections=workers),
            follow_redirects=True,
            # A compressed body could be neither resumed nor compared with its announced length.
            headers={"Accept-Encoding": "identity"},
        )
    except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
        raise DownloadError(
            f"connections cannot be made with these settings ({error}); correct or unset the "
            "variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE"
        ) from error


class _AbsentNote:
    """The names of images that do not exist on the server, stored in a file, one name per line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        self.names = set(self._before.splitlines())

    def save(self) -> None:
        content = "".join(f"{name}\n" for name in sorted(self.names))
        if content != self._before:
            write_bytes(self.path, content.encode())


def _fetch_missing(
    session: DownloadSession,
    base_url: str,
    records: Sequence[Record],
    part: Path,
    note: _AbsentNote,
    whole_split: bool,
    workers: int,
) -> None:
    """Fetches the missing images, as one archive if most of a whole split is missing."""
    images_dir = records[0].path.parent
    for leftover in images_dir.glob("*.tmp"):  # left by a run that was killed
        leftover.unlink()
    missing = _missing(records, note.names)
    if not missing and whole_split:
        discard(part)
    elif whole_split and (len(missing) > len(records) / 2 or part.exists()):
        _fetch_image_archive(session, f"{base_url}/zips/{images_dir.name}.zip", part, missing)
        missing = _missing(missing, note.names)
    if missing:
        images_dir.mkdir(parents=True, exist_ok=True)
        gone = _fetch_images(session, base_url, missing, workers)
        note.names |= {record.path.name for record in gone}


def _missing(records: Sequence[Record], absent: set[str]) -> list[Record]:
    return [r for r in records if not r.path.exists() and r.path.name not in absent]


def _present(records: Sequence[Record], base_url: str, note: Path) -> list[Record]:
    """The records whose images are on disk. Raises DownloadError if too many are not."""
    present = [r for r in records if r.path.exists()]
    names = [r.path.name for r in records if not r.path.exists()]
    if not names:
        return present
    what = f"{len(names)} of {len(records)} images do not exist on {base_url}: {abbreviate(names)}"
    splits_are_left = {r.split for r in present} == {r.split for r in records}
    if len(names) > max(1, _MOST_GONE * len(records)) or not splits_are_left:
        note.unlink(missing_ok=True)  # so that the next call asks for all of them again
        raise DownloadError(
            f"{what}; these are too many to go on without them. The others are in "
            f"{records[0].path.parent}: put the missing ones there, or give another address in "
            f"CAPTIONER_COCO_URL, then {AGAIN}"
        )
    logger.warning(f"{what}; going on without them. To ask for them again, delete {note}")
    return present


def _disk_error(error: OSError, folder: Path) -> DownloadError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        what = remedy(error)
        if what is None or error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return DownloadError(f"cannot use the folder {folder}: {error}; choose one to write to")
        return DownloadError(f"cannot use the folder {folder}: {error}. {what}, then {AGAIN}")
    free = shutil.disk_usage(folder if folder.exists() else folder.absolute().parent).free / 1e6
    return DownloadError(
        f"the disk is full: {folder} has {free:.1f} MB left ({error}); make room, then {AGAIN}"
    )


def _fetch_images(
    session: DownloadSession, base_url: str, records: Sequence[Record], workers: int
) -> list[Record]:
    """Fetches the images and returns the records of those that do not exist."""
    done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
    threads = _start_threads(session, base_url, records, workers, done)
    try:
        failures, gone = _follow(session, base_url, len(records), done, max(32, 2 * workers))
    finally:
        session.stop.set()
        deadline = time.monotonic() + 1.0
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise DownloadError(
            f"{len(failures)} of {len(records)} images could not be downloaded: "
            f"{abbreviate(failures)}; the others are in {records[0].path.parent}. To try "
            f"the missing ones, {AGAIN}"
        )
    return gone


def _start_threads(
    session: DownloadSession,
    base_url: str,
    records: Sequence[Record],
    workers: int,
    done: queue.SimpleQueue[_Done],
) -> list[threading.Thread]:
    """Starts threads that fetch the images and put each record, and its error if any, in `done`."""
    todo: queue.SimpleQueue[Record] = queue.SimpleQueue()
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
        threading.Thread(target=work, name="captioner download", daemon=True)
        for _ in range(min(workers, len(records)))
    ]
    for thread in threads:
        thread.start()
    return threads


def _follow(
    session: DownloadSession,
    base_url: str,
    count: int,
    done: queue.SimpleQueue[_Done],
    most_in_a_row: int,
) -> tuple[list[str], list[Record]]:
    """Waits for `count` images to be done.

    Returns:
        A message for each image that failed, and the records of images that do not exist.

    Raises:
        DownloadError: `most_in_a_row` images have failed one after the other.
        OSError: The disk is full or not writable.
    """
    failures: list[str] = []
    gone: list[Record] = []
    in_a_row = 0
    with tqdm(total=count, unit="image", disable=session.quiet) as bar:
        for _ in range(count):
            record, error = done.get()
            if isinstance(error, OSError):  # an error of the disk; those of httpx are not OSErrors
                raise error
            if error is None:
                in_a_row = 0
                bar.update()
                continue
            why = f"{record.path.name} ({reason(error)})"
            if getattr(error, "status", None) in _GONE:
                gone.append(record)
            else:
                failures.append(why)
            in_a_row += 1
            if in_a_row >= most_in_a_row:
                raise DownloadError(
                    f"{in_a_row} images in a row could not be downloaded from {base_url}, "
                    f"the last of them {why}; check the address and the connection, then {AGAIN}"
                )
    return failures, gone


def _fetch_image(session: DownloadSession, url: str, path: Path) -> None:
    def attempt() -> bytes:
        body = bytearray()
        # The transport raises an error if the body is shorter than its announced length.
        with get(session, url) as response:
            for chunk in response.iter_raw():
                if session.stop.is_set():
                    raise ResponseError("cancelled", transient=False)
                body += chunk
        _check_picture(bytes(body))
        return bytes(body)

    write_bytes(path, with_retries(session, attempt))


def _check_picture(body: bytes) -> None:
    if body.lstrip()[:1] == b"<":
        raise ResponseError("the server sent a web page in place of the picture")
    try:
        with Image.open(io.BytesIO(body), formats=("JPEG", "PNG")) as image:
            image.load()
    except Exception as error:  # PIL's decoders raise many kinds
        raise ResponseError(f"not a whole picture ({reason(error)})") from error


def _mirrored(url: str, base_url: str) -> str:
    host = COCO_URL.partition("://")[2]
    return re.sub(rf"^https?://{re.escape(host)}(?=/)", lambda _: base_url, url)


def _fetch_annotations(session: DownloadSession, base_url: str, data_dir: Path, split: str) -> None:
    name = f"annotations/captions_{split}2014.json"
    if captions_path(data_dir, split).exists():
        return
    (data_dir / "annotations").mkdir(parents=True, exist_ok=True)
    url = f"{base_url}/annotations/annotations_trainval2014.zip"
    with archive_at(session, url, data_dir / "annotations_trainval2014.zip.part") as archive:
        write_bytes(data_dir / name, archive.read(name))


def _fetch_image_archive(
    session: DownloadSession, url: str, part: Path, records: Sequence[Record]
) -> None:
    """Fetches the archive and unpacks the images of `records` that it contains.

    If the server has no such archive, nothing happens.
    """
    try:
        with archive_at(session, url, part) as archive:
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
