"""The real app in a process of its own, for tests that talk to it as visitors do."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class App:
    url: str  # ends with a slash
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")


@contextlib.contextmanager
def running_app(folder: Path, seconds: float = 240) -> Iterator[App]:
    """`python app.py` with the bundled checkpoint, on a free port; its uploads and its log go to
    `folder`. Raises RuntimeError, with the log, if it is not ready within `seconds`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = App(f"http://127.0.0.1:{port}/", folder / "app.log")
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads")}
    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", str(port)]
    with app.log_file.open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
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
