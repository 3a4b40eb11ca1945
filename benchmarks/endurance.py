"""Can the page run for a long time? Visitors of all kinds, and what is left when they are gone.

    python benchmarks/endurance.py --minutes 60 --clients 8

The clients ask for captions, completions, regions and batches, send damaged pictures and wrong
options, break off uploads, and disconnect while they wait. If Chromium is installed, a browser
closes tabs while captions are being made. The program prints a table of the server's memory,
threads, open files and disk space over time, how the requests ended, and what is left after all
clients have gone.

The page deletes the files of visitors after an hour. In this benchmark, it does so after a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import checkout  # noqa: F401 - finds the package
import numpy as np
from app_process import App, app_with, running_app
from serving import Visitor, photo

APP = app_with("built.delete_cache = (10, 60)")  # files are deleted after a minute
SETTLE = 90  # seconds after the last visitor: files get old, and idle threads end
SEARCH = [3, "sample", 0.5, 0]


@dataclass(frozen=True)
class Measured:
    """What a server uses at one moment."""

    megabytes: float
    threads: int
    handles: int  # open files and connections
    files: int  # of visitors, which it has not deleted yet

    @classmethod
    def of(cls, app: App) -> Measured:
        process = Path("/proc", str(app.pid))
        return cls(
            app.memory,
            len(os.listdir(process / "task")),
            len(os.listdir(process / "fd")),
            sum(path.is_file() for path in app.uploads.rglob("*")),
        )


class Guest(Visitor):
    """A visitor who makes all kinds of requests.

    Each method returns how its request ended. If that is wrong, the text begins with "!".
    """

    def caption(self) -> str:
        return self._expect("complete", "caption", [self.upload(), *SEARCH])

    def complete(self) -> str:
        return self._expect("complete", "complete", [self.upload(), "a man", *SEARCH])

    def region(self) -> str:
        box = [0.5, 0, 1, 1]
        return self._expect("complete", "caption_region", [self.upload(), *box, *SEARCH])

    def batch(self) -> str:
        photos = [self.upload() for _ in range(4)]
        return self._expect("complete", "caption_batch", [photos, *SEARCH])

    def damaged(self) -> str:
        content = photo().read_bytes()[:3000]
        return self._expect("error", "caption", [self.upload(content), *SEARCH])

    def wrong_option(self) -> str:
        return self._expect("error", "caption", [self.upload(), 3, "sample", 99, 0])

    def broken_upload(self) -> str:
        """Ends the connection in the middle of an upload."""
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\r\n\r\n'
        head = (
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {self.host}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000000\r\n\r\n"
        )
        with socket.create_connection((self.host, int(self.port)), 60) as connection:
            connection.sendall(head.encode() + form + photo().read_bytes())
        return "broken off"

    def hang_up(self) -> str:
        """Asks for captions and does not wait for them."""
        number = self._call("caption", [self.upload(), *SEARCH])
        if number is None:
            return "busy"
        with socket.create_connection((self.host, int(self.port)), 60) as connection:
            path = f"/gradio_api/call/caption/{number}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
            time.sleep(0.05)
        return "hung up"

    def upload(self, content: bytes | None = None) -> dict:
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\r\n\r\n'
        form += (content or photo().read_bytes()) + b"\r\n--x--\r\n"
        status, body = self._send("upload", form, "multipart/form-data; boundary=x")
        if status != 200:
            raise ConnectionError(f"upload: {status}")
        return {"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}

    def _call(self, name: str, data: list) -> str | None:
        body = json.dumps({"data": data}).encode()
        status, answer = self._send(f"call/{name}", body, "application/json")
        if status not in (200, 503):
            raise ConnectionError(f"call: {status}")
        return json.loads(answer)["event_id"] if status == 200 else None

    def _expect(self, event: str, name: str, data: list) -> str:
        number = self._call(name, data)
        if number is None:
            return "busy"
        _, answer = self._send(f"call/{name}/{number}")
        ended = f"event: {event}\n".encode() in answer
        return "captions" if ended and event == "complete" else "refused" if ended else "! lost"


KINDS = [Guest.caption] * 6 + [
    Guest.complete, Guest.region, Guest.batch, Guest.damaged, Guest.wrong_option,
    Guest.broken_upload, Guest.hang_up,
]  # fmt: skip


def stay(url: str, over: Event, outcomes: Counter[tuple[str, str]], seed: int) -> None:
    """Runs a client that makes one random request after another until the time is over."""
    random, guest = np.random.default_rng(seed), Guest(url)
    while not over.is_set():
        kind = KINDS[random.integers(len(KINDS))]
        try:
            outcome = kind(guest)
        except Exception as error:  # this program looks for errors of any kind
            outcome, guest = f"! {type(error).__name__}: {error}", Guest(url)
        outcomes[kind.__name__, outcome] += 1
    guest.connection.close()


def close_tabs(url: str, over: Event, outcomes: Counter[tuple[str, str]]) -> None:
    """Opens tabs with a photo in a browser, and closes every other tab before its captions."""
    from playwright.sync_api import Error, sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    options = {"executable_path": chromium, "args": ["--no-sandbox", "--disable-gpu"]}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        waits = False
        while not over.is_set():
            waits = not waits
            page = browser.new_page()
            page.set_default_timeout(600_000)  # a machine that is slow has not lost anything
            try:
                page.goto(url)
                page.wait_for_selector("#viewer .empty")
                page.set_input_files("#photo-file", photo())
                busy = "true" if not waits else "false"
                page.wait_for_selector(f"#viewer .result[aria-busy={busy}]", state="attached")
                if waits:
                    page.wait_for_selector("#viewer .captions [role=radio]")
                outcome = "captions" if waits else "closed"
            except Error as error:
                outcome = f"! {error.message.splitlines()[0]}"
            page.close()
            outcomes["tab", outcome] += 1
        browser.close()


def main() -> int:
    """Measures and prints. Returns 1 if a request was lost or something was left behind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="after the warm-up")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument(
        "--warm-up", type=int, default=600, help="requests before it: the page keeps 500 sessions"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = (sys.executable, "-c", APP)
        with running_app(Path(folder), command=command, seconds=900) as app:
            return watch(app, options)


def watch(app: App, options: argparse.Namespace) -> int:
    """Lets the visitors come and go, and prints what the server takes. Returns the exit status."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for kind in dict.fromkeys(KINDS):  # so that everything that is created only once exists
        outcomes[kind.__name__, kind(Guest(app.url))] += 1
    time.sleep(SETTLE)
    before = Measured.of(app)
    begin, over = time.monotonic(), Event()
    works: list[Callable[[], None]] = [
        lambda seed=seed: stay(app.url, over, outcomes, seed) for seed in range(options.clients - 1)
    ]
    works.append(lambda: close_tabs(app.url, over, outcomes))
    threads = [Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    print("| minute | requests | MB | threads | handles | files |\n" + "| --- " * 6 + "|")
    show("before", 0, before)
    warm: Measured | None = None
    end = math.inf
    while (now := time.monotonic()) < end:
        time.sleep(min(60, end - now))
        found = Measured.of(app)
        show(f"{(time.monotonic() - begin) / 60:.0f}", outcomes.total(), found)
        if warm is None and outcomes.total() >= options.warm_up:
            warm, end = found, time.monotonic() + 60 * options.minutes
            print("| warm | | | | | |")
    over.set()
    for thread in threads:
        thread.join()
    time.sleep(SETTLE)
    after = Measured.of(app)
    show("after", outcomes.total(), after)
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind}: {count} {outcome}")
    lost = sum(count for (_, outcome), count in outcomes.items() if outcome.startswith("!"))
    growth = after.megabytes - warm.megabytes if warm else math.nan
    print(f"lost: {lost}; memory since the warm-up: {growth:+.0f} MB")
    print(
        f"left behind: {after.threads - before.threads} threads, "
        f"{after.handles - before.handles} handles, {after.files - before.files} files"
    )
    print(f"tracebacks in the log: {app.log.count('Traceback')}")
    left = after.threads > before.threads or after.handles > before.handles
    return 1 if lost or left or after.files > before.files else 0


def show(minute: str, requests: int, found: Measured) -> None:
    row = (minute, requests, f"{found.megabytes:.0f}", found.threads, found.handles, found.files)
    print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
