"""Damaged pictures, many of them, through the endpoint of the running app.

With CAPTIONER_FUZZ=2000 in the environment there are 2,000 instead of a few.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from app_process import App
from PIL import Image

from captioner.web.examples import example_photos

COUNT = int(os.environ.get("CAPTIONER_FUZZ", "80"))
# The messages of `data.images`, the file's name before each; Pillow's own words in brackets.
DOCUMENTED = re.compile(
    r"picture-\d+\.\w+ (is empty|is not a picture this program can read|has no pixels"
    r"|is damaged or cut short \(.*\)|has more than 64 million pixels)",
    re.DOTALL,
)


def whole_pictures() -> list[tuple[str, bytes]]:
    """Small pictures in every format that is read, with their file name's ending."""
    pictures = []
    for path in example_photos()[:3]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.thumbnail((160, 160))
        alpha = image.copy()
        alpha.putalpha(128)
        exif = Image.Exif()
        exif[0x0112] = 6
        for ending, shown, options in (
            ("jpg", image, {"exif": exif}),
            ("jpg", image, {"progressive": True}),
            ("png", alpha, {}),
            ("webp", alpha, {}),
            ("gif", image, {"save_all": True, "append_images": [alpha.convert("RGB")]}),
            ("bmp", image, {}),
            ("tiff", image, {"compression": "tiff_lzw"}),
            ("avif", image, {}),
            ("jp2", image, {}),
            ("ppm", image, {}),
        ):
            file = io.BytesIO()
            shown.save(file, {"jpg": "JPEG", "jp2": "JPEG2000"}.get(ending, ending), **options)
            pictures.append((ending, file.getvalue()))
    return pictures


def mutated(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` file names and contents, the same ones for the same seed."""
    random = np.random.default_rng(seed)
    whole = whole_pictures()
    for i in range(count):
        ending, content = whole[random.integers(len(whole))]
        data = np.frombuffer(content, np.uint8).copy()
        kind = i % 4
        if kind == 0:  # bits flipped anywhere
            places = random.integers(len(data), size=random.integers(1, 40))
            data[places] ^= np.uint8(1) << random.integers(8, size=len(places)).astype(np.uint8)
        elif kind == 1:  # bits flipped in the header, where sizes and offsets are
            places = random.integers(min(64, len(data)), size=random.integers(1, 6))
            data[places] ^= np.uint8(1) << random.integers(8, size=len(places)).astype(np.uint8)
        elif kind == 2:  # cut off
            data = data[: random.integers(len(data))]
        else:  # the beginning of another file
            other = np.frombuffer(whole[random.integers(len(whole))][1], np.uint8)
            length = random.integers(2, 64)
            data = np.concatenate([other[:length], data[length:]])
        yield f"picture-{i}.{ending}", data.tobytes()


def outcome(http: httpx.Client, name: str, content: bytes) -> str:
    """ "caption", or the message that the picture was refused with."""
    uploaded = http.post("upload", files={"files": (name, content)})
    assert uploaded.status_code == 200, uploaded.text
    image = {"path": uploaded.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    request = {"data": [image, 1, "greedy", 0.5, 0]}
    event = http.post("call/caption", json=request).json()["event_id"]
    lines = http.get(f"call/caption/{event}").text.splitlines()
    kind = [line for line in lines if line.startswith("event: ")][-1].removeprefix("event: ")
    data = json.loads([line for line in lines if line.startswith("data: ")][-1][6:])
    if kind == "complete":
        assert data[0]["captions"][0]["words"]
        return "caption"
    assert kind == "error"
    return data["error"]


def run(app: App, pictures: list[tuple[str, bytes]]) -> list[str]:
    limits = httpx.Limits(max_connections=8)
    with (
        httpx.Client(base_url=app.url + "gradio_api/", timeout=120, limits=limits) as http,
        ThreadPoolExecutor(8) as pool,
    ):
        return list(pool.map(lambda picture: outcome(http, *picture), pictures))


@pytest.mark.timeout(300 + COUNT)
def test_damaged_pictures_are_captioned_or_refused(app: App) -> None:
    pictures = list(mutated(COUNT, seed=5))
    warm_up = run(app, whole_pictures())
    assert set(warm_up) == {"caption"}, warm_up
    # The largest pictures that are accepted fill this much for a moment, in eight threads.
    run(app, pictures[: COUNT // 4])
    before = app.memory
    told = len(app.log)  # by other tests, which are meant to be refused with a traceback
    outcomes = run(app, pictures)
    kinds = Counter()
    for (name, _), found in zip(pictures, outcomes, strict=True):
        if found != "caption":
            documented = DOCUMENTED.match(found)
            assert documented and name in found, found
            assert "/" not in found.replace(name, "") and "Traceback" not in found, found
        kinds["caption" if found == "caption" else "refused"] += 1
    assert min(kinds["caption"], kinds["refused"]) > COUNT / 20, kinds
    assert "Traceback" not in app.log[told:]
    limit = time.monotonic() + 90  # the server returns freed memory once a minute
    while app.memory >= before + 150:
        assert time.monotonic() < limit, "memory comes back"
        time.sleep(1)
    assert run(app, whole_pictures()[:3]) == ["caption"] * 3
