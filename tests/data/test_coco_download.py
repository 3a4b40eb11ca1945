"""Downloading COCO from a loopback server that misbehaves in the ways real ones do."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import http_server as http
import pytest
from conftest import Mount

from captioner.data.coco import read_coco, read_coco_subset
from captioner.data.coco_download import DownloadError, download_coco
from captioner.data.records import Record

QUICK = {"backoff": 0.01, "timeout": 5.0, "workers": 4, "progress": False}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return http.make_mirror(tmp_path / "mirror")


@pytest.fixture
def server(mirror: Path) -> Iterator[http.Server]:
    with http.serve(mirror) as server:
        yield server


@pytest.fixture
def data_dir(mirror: Path, tmp_path: Path) -> Path:
    """A folder where the captions are there already, and no image is."""
    folder = tmp_path / "data"
    with zipfile.ZipFile(mirror / http.ANNOTATIONS[1:]) as archive:
        archive.extract("annotations/captions_train2014.json", folder)
    return folder


def download(folder: Path, server: http.Server, **options: Any) -> list[Record]:
    return download_coco(folder, **{"base_url": server.url, **QUICK, **options})


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check_whole(data_dir: Path, mirror: Path, records: list[Record]) -> None:
    """The images of the records, the captions, and nothing else: no leftovers."""
    expected = {f"train2014/{r.path.name}" for r in records}
    found = files(data_dir)
    assert found.keys() == expected | {"annotations/captions_train2014.json"}
    assert all(found[name] == (mirror / name).read_bytes() for name in expected)


def test_everything_from_nothing(mirror: Path, server: http.Server, tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    records = download(data_dir, server, num_images=5, base_url=server.url + "/")
    assert records == read_coco_subset(data_dir, num_images=5)
    check_whole(data_dir, mirror, records)
    assert not (tmp_path / "new" / "escaped.txt").exists()
    # The rest is fetched when more is asked for, and only the rest.
    more = download(data_dir, server, num_images=7)
    check_whole(data_dir, mirror, more)
    assert more[:5] == records
    assert len(server.log) == 1 + 7


def test_real_coco_images(tmp_path: Path, coco_mini: Path) -> None:
    with http.serve(coco_mini) as server:
        shutil.copytree(coco_mini / "annotations", tmp_path / "annotations")
        records = download(tmp_path, server, num_images=40, seed=3)
        found = files(tmp_path)
        assert len(found) == len(server.log) + 2 == 42
        assert all((coco_mini / name).read_bytes() == content for name, content in found.items())
        assert all(r.path.is_file() for r in records)


def test_no_request_and_no_write_without_need(data_dir: Path, server: http.Server) -> None:
    download(data_dir, server)
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    requests = len(server.log)
    for num_images in (3, 6000, None):
        download(data_dir, server, num_images=num_images)
    assert len(server.log) == requests
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == before


def test_val_split(tmp_path: Path) -> None:
    with http.serve(http.make_mirror(tmp_path / "mirror", split="val")) as server:
        data_dir = tmp_path / "data"
        records = download(data_dir, server, split="val", num_images=3)
        assert {r.split for r in records} == {"val"}
        assert all(r.path.is_file() for r in records)
        download(data_dir, server, split="val", num_images=None)
        assert all(r.path.is_file() for r in read_coco(data_dir, "val"))
        leftover = data_dir / "val2014.zip.part"  # a run was killed before it deleted this
        leftover.touch()
        download(data_dir, server, split="val", num_images=None)
        assert not leftover.exists()
        assert server.count("/zips/val2014.zip") == 1


@pytest.mark.parametrize(
    ("steps", "requests"),
    [
        ([http.cut(0.5)], 2),
        ([http.cut(0.0), http.cut(0.99)], 3),
        ([http.status(500), http.status(502), http.status(504)], 4),
        ([http.status(429, Retry_After="0")], 2),
        ([http.wrong_length(+10)], 2),
        ([http.wrong_length(-500)], 2),
        ([http.page], 2),
        ([http.replaced(b""), http.replaced(b"\xff\xd8\xff nonsense")], 3),
        ([http.slow(1.5)], 2),
    ],
)
def test_passing_trouble(
    data_dir: Path, mirror: Path, steps: list[http.Step], requests: int
) -> None:
    path = http.IMAGES.format(3)
    with http.serve(mirror, {path: steps}) as server:
        records = download(data_dir, server, timeout=1.0)
        check_whole(data_dir, mirror, records)
        assert server.count(path) == requests


def test_retry_after_is_respected(data_dir: Path, mirror: Path) -> None:
    path = http.IMAGES.format(0)
    with http.serve(mirror, {path: [http.status(503, Retry_After="1")]}) as server:
        start = time.monotonic()
        download(data_dir, server)
        assert 1.0 <= time.monotonic() - start < 10.0
        assert server.count(path) == 2


@pytest.mark.parametrize(
    ("step", "reason", "requests"),
    [
        (http.status(403), "HTTP 403", 1),
        (http.status(503, Retry_After="86400"), "HTTP 503", 1),
        (http.status(429, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT"), "HTTP 429", 1),
        (http.status(500), "HTTP 500", 3),
        (http.page, "web page in place of the picture", 3),
        (http.cut(0.5), "closed connection", 3),
        (http.wrong_length(-500), "not a whole picture", 3),
    ],
)
def test_one_lasting_failure_does_not_lose_the_others(
    data_dir: Path, mirror: Path, step: http.Step, reason: str, requests: int
) -> None:
    path = http.IMAGES.format(2)
    with http.serve(mirror, {path: itertools.repeat(step)}) as server:
        with pytest.raises(DownloadError) as caught:
            download(data_dir, server, attempts=3)
        message = str(caught.value)
        assert "1 of 8 images could not be downloaded" in message
        assert f"{path.rpartition('/')[2]} (" in message
        assert reason in message
        assert "run the same command again" in message
        assert server.count(path) == requests
        others = [r for r in read_coco(data_dir) if r.image_id != "2"]
        check_whole(data_dir, mirror, others)
        assert len(server.log) == 7 + requests


def test_an_image_that_does_not_exist_is_left_out(
    data_dir: Path, mirror: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = http.IMAGES.format(2)
    name = path.rpartition("/")[2]
    for code in (404, 410):
        with http.serve(mirror, {path: itertools.repeat(http.status(code))}) as server:
            everything = read_coco_subset(data_dir)
            records = download(data_dir, server)
            # The others keep their splits.
            assert records == [r for r in everything if r.image_id != "2"]
            assert f"1 of 8 images do not exist on {server.url}: {name}" in caplog.text
            note = data_dir / "absent_train2014.txt"
            assert f"delete {note}" in caplog.text and note.read_text() == f"{name}\n"
            assert download(data_dir, server) == records
            assert server.count(path) == 1, "not asked for again"
        note.unlink()
        caplog.clear()
    with http.serve(mirror) as server:
        assert download(data_dir, server) == everything, "after deleting the note"
        assert len(server.log) == 1


def test_too_many_images_that_do_not_exist_are_an_error(tmp_path: Path) -> None:
    mirror = http.make_mirror(tmp_path / "mirror", count=250, size=8)
    gone = [mirror / http.IMAGES.format(i)[1:] for i in (5, 105, 205)]
    kept = [path.read_bytes() for path in gone]
    for path in gone[:2]:
        path.unlink()
    data_dir = tmp_path / "data"
    with http.serve(mirror) as server:
        assert len(download(data_dir, server)) == 248
        gone[2].unlink()
        (data_dir / "train2014" / gone[2].name).unlink()
        with pytest.raises(DownloadError, match=r"3 of 250 images do not exist .* too many"):
            download(data_dir, server)
        for path, content in zip(gone, kept, strict=True):
            path.write_bytes(content)
        server.log.clear()
        assert len(download(data_dir, server)) == 250
        assert len(server.log) == 3


def test_a_split_is_never_lost(data_dir: Path, mirror: Path) -> None:
    records = read_coco_subset(data_dir, num_images=3)
    (val,) = [r for r in records if r.split == "val"]
    (mirror / "train2014" / val.path.name).unlink()
    with http.serve(mirror) as server:
        with pytest.raises(DownloadError, match=f"1 of 3 images .*{val.path.name}; .* too many"):
            download(data_dir, server, num_images=3)
        assert sum(r.path.exists() for r in records) == 2


def test_failures_and_absences_at_once(data_dir: Path, mirror: Path) -> None:
    one, other = http.IMAGES.format(2), http.IMAGES.format(3)
    scripts = {
        one: itertools.repeat(http.status(404)),
        other: itertools.repeat(http.status(403)),
    }
    with http.serve(mirror, scripts) as server:
        with pytest.raises(DownloadError, match=r"1 of 8 images could not .*0003\.jpg \(HTTP 403"):
            download(data_dir, server)
        check_whole(data_dir, mirror, [r for r in read_coco(data_dir) if r.image_id not in "23"])


def test_a_dead_server_is_given_up_early(tmp_path: Path) -> None:
    mirror = http.make_mirror(tmp_path / "mirror", count=100, size=8)
    scripts = {http.ANNOTATIONS: [http.plain]}
    with http.serve(mirror, scripts, default=http.status(404)) as server:
        with pytest.raises(DownloadError, match=r"32 images in a row .*HTTP 404.* check the addr"):
            download(tmp_path / "data", server)
        assert len(server.log) < 60


def test_no_server(tmp_path: Path) -> None:
    with http.serve(tmp_path) as gone:
        pass
    with pytest.raises(DownloadError, match=r"trainval2014\.zip could not be .*refused"):
        download(tmp_path / "new", gone, attempts=2)
    with pytest.raises(DownloadError, match="not a http or https address"):
        download(tmp_path / "new", http.Server("ftp://mirror.example"))


@pytest.fixture
def small_disk(mount: Mount) -> Path:
    return mount("size=200k")


def test_full_disk_stops_everything_and_can_go_on(small_disk: Path, tmp_path: Path) -> None:
    mirror = http.make_mirror(tmp_path / "mirror", count=60, size=64)
    with http.serve(mirror, default=http.slow(0.01)) as server:
        with pytest.raises(DownloadError) as caught:
            download(small_disk, server)
        assert f"the disk is full: {small_disk} has 0.0 MB left" in str(caught.value)
        assert "make room, then run the same command again" in str(caught.value)
        assert len(server.log) < 45
        found = files(small_disk)
        whole = [name for name in found if name.endswith(".jpg")]
        assert len(whole) > 5
        assert set(found) == {*whole, "annotations/captions_train2014.json"}
        assert all(found[name] == (mirror / name).read_bytes() for name in whole)

        subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
        before = len(server.log)
        records = download(small_disk, server)
        check_whole(small_disk, mirror, records)
        assert len(server.log) - before == 60 - len(whole)


def test_a_folder_that_cannot_be_written(server: http.Server, tmp_path: Path, mount: Mount) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DownloadError, match=f"cannot use the folder {file}/data: .* choose one"):
        download(file / "data", server)
    with pytest.raises(DownloadError, match=r"Read-only file system.* choose one to wr"):
        download(mount("size=200k,ro"), server)


def test_a_fault_of_the_disk_is_not_the_folder_s(
    data_dir: Path, server: http.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DownloadError, match=r"Input/output error.*Check the disk") as caught:
        download(data_dir, server)
    assert "choose one" not in str(caught.value)


def start_download(data_dir: Path, url: str, images: str = "40") -> subprocess.Popen[bytes]:
    code = f"""from captioner.data.coco_download import download_coco
download_coco({str(data_dir)!r}, base_url={url!r}, num_images={images}, workers=4, progress=False)
"""
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_killed_and_started_again(tmp_path: Path) -> None:
    mirror = http.make_mirror(tmp_path / "mirror", count=40)
    data_dir = tmp_path / "data"
    images = data_dir / "train2014"
    with http.serve(mirror, default=http.slow(0.1)) as server:
        with start_download(data_dir, server.url) as process:
            wait_for(lambda: len(list(images.glob("*.jpg"))) >= 12)
            process.send_signal(signal.SIGKILL)
        there = {f"/train2014/{path.name}" for path in images.glob("*.jpg")}
        (images / f"{Path(min(there)).name}.tmp").write_bytes(b"\xff\xd8 killed while writing")
        assert 12 <= len(there) < 40
        time.sleep(0.3)  # until the server has noted the killed run's last requests
        server.log.clear()
        records = download(data_dir, server)
        check_whole(data_dir, mirror, records)
        assert not there & {request.path for request in server.log}
        assert len(server.log) == 40 - len(there)


def test_ctrl_c_is_prompt_and_leaves_nothing_half_written(data_dir: Path, mirror: Path) -> None:
    go_on = threading.Event()
    with http.serve(mirror, default=http.stalled(go_on)) as server:
        with start_download(data_dir, server.url) as process:
            wait_for(lambda: len(server.log) == 4)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=20)[1].decode()
            assert time.monotonic() - start < 5.0
        go_on.set()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert files(data_dir).keys() == {"annotations/captions_train2014.json"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NO_PROXY", "fe80::/10"),
        ("HTTP_PROXY", "http://proxy:port"),
        ("ALL_PROXY", "socks4://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/nowhere/certificates.pem"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(DownloadError, match=rf"correct or unset the variables .*{name}"):
        download_coco(tmp_path, **QUICK)
