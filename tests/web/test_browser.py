"""The page in a real browser (headless Chromium), at desktop and phone width.

With CAPTIONER_SCREENSHOT=1 in the environment the README's picture is written anew.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from app_process import ROOT
from conftest import DESKTOP
from PIL import Image
from playwright.sync_api import Page, expect

from captioner.web.examples import example_photos

PHONE = {"width": 390, "height": 844}
OpenPage = Callable[..., Page]
expect.set_options(timeout=30_000)


def give(page: Page, photo: Path, captions: int = 3) -> None:
    page.set_input_files("#photo-file", photo)
    expect(page.locator("#viewer .captions [role=radio]")).to_have_count(captions)
    page.wait_for_function("document.querySelector('#viewer .stage img').naturalWidth > 1")


def words(page: Page) -> list[str]:
    return page.locator("#viewer .words button").all_inner_texts()


def grid_titles(page: Page) -> list[str]:
    captions = page.locator("#viewer .tiles figcaption").all_inner_texts()
    return [re.sub(r" <?\d+%$", "", caption) for caption in captions]


def layer(page: Page) -> str:
    """What is drawn over the large photo."""
    return page.locator("#viewer .stage canvas").evaluate("canvas => canvas.toDataURL()")


def search_with_a_beam(page: Page) -> None:
    """Captions by beam search: they are all different, samples need not be."""
    page.get_by_role("button", name="How many captions, and how").click()
    page.get_by_label("beam").check()
    page.get_by_label("number input for Number of captions").fill("4")
    expect(page.locator("#viewer .captions [role=radio]")).to_have_count(4)


def test_a_photo_is_captioned_and_the_grid_is_shown(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    expect(page.locator("#viewer .empty")).to_be_hidden()
    texts = page.locator("#viewer .captions [role=radio] span").all_inner_texts()
    assert len(texts) == 3
    for text in page.locator("#viewer .captions [role=radio] small").all_inner_texts():
        assert re.fullmatch(r"<?\d+% per word", text)
    assert " ".join(words(page)) == texts[0] != ""  # the best one's words come first
    expect(page.get_by_text("Leave a better caption")).to_be_hidden()  # unless it is asked for
    assert grid_titles(page) == ["photo", *words(page)]
    spans = page.locator("#viewer .tiles canvas").evaluate_all(
        """tiles => tiles.map(canvas => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, 256, 256).data;
            const opacities = pixels.filter((_, i) => i % 4 == 3);
            return Math.max(...opacities) - Math.min(...opacities);
        })"""
    )
    assert len(spans) == len(words(page))
    assert min(spans) > 5  # they are attention maps, not flat layers


def test_choosing_another_caption_changes_the_grid(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    search_with_a_beam(page)
    choices = page.locator("#viewer .captions [role=radio]")
    first = grid_titles(page)
    choices.nth(1).click()
    expect(choices.nth(1)).to_have_attribute("aria-checked", "true")
    expect(choices.nth(0)).to_have_attribute("aria-checked", "false")
    assert grid_titles(page) == ["photo", *choices.nth(1).locator("span").inner_text().split()]
    assert grid_titles(page) != first


def test_words_show_their_attention_without_a_round_trip(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    chips = page.locator("#viewer .words button")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    layers = []
    chips.nth(0).hover()
    expect(chips.nth(0)).to_have_attribute("aria-pressed", "true")
    layers.append(layer(page))
    chips.nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(chips.nth(1)).to_be_focused()
    layers.append(layer(page))
    page.keyboard.press("End")
    expect(chips.last).to_have_attribute("aria-pressed", "true")
    alt = page.locator("#viewer .stage img").get_attribute("alt")
    assert alt == f'The photo, lit where the model looked for "{words(page)[-1]}"'
    layers.append(layer(page))
    chips.nth(1).click()
    assert layer(page) == layers[1]
    assert len(set(layers)) == 3
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == []


def test_the_film_walks_through_the_words(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    play = page.locator("#viewer .play")
    pressed = page.locator("#viewer .words [aria-pressed=true]")
    play.click()
    expect(play).to_have_text("■ Stop")
    for index in range(2):
        expect(page.locator("#viewer .words button").nth(index)).to_have_attribute(
            "aria-pressed", "true"
        )
    play.click()
    expect(play).to_have_text("▶ Play")
    play.click()
    expect(pressed).to_have_count(0, timeout=20_000)  # it ends by itself, with the bare photo
    expect(play).to_have_text("▶ Play")
    expect(page.locator("#viewer .stage canvas")).to_be_hidden()


def test_grid_and_captions_can_be_taken_away(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    give(page, example_photos()[0])
    with page.expect_download() as download:
        page.get_by_role("button", name="Grid as PNG").click()
    assert download.value.suggested_filename == "attention.png"
    with Image.open(download.value.path()) as picture:
        assert picture.format == "PNG"
        assert max(picture.size) > 1200
    with page.expect_download() as download:
        page.get_by_role("button", name="Film as GIF").click()
    assert download.value.suggested_filename == "attention.gif"
    with Image.open(download.value.path()) as film:
        assert film.format == "GIF"
        assert film.n_frames == len(words(page)) + 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Page as HTML").click()
    assert download.value.suggested_filename == "caption.html"
    html = Path(download.value.path()).read_text("utf-8")
    assert f"<title>{' '.join(words(page))}</title>" in html and "http" not in html
    with page.expect_download() as download:
        page.get_by_role("button", name="Captions as JSON").click()
    written = json.loads(Path(download.value.path()).read_text())
    assert written["captions"][0]["words"] == words(page)
    assert len(written["captions"]) == 3
    # Each click in a hurry gives its file, and a double click gives one.
    names: list[str] = []
    page.on("download", lambda download: names.append(download.suggested_filename))
    page.get_by_role("button", name="Film as GIF").dblclick()
    page.get_by_role("button", name="Grid as PNG").click()
    page.get_by_role("button", name="Page as HTML").click()
    expect(page.locator("#viewer .actions [aria-busy=true]")).to_have_count(0)
    page.wait_for_timeout(300)
    assert names == ["attention.gif", "attention.png", "caption.html"]


def test_all_of_a_photo_is_one_archive(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(path="?seed=7")
    photo = tmp_path / "two: dogs.äö.jpg"
    photo.write_bytes(example_photos()[1].read_bytes())
    give(page, photo)
    page.locator("#viewer .captions [role=radio]").nth(1).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all").click()
    assert download.value.suggested_filename == "two dogs.äö.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        captions, grid, html = map(archive.read, archive.namelist())
    written = json.loads(captions)
    assert written["photo"] == photo.name
    (model,) = written["models"]
    assert model.startswith("captioner-")
    assert written["options"] == {
        "num_captions": 3, "strategy": "sample", "temperature": 0.5, "top_p": 1, "seed": 7
    }  # fmt: skip
    assert [caption["words"] for caption in written["captions"]][1] == words(page)
    with Image.open(io.BytesIO(grid)) as picture:
        assert max(picture.size) > 1200
    assert f"<title>{' '.join(words(page))}</title>" in html.decode()


@pytest.mark.parametrize("number", [1, 2])  # ours, and one that a package ships
def test_an_example_is_captioned(open_page: OpenPage, number: int) -> None:
    page = open_page()
    page.get_by_role("button", name=f"Example photo {number}").click()
    expect(page.locator("#viewer .captions [role=radio]")).to_have_count(3)


def test_a_pasted_photo_is_captioned(open_page: OpenPage) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    file = io.BytesIO()
    with Image.open(example_photos()[0]) as photo:
        photo.save(file, "PNG")
    page.evaluate(
        """async (url) => {
            const blob = await (await fetch(url)).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
    )
    page.get_by_role("button", name="Paste", exact=True).click()
    expect(page.locator("#viewer .captions [role=radio]")).to_have_count(3)


def test_a_photo_taken_with_the_camera_is_captioned(open_page: OpenPage) -> None:
    page = open_page()
    page.context.grant_permissions(["camera"])
    page.evaluate(
        """() => {
            window.streams = [];
            const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
            devices.getUserMedia = async (wanted) => {
                streams.push(await open(wanted));
                return streams.at(-1);
            };
        }"""
    )
    page.locator("#intake .camera").evaluate("button => { button.click(); button.click(); }")
    # Before the first picture has come there is nothing to capture.
    page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    page.get_by_role("button", name="Take the photo").click()
    expect(page.locator("#viewer .captions [role=radio]")).to_have_count(3)
    on = "streams.flatMap((s) => s.getTracks()).filter((t) => t.readyState === 'live').length"
    assert page.evaluate(on) == 0, "the camera is off"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(open_page: OpenPage, scheme: str) -> None:
    page = open_page(PHONE, color_scheme=scheme)
    give(page, example_photos()[0])
    # The photo with its attention comes first, and all of it can be seen; then the controls.
    expect(page.locator("#viewer .stage")).to_be_in_viewport(ratio=1)
    expect(page.locator("#viewer .words button").first).to_be_in_viewport(ratio=1)
    tops = [page.locator(part).bounding_box()["y"] for part in ("#viewer .stage", "#intake")]
    assert tops == sorted(tops)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    for chip in page.locator("#viewer .words button").all():
        assert chip.bounding_box()["height"] >= 36  # for fingers


def test_pictures_have_alternative_texts_and_controls_have_labels(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    page.get_by_role("button", name="How many captions, and how").click()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("#viewer img, #viewer button")]
            .filter(e => !(e.alt || e.ariaLabel || e.innerText)).map(e => e.outerHTML)"""
    )
    assert unnamed == []
    for label in ("Temperature", "Seed", "Number of captions"):
        expect(page.get_by_label(label).first).to_be_visible()


def test_the_words_are_those_of_the_chosen_caption(open_page: OpenPage) -> None:
    for photo in example_photos()[:2]:
        page = open_page()
        give(page, photo)
        choices = page.locator("#viewer .captions [role=radio]")
        chances = []
        for choice in choices.all():
            choice.click()
            assert " ".join(words(page)) == choice.locator("span").inner_text()
            chances.append(int(re.search(r"(\d+)%", choice.inner_text())[1]))
        assert chances == sorted(chances, reverse=True)


def test_the_screenshot_of_the_readme(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(color_scheme="light")
    give(page, example_photos()[0])
    page.locator("#viewer .words button").nth(1).hover()
    wanted = os.environ.get("CAPTIONER_SCREENSHOT") == "1"
    path = ROOT / "assets" / "screenshot.png" if wanted else tmp_path / "screenshot.png"
    page.screenshot(path=path)
    with Image.open(path) as picture:
        assert picture.size == (DESKTOP["width"], DESKTOP["height"])
