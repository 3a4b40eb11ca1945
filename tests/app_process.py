"""Runs the real app in a process of its own, for tests that use it as visitors do."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


# Runs `app.py` after `CHANGE` was done to its page, `built`.
_CHANGED = """
import sys
from captioner.environment import settle_page
settle_page()
import app
from captioner.web import page

build = page.build_page
def build_page(*arguments):
    built = build(*arguments)
    CHANGE
    return built
page.build_page = build_page
sys.exit(app.main(sys.argv[1:]))
"""


def app_with(change: str) -> str:
    """The real app as a program of Python, but with a statement that changes its page, `built`."""
    return _CHANGED.replace("CHANGE", change)


@dataclass(frozen=True)
class App:
    url: str  # ends with a slash
    log_file: Path
    uploads: Path  # the folder of visitors' files
    pid: int

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    @property
    def memory(self) -> float:
        """MB of it that are in memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1000


@contextlib.contextmanager
def running_app(
    folder: Path,
    *options: str,
    command: Sequence[str | Path] = (sys.executable, "app.py"),
    cwd: Path = ROOT,
    seconds: float = 240,
) -> Iterator[App]:
    """`python app.py` with the bundled checkpoint, on a free port; its uploads and its log go to
    `folder`. Raises RuntimeError, with the log, if it is not ready within `seconds`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_file, uploads = folder / "app.log", folder / "uploads"
    environment = os.environ | {"GRADIO_TEMP_DIR": str(uploads)}
    command = [*command, "--host", "127.0.0.1", "--port", str(port), *options]
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    app = App(f"http://127.0.0.1:{port}/", log_file, uploads, process.pid)
    try:
        deadline = time.monotonic() + seconds
        while not _answers(app.url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the app did not start:\n{app.log}")
            time.sleep(0.2)
        yield app
        if process.poll() is not None:
            raise RuntimeError(f"the app ended during the tests:\n{app.log}")
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
