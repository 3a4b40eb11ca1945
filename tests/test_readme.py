"""The calls that README.md shows, run as they stand there."""

from __future__ import annotations

import ast
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_process import ROOT, App

from captioner.web.examples import example_photos

PORT = 7860  # the app's own, unless it is told another one


def block(language: str) -> str:
    """The fenced block of the section on HTTP."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.split("\n## Over HTTP\n")[1].split("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def folder(app: App, tmp_path: Path) -> Iterator[Path]:
    """A folder with a photo.jpg, while the app is at its own port, too."""
    try:
        door = socket.create_server(("127.0.0.1", PORT))
    except OSError:
        pytest.skip(f"port {PORT} is taken, and README.md's calls go there")
    app_port = int(re.search(r":(\d+)/", app.url)[1])

    def copy(source: socket.socket, target: socket.socket) -> None:
        with source, target:
            try:
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the other direction is done

    def serve() -> None:
        while True:
            try:
                visitor, _ = door.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", app_port))
            for ends in ((visitor, server), (server.dup(), visitor.dup())):
                threading.Thread(target=copy, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    shutil.copy(example_photos()[0], tmp_path / "photo.jpg")
    yield tmp_path
    door.shutdown(socket.SHUT_RDWR)
    door.close()


def test_gradio_client(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *_, best, completed, region, batch = done.stdout.strip().splitlines()
    assert best and region
    assert completed.startswith("two dogs")
    texts = ast.literal_eval(batch)
    assert len(texts) == 2 and texts[0] == texts[1] != ""


def test_curl(folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian: apt install curl)")
    done = subprocess.run(
        ["sh", "-c", block("sh")], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    kind, data = done.stdout.strip().splitlines()[-2:]
    assert kind == "event: complete", done.stdout
    answer, grid = json.loads(data.removeprefix("data: "))
    assert len(answer["captions"]) == 3
    assert grid["url"].startswith(f"http://127.0.0.1:{PORT}/")
