"""A captioned photo as one HTML file, opened in a real browser without any server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captioner.captioner import Caption
from captioner.drawing.embed import caption_html


@pytest.fixture
def caption() -> Caption:
    attention = np.zeros((3, 4, 4), np.float32)
    attention[0, 0, 0] = attention[1, 3, 3] = 1
    attention[2] = 1 / 16
    words = ["a", "</script><b>dog", 'says"hi']
    return Caption(" ".join(words), words, [-0.1, -1.0, -9.0], attention)


def test_words_light_up_without_a_server(chromium, photo, caption, tmp_path: Path) -> None:
    file = tmp_path / "dog.html"
    file.write_text(caption_html(photo(1, 1600, 800), caption), "utf-8")
    page = chromium.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    assert page.locator("button").all_text_contents() == caption.words
    assert page.locator("img").get_attribute("alt") == caption.text
    assert page.evaluate("document.querySelector('img').naturalWidth") == 1024
    darkness = """() => {
        const { width, height } = document.querySelector("canvas");
        const context = document.querySelector("canvas").getContext("2d");
        const alpha = (x, y) => context.getImageData(x, y, 1, 1).data[3];
        return [alpha(4, 4), alpha(width - 4, height - 4)];
    }"""
    page.locator("button").nth(0).hover()
    first, last = page.evaluate(darkness)
    assert first < last  # the light is at the upper left
    page.locator("button").nth(1).focus()
    first, last = page.evaluate(darkness)
    assert first > last
    assert page.locator('button[aria-pressed="true"]').all_text_contents() == [caption.words[1]]
    page.mouse.move(1, 1)
    page.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
