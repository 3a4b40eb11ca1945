"""A COCO mirror on the loopback interface that misbehaves on request.

    with serve(folder, {"/a.jpg": [status(500), cut(0.5)]}) as server:
        httpx.get(server.url + "/a.jpg")  # 500, then half the file, then the file

Each path has a script: its n-th request is answered by the script's n-th step, later ones by the
`default` step. `itertools.repeat(step)` is a script without end.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

ANNOTATIONS = "/annotations/annotations_trainval2014.zip"
ZIP = "/zips/train2014.zip"
IMAGES = "/train2014/COCO_train2014_{:012d}.jpg"


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]  # lower-case names


@dataclass(frozen=True)
class Server:
    url: str
    log: list[Request] = field(default_factory=list)

    def count(self, path: str) -> int:
        return sum(request.path == path for request in self.log)


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that are gone: tests and benchmarks kill them."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Callable[[Handler], None]

    def do_GET(self) -> None:
        with suppress(ConnectionError):
            self.answer()

    def finish(self) -> None:
        with suppress(ConnectionError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, code: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Send a body with its length, or with another one, and then the connection's end."""
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length is not None


Step = Callable[[Handler, bytes], None]


def plain(handler: Handler, body: bytes) -> None:
    """Serve as a good server does, with ranges."""
    tag = _etag(body)
    start = _range_start(handler, tag)
    if start is None:
        handler.reply(200, body, ETag=tag)
    elif start >= len(body):
        handler.reply(416, b"", Content_Range=f"bytes */{len(body)}")
    else:
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.reply(206, body[start:], ETag=tag, Content_Range=span)


def no_ranges(handler: Handler, body: bytes) -> None:
    """Serve everything, whatever range was asked for."""
    handler.reply(200, body, ETag='"fixed"')


def cut(share: float, ranges: bool = True) -> Step:
    """Close the connection after a share of what should have been sent."""

    def step(handler: Handler, body: bytes) -> None:
        tag = _etag(body)
        start = _range_start(handler, tag) if ranges else None
        rest = body[start or 0 :]
        extra = (
            {} if start is None else {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        )
        sent = rest[: int(len(rest) * share)]
        handler.reply(200 if start is None else 206, sent, len(rest), ETag=tag, **extra)

    return step


def wrong_length(difference: int) -> Step:
    """Announce a length that is off by `difference` bytes."""
    return lambda handler, body: handler.reply(200, body, len(body) + difference)


def wrong_range(handler: Handler, body: bytes) -> None:
    """Answer a range with another one."""
    handler.reply(206, body[1:], Content_Range=f"bytes 1-{len(body) - 1}/{len(body)}")


def status(code: int, **headers: str) -> Step:
    return lambda handler, body: handler.reply(code, b"no", **headers)


def page(handler: Handler, body: bytes) -> None:
    """A web page that pretends to be the file, as captive portals send it."""
    handler.reply(200, b"<!DOCTYPE html><title>Please log in</title>", Content_Type="text/html")


def replaced(other: bytes) -> Step:
    """Serve other content under the path."""
    return lambda handler, body: plain(handler, other)


def slow(seconds: float, then: Step = plain) -> Step:
    def step(handler: Handler, body: bytes) -> None:
        time.sleep(seconds)
        then(handler, body)

    return step


def stalled(event: threading.Event) -> Step:
    """Send half the file, and the rest once the event is set."""

    def step(handler: Handler, body: bytes) -> None:
        tag = _etag(body)
        handler.reply(200, body[: len(body) // 2], len(body), ETag=tag)
        event.wait(60)
        handler.wfile.write(body[len(body) // 2 :])

    return step


@contextmanager
def serve(
    root: Path, scripts: Mapping[str, Iterable[Step]] | None = None, default: Step = plain
) -> Iterator[Server]:
    steps = {path: iter(script) for path, script in (scripts or {}).items()}
    lock = threading.Lock()

    def answer(handler: Handler) -> None:
        with lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            server.log.append(Request(handler.path, headers))
            step = next(steps.get(handler.path, itertools.repeat(default)), default)
        file = root / handler.path.lstrip("/")
        if file.is_file():
            step(handler, file.read_bytes())
        else:
            status(404)(handler, b"")

    handler_class = type("ScriptedHandler", (Handler,), {"answer": answer})
    with QuietServer(("127.0.0.1", 0), handler_class) as http:
        http.daemon_threads = True
        http.block_on_close = False
        server = Server(f"http://127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()}"'


def _range_start(handler: Handler, tag: str) -> int | None:
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if match is None or handler.headers.get("If-Range", tag) != tag:
        return None
    return int(match[1])


def picture(seed: int, size: int = 48) -> bytes:
    """A JPEG file of noise, roughly `size` * `size` * 2 bytes."""
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def make_mirror(root: Path, count: int = 8, size: int = 48, split: str = "train") -> Path:
    """A server's folder with `count` images, and their captions and themselves as zip archives."""
    names = [f"COCO_{split}2014_{i:012d}.jpg" for i in range(count)]
    annotations = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "caption": "some noise"} for i in range(count)],
    }
    for folder in ("annotations", "zips", f"{split}2014"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / ANNOTATIONS[1:], "w") as archive:
        archive.writestr(f"annotations/captions_{split}2014.json", json.dumps(annotations))
        archive.writestr("../escaped.txt", "a member that leads out of the folder")
    with zipfile.ZipFile(root / "zips" / f"{split}2014.zip", "w") as archive:
        archive.writestr("../escaped.txt", "a member that leads out of the folder")
        for i, name in enumerate(names):
            (root / f"{split}2014" / name).write_bytes(picture(i, size))
            archive.write(root / f"{split}2014" / name, f"{split}2014/{name}")
    return root
