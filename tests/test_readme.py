"""The documentation: its code runs as it stands there, its links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import io
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
from links import broken_links, missing_paths

from captioner.data.datasets import read_dataset

PORT = 7860  # the app's own, unless it is told another one
MAX_LINES = 150  # the longest that README.md may be


def block(page: str, heading: str, language: str) -> str:
    """The fenced block of a section of a page."""
    text = (ROOT / page).read_text("utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return found[0]


def test_no_link_is_broken() -> None:
    assert broken_links(ROOT) == []
    assert missing_paths(ROOT) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# One\n[b](b.md#two) [c](b.md#three) [d](../x.md) `docs/e.md`\n"
    )
    (tmp_path / "b.md").write_text('## Two\n[one](a.md#one) <img src="f.png">\n`[x](y)`\n')
    found = ["a.md: b.md#three", "a.md: ../x.md", "b.md: f.png"]
    assert broken_links(tmp_path) == found
    assert missing_paths(tmp_path) == ["a.md: docs/e.md"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MAX_LINES


def test_ten_lines_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("README.md", "Ten lines of Python", "python")
    assert len(code.splitlines()) <= 10
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "README.md", "exec"), {})
    caption, *words = output.getvalue().splitlines()
    assert [line.partition(":")[0] for line in words] == caption.split() != []
    places = [line.rpartition(" at ")[2].split(", ") for line in words]
    assert all(0 <= int(row) < 8 and 0 <= int(column) < 8 for row, column in places)
    assert len(set(map(tuple, places))) > 1


@pytest.mark.parametrize(("language", "name"), [("csv", "captions.csv"), ("json", "a.jsonl")])
def test_captions_files_of_your_own(language: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(block("docs/training.md", "Data sets", language), "utf-8")
    (tmp_path / "images").mkdir()
    for photo in ("dog.jpg", "cat.jpg"):
        shutil.copy(ROOT / "assets" / "examples" / "cat.jpg", tmp_path / "images" / photo)
    dog, *others = read_dataset("folder", tmp_path)
    assert dog.path.name == "dog.jpg" and dog.split == "train"
    if language == "csv":
        (cat,) = others
        assert cat.captions == ("a cat sleeps on a sofa, beside a book",) and cat.split == "val"
    else:
        assert dog.by == ("people", "model") and not others


@pytest.fixture
def folder(app: App, tmp_path: Path) -> Iterator[Path]:
    """A folder with the repository's assets, while the app is at its own port, too."""
    try:
        door = socket.create_server(("127.0.0.1", PORT))
    except OSError:
        pytest.skip(f"port {PORT} is taken, and the calls of docs/api.md go there")
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
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    yield tmp_path
    door.shutdown(socket.SHUT_RDWR)
    door.close()


def lines_of(command: list[str], folder: Path) -> list[str]:
    """What a command prints that succeeds."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_gradio_client(folder: Path) -> None:
    program = block("docs/api.md", "HTTP", "python")
    *_, best, completed, region, batch = lines_of([sys.executable, "-c", program], folder)
    assert best and region
    assert completed.startswith("two dogs")
    texts = ast.literal_eval(batch)
    assert len(texts) == 2 and texts[0] == texts[1] != ""


def test_curl(folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian: apt install curl)")
    kind, data = lines_of(["sh", "-c", block("docs/api.md", "HTTP", "sh")], folder)[-2:]
    assert kind == "event: complete", data
    answer, grid = json.loads(data.removeprefix("data: "))
    assert len(answer["captions"]) == 3
    assert grid["url"].startswith(f"http://127.0.0.1:{PORT}/")
