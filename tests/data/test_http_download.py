"""COCO's zip archives from a loopback server: resumed, damaged, larger than the disk."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
import zipfile
from pathlib import Path

import http_server as http
import pytest
from test_coco_download import (
    check_whole,
    data_dir,
    download,
    files,
    mirror,
    no_proxy,
    small_disk,
    start_download,
    wait_for,
)

from captioner.data.coco_download import DownloadError

__all__ = ["data_dir", "mirror", "no_proxy", "small_disk"]  # fixtures


@pytest.mark.parametrize(
    "step", [http.page, http.replaced(b""), http.replaced(b"PK\5\6" + bytes(18))]
)
def test_annotations_that_are_no_archive(tmp_path: Path, mirror: Path, step: http.Step) -> None:
    again = pytest.raises(DownloadError, match=r"trainval2014\.zip .*run the same command again")
    with http.serve(mirror, {http.ANNOTATIONS: itertools.repeat(step)}) as server, again:
        download(tmp_path / "data", server)
    assert files(tmp_path / "data") == {}


def test_all_images_come_from_the_zip(data_dir: Path, mirror: Path) -> None:
    steps = [http.cut(0.4), http.cut(0.5), http.status(503), http.cut(0.5)]
    with http.serve(mirror, {http.ZIP: steps}) as server:
        # Two attempts suffice, because those that made progress do not count.
        records = download(data_dir, server, num_images=None, attempts=2)
        assert len(records) == 8
        check_whole(data_dir, mirror, records)
        assert not (data_dir.parent / "escaped.txt").exists()
        assert {request.path for request in server.log} == {http.ZIP}
        starts = [int(r.headers.get("range", "bytes=0-")[6:-1]) for r in server.log]
        assert starts[0] < starts[1] < starts[2] == starts[3] < starts[4]


@pytest.mark.parametrize(
    "steps", [[http.no_ranges], [http.wrong_range], [http.cut(0.5, ranges=False), http.no_ranges]]
)
def test_servers_that_ignore_ranges(data_dir: Path, mirror: Path, steps: list[http.Step]) -> None:
    with http.serve(mirror, {http.ZIP: [http.cut(0.4), *steps]}) as server:
        records = download(data_dir, server, num_images=None)
        check_whole(data_dir, mirror, records)


def test_endless_restarts_are_given_up(data_dir: Path, mirror: Path) -> None:
    with http.serve(mirror, {http.ZIP: itertools.repeat(http.cut(0.5, ranges=False))}) as server:
        with pytest.raises(DownloadError, match=r"train2014\.zip could not be downloaded"):
            download(data_dir, server, num_images=None, attempts=3)
        assert server.count(http.ZIP) == 3


def test_an_archive_replaced_between_two_runs_is_started_again(
    data_dir: Path, mirror: Path
) -> None:
    old = (mirror / http.ZIP[1:]).read_bytes()
    half = {http.ZIP: itertools.chain([http.cut(0.5)], itertools.repeat(http.status(404)))}
    with http.serve(mirror, half) as server, pytest.raises(DownloadError):
        download(data_dir, server, num_images=None, attempts=1)
    part = data_dir / "train2014.zip.part"
    assert part.read_bytes() == old[: len(old) // 2]
    with zipfile.ZipFile(mirror / http.ZIP[1:], "w") as archive:  # of the same length
        archive.writestr("../escaped.txt", "a member that leads out of the folder")
        for path in sorted((mirror / "train2014").iterdir(), reverse=True):
            archive.write(path, f"train2014/{path.name}")
    assert part.stat().st_size < (mirror / http.ZIP[1:]).stat().st_size == len(old)
    with http.serve(mirror) as server:
        records = download(data_dir, server, num_images=None)
        check_whole(data_dir, mirror, records)
        assert server.log[0].headers["range"] == f"bytes={len(old) // 2}-"


def test_a_damaged_archive_is_deleted(data_dir: Path, mirror: Path) -> None:
    content = bytearray((mirror / http.ZIP[1:]).read_bytes())
    content[len(content) // 2] ^= 1
    with http.serve(mirror, {http.ZIP: [http.replaced(bytes(content))]}) as server:
        with pytest.raises(DownloadError, match=r"Bad CRC-32.* was deleted; run the same command"):
            download(data_dir, server, num_images=None)
        assert not list(data_dir.glob("*.part")) + list(data_dir.rglob("*.tmp"))
        records = download(data_dir, server, num_images=None)
        check_whole(data_dir, mirror, records)


def test_no_zip(data_dir: Path, mirror: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (mirror / http.ZIP[1:]).unlink()
    with http.serve(mirror) as server:
        records = download(data_dir, server, num_images=None)
        check_whole(data_dir, mirror, records)
    assert "train2014.zip does not exist; fetching its images one by one" in caplog.text


def test_an_archive_larger_than_the_disk_is_not_begun(small_disk: Path, tmp_path: Path) -> None:
    mirror = http.make_mirror(tmp_path / "mirror", count=30, size=80)
    with http.serve(mirror) as server:
        with pytest.raises(DownloadError, match=r"disk is full: .* MB are to come"):
            download(small_disk, server, num_images=None)
        assert [r.path for r in server.log] == [http.ANNOTATIONS, http.ZIP]


def test_killed_while_fetching_the_zip(data_dir: Path, mirror: Path) -> None:
    go_on = threading.Event()
    part = data_dir / "train2014.zip.part"
    half = (mirror / http.ZIP[1:]).stat().st_size // 2
    with http.serve(mirror, {http.ZIP: [http.stalled(go_on)]}) as server:
        with start_download(data_dir, server.url, "None") as process:
            wait_for(lambda: part.exists() and part.stat().st_size == half)
            process.send_signal(signal.SIGKILL)
        go_on.set()
        records = download(data_dir, server, num_images=None)
        check_whole(data_dir, mirror, records)
        assert [r.headers.get("range") for r in server.log] == [None, f"bytes={half}-"]
