"""How the pictures of visitors are opened when many come at once."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Photo
from PIL import Image

from captioner.web import reading


def test_few_large_pictures_are_opened_at_once(
    photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = (png(photo(0, width)) for width in (200, 20))
    monkeypatch.setattr(reading, "LARGE", 2000)
    release, load = threading.Event(), reading.load_image
    opened: list[bytes] = []

    def wait_and_load(picture: bytes) -> Any:
        opened.append(picture)
        if picture == large:
            assert release.wait(30)
        return load(picture)

    monkeypatch.setattr(reading, "load_image", wait_and_load)
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(reading.read_picture, large) for _ in range(4)]
        found, _ = pool.submit(reading.read_picture, small).result(30)
        assert found.size == (20, 32), "a small picture does not wait"
        assert opened.count(large) <= 2
        release.set()
        assert [job.result(30)[0].size for job in waiting] == [(200, 32)] * 4


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
