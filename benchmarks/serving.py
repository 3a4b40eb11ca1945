"""How fast does the page answer, compared with the least that any such program must do?

    python benchmarks/serving.py request    # a request, compared with the bare network
    python benchmarks/serving.py start      # `python app.py`, compared with importing and loading
    python benchmarks/serving.py crowd      # 32 clients at once, compared with one client

The two things that are compared take turns, with the bundled checkpoint. The program prints the
tables of `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from checkout import ROOT

CHECKPOINT = ROOT / "assets" / "checkpoint"
LEAST = """
import sys, time
start = time.perf_counter()
import tensorflow
from pathlib import Path
from captioner.checkpoint.checkpoint_folder import read_checkpoint
read_checkpoint(Path(sys.argv[1]))
print(time.perf_counter() - start)
"""


def request(options: argparse.Namespace) -> None:
    """Compares a request (decode the photo, network, samples, grid) with the bare network."""
    import numpy as np

    from captioner import Captioner, DecodingOptions
    from captioner.allocator import keep_freed_memory
    from captioner.data.images import load_image, to_network_input
    from captioner.drawing.overlay import attention_grid_png
    from captioner.model.decoding import search_inputs
    from captioner.web.batching import BatchingCaptioner
    from captioner.web.endpoints import TILE
    from captioner.web.responses import to_json

    keep_freed_memory(even_large=False)  # as app.py does
    captioner = BatchingCaptioner.from_pretrained(CHECKPOINT)
    file = photo().read_bytes()
    # Like the page, this draws 5 samples to give 3 that differ.
    search = DecodingOptions("sample", options.captions, temperature=0.5, distinct=True)
    image = load_image(file)
    size = captioner.extractor.image_size
    pixels = to_network_input(image, size)[np.newaxis]  # (1, size, size, 3)
    features = captioner.extractor(pixels)
    captions = captioner.caption_features(features, search)[0]
    while not captioner.is_compiled(search):  # a server has compiled it after a few requests
        captioner.caption_features(features, search)
        time.sleep(0.1)

    def whole() -> None:
        image = load_image(file)
        found = captioner.caption(image, options.captions, temperature=0.5)
        json.dumps([to_json(caption) for caption in found])
        attention_grid_png(image, found[0], TILE)

    work: dict[str, Callable[[], object]] = {
        "bare InceptionV3": lambda: captioner.extractor.backbone.predict_on_batch(pixels),
        "whole request": whole,
        "- decode the photo, make it the network's input": lambda: to_network_input(
            load_image(file), size
        ),
        "- network, normalisations folded": lambda: captioner.extractor(pixels),
        f"- {search.rows} samples": lambda: captioner.caption_features(features, search),
        # This is not a part of the whole request, but what the first requests do instead.
        f"- ({search.rows} samples, before XLA)": lambda: Captioner.search(
            captioner, search_inputs(features, search), search
        ),
        "- JSON": lambda: json.dumps([to_json(caption) for caption in captions]),
        "- attention grid": lambda: attention_grid_png(image, captions[0], TILE),
    }
    seconds = by_turns(work, options.rounds)
    captioner.close()
    print(f"{len(captions[0].words)} words, photo of {image.width} x {image.height}\n")
    print_beside(seconds, "bare InceptionV3")


def print_beside(seconds: dict[str, list[float]], reference: str) -> None:
    """Prints a table of times, with their ratios to the median time of `reference`."""
    bare = statistics.median(seconds[reference])
    print("| | ms, median | min - max | ratio |\n| --- | --- | --- | --- |")
    for name, s in seconds.items():
        middle, low, high = (1000 * x for x in (statistics.median(s), min(s), max(s)))
        print(f"| {name} | {middle:.1f} | {low:.1f} - {high:.1f} | {middle / 1000 / bare:.2f} |")


def by_turns(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for i in range(rounds + 2):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            if i >= 2:  # the first ones compile
                seconds[name].append(time.perf_counter() - start)
    return seconds


def start(options: argparse.Namespace) -> None:
    """Compares the time from `python app.py` to the first caption with importing and loading."""
    seconds: dict[str, list[float]] = {
        "import tensorflow, load the weights": [],
        "first caption": [],
    }
    least, first = seconds.values()
    for _ in range(options.rounds + 1):
        command = [sys.executable, "-c", LEAST, str(CHECKPOINT)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        least.append(float(done.stdout))
        with tempfile.TemporaryDirectory() as folder:
            first.append(first_caption(Path(folder)))
    for s in seconds.values():
        del s[0]  # in the first round, the files were not in memory yet
    for name, s in seconds.items():
        print(f"{name}: {statistics.median(s):.1f} s ({min(s):.1f} - {max(s):.1f})")
    ratios = [b / a for a, b in zip(least, first, strict=True)]
    print(f"ratio, median of {options.rounds} rounds: {statistics.median(ratios):.2f}")


def first_caption(folder: Path) -> float:
    """The seconds until a new process has answered."""
    from app_process import running_app

    begin = time.perf_counter()
    with running_app(folder) as app:
        assert Visitor(app.url).ask(photo().read_bytes()) == "caption"
        return time.perf_counter() - begin


def crowd(options: argparse.Namespace) -> None:
    """Compares 32 clients at once with one client, and measures the memory during all turns."""
    from app_process import running_app

    turn = options.seconds / options.turns
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder)) as app:
        visit(app.url, 1, min(10, turn))
        answered = 0
        while answered < options.warm_up:
            answered += sum(visit(app.url, options.clients, 10).values())
        memory = [app.memory]
        rates: dict[str, list[float]] = {"one": [], "many": []}
        outcomes: Counter[str] = Counter()
        for _ in range(options.turns):
            for name, clients in (("one", 1), ("many", options.clients)):
                found = visit(app.url, clients, turn)
                rates[name].append(found["caption"] / turn)
                outcomes += found
                memory.append(app.memory)
        print(f"one client: {shown(rates['one'])} captions/s")
        print(f"{options.clients} clients: {shown(rates['many'])} captions/s")
        ratios = [b / a for a, b in zip(rates["one"], rates["many"], strict=True)]
        print(f"ratio, median of {options.turns} turns: {statistics.median(ratios):.2f}")
        print(f"answers: {dict(outcomes)}")
        print("memory after warm-up and after each turn, MB:", *(f"{m:.0f}" for m in memory))


def shown(rates: list[float]) -> str:
    return f"{statistics.median(rates):.2f} ({min(rates):.2f} - {max(rates):.2f})"


def visit(url: str, clients: int, seconds: float) -> Counter[str]:
    """Counts the answers that `clients` get within `seconds`. Each of them asks again as soon as it
    has its answer. Answers that come later do not count."""
    outcomes: Counter[str] = Counter()
    content = photo().read_bytes()
    end = time.monotonic() + seconds

    def stay() -> None:
        visitor = Visitor(url)
        while time.monotonic() < end:
            outcome = visitor.ask(content)
            if time.monotonic() < end:
                outcomes[outcome] += 1

    threads = [threading.Thread(target=stay) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


class Visitor:
    """Sends a photo, asks for captions and waits for them, over one connection.

    It uses the standard library's client, because it shares the processor with the server.
    """

    def __init__(self, url: str) -> None:
        self.host, self.port = re.match(r"http://([^:]+):(\d+)/", url).groups()
        self.connection = http.client.HTTPConnection(self.host, int(self.port), timeout=300)

    def ask(self, content: bytes) -> str:
        """ "caption", "busy", or what went wrong."""
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\r\n\r\n'
        status, body = self._send(
            "upload", form + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
        )
        if status != 200:
            return f"upload: {status}"
        image = {"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}
        data = json.dumps({"data": [image, 3, "sample", 0.5, 0]}).encode()
        status, body = self._send("call/caption", data, "application/json")
        if status != 200:
            return "busy" if status == 503 else f"call: {status}"
        status, body = self._send(f"call/caption/{json.loads(body)['event_id']}")
        if status == 200 and b"event: complete" in body:
            return "caption"
        return f"answer: {status} {body[-200:]!r}"

    def _send(self, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        headers = {"Content-Type": kind} if body else {}
        method = "POST" if body else "GET"
        self.connection.request(method, f"/gradio_api/{path}", body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def photo() -> Path:
    """The photo of Grace Hopper that Matplotlib brings, 512 x 600 pixels."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["request", "start", "crowd"])
    parser.add_argument("--rounds", type=int, default=20, help="for request and start")
    parser.add_argument("--captions", type=int, default=3, help="captions per request")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120, help="for crowd: in all turns")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument(
        "--warm-up",
        type=int,
        default=600,
        help="for crowd: requests before the first turn (the page keeps 500 sessions)",
    )
    options = parser.parse_args()
    {"request": request, "start": start, "crowd": crowd}[options.part](options)


if __name__ == "__main__":
    main()
