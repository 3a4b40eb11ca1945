"""What protects a server that is open to everybody: a bounded queue, and files that go away."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from app_process import ROOT, App, app_with, running_app
from gradio_client import Client, handle_file
from PIL import Image
from test_mcp import call

from captioner.web.examples import example_photos
from captioner.web.request_limit import MAX_REQUEST_MEGABYTES

# The real app, but files are old after eight seconds, and only four requests may wait.
HURRIED = app_with("built.delete_cache = (1, 8); built.queue(max_size=4)")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[socket.socket]:
    """Where a call to any other host would end up: nobody answers, but it would be seen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        yield listener


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory, elsewhere: socket.socket) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("hurried")
    proxy = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
    # Of the app alone: the client of these tests does send its maker a message.
    command = ["env", "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost"]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        command += [f"{name}={proxy}", f"{name.lower()}={proxy}"]
    command += [sys.executable, "-c", HURRIED]
    with running_app(folder, "--mcp", command=command) as app:
        yield app


def test_everything_sent_and_drawn_is_deleted(hurried: App, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    with Image.open(example_photos()[0]) as example:  # which is kept itself, for others to click on
        example.crop((100, 0, 400, 400)).save(photo)
    kept = set(files(hurried))
    client = Client(hurried.url, verbose=False, download_files=str(tmp_path))
    client.predict(handle_file(photo), num_captions=1, api_name="/caption")
    client.predict([handle_file(photo)], api_name="/caption_batch")
    client.close()
    url = "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()
    assert not call(hurried, "caption", image=url).isError
    image = {"url": url, "meta": {"_type": "gradio.FileData"}}
    with httpx.Client(base_url=hurried.url + "gradio_api/", timeout=60) as http:
        assert ask(http, image) == "complete"
        http.post("upload", files={"files": ("unused.jpg", photo.read_bytes())})
    assert set(files(hurried)) - kept
    deadline = time.monotonic() + 40
    while left := set(files(hurried)) - kept:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.2)


def files(app: App) -> list[Path]:
    return [path for path in app.uploads.rglob("*") if path.is_file()]


def test_an_upload_that_breaks_off_leaves_nothing(hurried: App) -> None:
    before, told = set(files(hurried)), len(hurried.log)
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\r\n\r\n'
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    address = urlsplit(hurried.url)
    deadline = time.monotonic() + 60

    def wait_for(some: bool) -> None:
        while bool(set(files(hurried)) - before) != some:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with socket.create_connection((address.hostname, address.port)) as visitor:
        visitor.sendall(head + form + bytes(100_000))
        wait_for(some=True)
    wait_for(some=False)
    assert "Traceback" not in hurried.log[told:]


def test_an_upload_without_a_file_name_is_refused(hurried: App) -> None:
    before, told = set(files(hurried)), len(hurried.log)
    address = hurried.url + "gradio_api/upload"
    content = {"Content-Type": "multipart/form-data; boundary=x"}
    for given in ("", '; filename=""'):
        head = f'--x\r\nContent-Disposition: form-data; name="files"{given}\r\n\r\n'
        for query in ("", "?upload_id=0"):
            sent = httpx.post(address + query, content=f"{head}a\r\n--x--\r\n", headers=content)
            assert sent.status_code == (200 if given else 400), sent.text
            assert given or sent.text.startswith("A file needs a name")
    assert "Traceback" not in hurried.log[told:]
    for file in set(files(hurried)) - before:
        file.unlink()


def ask(http: httpx.Client, image: dict) -> str:
    """The last event of a call of `/caption`, or "busy" where the call is refused as documented."""
    request = {"data": [image, 3, "sample", 0.5, 0]}
    answer = http.post("call/caption", json=request)
    if answer.status_code == 503:
        assert "full" in json.dumps(answer.json())
        return "busy"
    assert answer.status_code == 200
    lines = http.get(f"call/caption/{answer.json()['event_id']}").text.splitlines()
    return [line for line in lines if line.startswith("event: ")][-1].removeprefix("event: ")


def test_who_finds_the_queue_full_is_told_so(hurried: App) -> None:
    url = "data:image/jpeg;base64,"
    url += base64.b64encode(example_photos()[1].read_bytes()).decode()
    image = {"url": url, "meta": {"_type": "gradio.FileData"}}
    visitors = 60
    together = threading.Barrier(visitors)

    def visit(_: int) -> str:
        together.wait(30)
        return ask(http, image)

    limits = httpx.Limits(max_connections=visitors)
    with (
        httpx.Client(base_url=hurried.url + "gradio_api/", timeout=120, limits=limits) as http,
        ThreadPoolExecutor(visitors) as pool,
    ):
        answers = list(pool.map(visit, range(visitors)))
        # Sixteen are worked on and four may wait; none of those who got in is forgotten.
        assert set(answers) == {"complete", "busy"}
        assert answers.count("complete") >= 4
        assert ask(http, image) == "complete", "the crowd has gone"


@pytest.mark.parametrize(
    ("path", "announced"), [("call/caption", True), ("call/caption", False), ("queue/join", True)]
)
def test_a_huge_request_is_refused(hurried: App, path: str, announced: bool) -> None:
    told = len(hurried.log)
    large = b" " * 2**20

    def body() -> Iterator[bytes]:
        yield from itertools.repeat(large, MAX_REQUEST_MEGABYTES + 1)

    headers = {"content-type": "application/json"}
    if announced:
        headers["content-length"] = str((MAX_REQUEST_MEGABYTES + 1) * len(large))
    url = f"{hurried.url}gradio_api/{path}"
    answer = httpx.post(url, content=body(), headers=headers, timeout=60)
    assert answer.status_code == 413
    assert "Upload the pictures" in answer.json()["detail"]
    assert "Traceback" not in hurried.log[told:]


@pytest.mark.parametrize(
    "path", ["app.py", "assets/checkpoint/config.json", "/etc/passwd", "../../etc/passwd"]
)
def test_the_server_gives_no_file_of_its_own(hurried: App, path: str) -> None:
    for form in (path, str(ROOT / path), f"%2e%2e/{path}"):
        answer = httpx.get(f"{hurried.url}gradio_api/file={form}")
        assert answer.status_code in (403, 404), form
        assert "Traceback" not in answer.text and str(ROOT) not in answer.text


def test_it_calls_nobody(hurried: App, elsewhere: socket.socket) -> None:
    try:
        call, _ = elsewhere.accept()
    except BlockingIOError:
        return
    with call:
        pytest.fail(f"the server called elsewhere: {call.recv(200)!r}")


def test_tensorflow_is_quiet(app: App) -> None:
    assert app.log.startswith("Loading the model ...\n")
    for noise in ("oneDNN", "cuda", "absl", "retracing"):
        assert noise not in app.log


def test_only_notes_are_kept_from_standard_error() -> None:
    program = (
        "import os, captioner.streams as s\n"
        "with s.without_notes():\n"
        "    os.write(2, b'I0000 00:00:1.2 3 port.cc:153] a note\\n')\n"
        "    os.write(2, b'E0000 00:00:1.2 3 why it failed\\n')\n"
        "    raise ImportError('keras')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "a note" not in done.stderr
    assert "why it failed" in done.stderr and "ImportError: keras" in done.stderr
