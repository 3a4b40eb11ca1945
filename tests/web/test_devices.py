"""The page with a mouse, a finger or a screen reader, and with files of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from test_browser import PHONE, give
from test_page import region
from test_visit import CAPTIONS, open_options, rest, texts

from captioner.web.examples import example_photos

OpenPage = Callable[..., Page]


def drop(page: Page, files: list[Path]) -> None:
    """Drops files of this machine on the heading, as a desktop does."""
    dispatch(page, {"items": [], "files": [str(file) for file in files]}, page.locator("h1"))


def dispatch(page: Page, data: dict, target: Locator) -> None:
    """Drags data to an element, and drops it there."""
    desktop = page.context.new_cdp_session(page)
    data = data | {"dragOperationsMask": 1}
    place = target.bounding_box()
    where = {"x": place["x"] + 20, "y": place["y"] + 10}
    for kind in ("dragEnter", "dragOver", "drop"):
        desktop.send("Input.dispatchDragEvent", {"type": kind, "data": data, **where})


def test_a_photo_can_be_dropped_and_pasted_anywhere(open_page: OpenPage) -> None:
    page = open_page()
    data = list(example_photos()[0].read_bytes())
    bring = """([data, kind]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(data)], `${kind}.png`, { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        const event = kind === "drop"
            ? new DragEvent("drop", { dataTransfer: transfer, ...options })
            : new ClipboardEvent("paste", { clipboardData: transfer, ...options });
        document.querySelector("h1").dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    assert page.evaluate(bring, [data, "drop"])
    expect(page.locator(CAPTIONS)).to_have_count(3)
    expect(page.get_by_role("button", name="drop.png")).to_be_visible()
    assert page.evaluate(bring, [data, "paste"])
    expect(page.get_by_role("button", name="paste.png")).to_be_visible()
    # Several files, or a folder, belong into the other tab.
    drop(page, [example_photos()[0], example_photos()[1]])
    expect(page.get_by_text("These are 2 files. Give one photo here")).to_be_visible()
    drop(page, [example_photos()[0].parent])
    expect(page.get_by_text("examples is a folder. Give one photo here")).to_be_visible()
    # A link cannot be had, and belongs into a text field if it is dropped there.
    link = {"items": [{"mimeType": "text/uri-list", "data": "http://127.0.0.1:9/photo.jpg"}]}
    dispatch(page, link, page.get_by_label("First words of a caption"))
    expect(page.get_by_text("This page does not fetch addresses")).to_be_hidden()
    dispatch(page, link, page.locator("h1"))
    expect(page.get_by_text("This page does not fetch addresses")).to_be_visible()
    # So does text with its picture, as programs for tables copy it.
    table = """data => {
        const transfer = new DataTransfer();
        transfer.setData("text/plain", "two dogs");
        transfer.items.add(new File([new Uint8Array(data)], "table.png", { type: "image/png" }));
        const options = { clipboardData: transfer, bubbles: true, cancelable: true };
        const event = new ClipboardEvent("paste", options);
        document.querySelector("#viewer .begin input").dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    assert not page.evaluate(table, data)
    # What cannot be had is said. (No permission has been granted.)
    page.get_by_role("button", name="Paste", exact=True).click()
    expect(page.get_by_text("does not let this page read the clipboard")).to_be_visible()
    page.evaluate(
        """() => navigator.mediaDevices.getUserMedia =
            async () => { throw new DOMException("none", "NotFoundError"); }"""
    )
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.get_by_text("No camera was found")).to_be_visible()


def test_files_that_a_browser_cannot_show(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    with Image.open(example_photos()[1]) as photo:
        photo.convert("RGB").save(tmp_path / "scan.tiff")
    give(page, tmp_path / "scan.tiff")
    size = page.locator("#viewer .stage img").evaluate("i => [i.naturalWidth, i.naturalHeight]")
    expect(page.get_by_text("shown squeezed")).to_be_hidden()
    with Image.open(tmp_path / "scan.tiff") as photo:
        assert size[0] / size[1] == pytest.approx(photo.width / photo.height, abs=0.02)
    for name, advice in (
        ("logo.svg", "Export it as a PNG"),
        ("report.pdf", "Export its page as a PNG"),
        ("holiday.mp4", "take a screenshot"),
    ):
        (tmp_path / name).write_text("<svg/>")
        page.set_input_files("#photo-file", tmp_path / name)
        expect(page.get_by_text(name)).to_contain_text(advice)
    # HEIC is what iPhones make: the server says what to do, and a browser that can open the file
    # sends a JPEG. (This browser looks at a file's content.)
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic")
    page.set_input_files("#photo-file", tmp_path / "phone.heic")
    expect(page.get_by_text("phone.heic")).to_contain_text("Export it as a JPEG")
    expect(page.locator(CAPTIONS)).to_have_count(3)
    (tmp_path / "phone.heic").write_bytes(example_photos()[0].read_bytes())
    page.set_input_files("#photo-file", tmp_path / "phone.heic")
    expect(page.get_by_role("button", name="phone.jpg")).to_be_visible()


@pytest.mark.parametrize("size", [(300, 4000), (6000, 400)])
def test_tall_and_wide_photos_stay_within_bounds(
    open_page: OpenPage, tmp_path: Path, size: tuple[int, int]
) -> None:
    with Image.open(example_photos()[1]) as photo:
        photo.convert("RGB").resize(size).save(tmp_path / "long.jpg")
    page = open_page(PHONE)
    give(page, tmp_path / "long.jpg")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    stage = page.locator("#viewer .stage").bounding_box()
    assert min(stage["width"], stage["height"]) > 64  # enough to draw a box
    assert stage["height"] <= PHONE["height"] / 2
    expect(page.get_by_text("shown squeezed")).to_be_visible()
    tiles = [tile.bounding_box() for tile in page.locator("#viewer .tiles figure").all()]
    assert max(tile["height"] for tile in tiles) < 180
    assert min(min(tile["width"], tile["height"]) for tile in tiles) > 48
    assert page.locator("#viewer .tiles").bounding_box()["height"] < 3 * PHONE["height"]


def test_a_finger_draws_a_box_or_scrolls(open_page: OpenPage) -> None:
    page = open_page({"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    give(page, example_photos()[1])
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    touch = page.context.new_cdp_session(page)
    box = page.locator("#viewer .stage").bounding_box()

    def swipe(start: tuple[float, float], end: tuple[float, float]) -> None:
        for step in range(11):
            x, y = (a + (b - a) * step / 10 for a, b in zip(start, end, strict=True))
            point = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
            kind = "touchMove" if step else "touchStart"
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    swipe((0.2, 0.2), (0.8, 0.8))
    expect(page.get_by_role("button", name="Whole photo")).to_be_visible()
    assert region(page) == pytest.approx([0.2, 0.2, 0.8, 0.8], abs=0.04)
    assert page.evaluate("scrollY") == 0
    rest(page)
    drawn = region(page)
    swipe((0.5, 0.9), (0.5, 0.2))
    page.wait_for_function("scrollY > 50")
    rest(page)
    assert region(page) == drawn


def test_captions_are_announced_and_targets_are_large(open_page: OpenPage) -> None:
    page = open_page()
    live = page.locator("#viewer .announcer")
    expect(live).to_have_attribute("aria-live", "polite")
    give(page, example_photos()[0])
    expect(live).to_have_text(f"3 captions. The first: {texts(page)[0]}")
    open_options(page)
    page.locator("#viewer .words button").nth(1).click()
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, [role=radio], select, input")]
            .filter((e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
            .filter((e) => !(e.type === "radio" || e.type === "checkbox" || e.type === "range"))
            .map((e) => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
            .filter(([, r]) => r.width && (r.width < 24 || r.height < 24)).map(([html]) => html)"""
    )
    assert small == []
    # What is chosen shows even where the system sets all colours and there are no shadows.
    page.emulate_media(forced_colors="active")
    for chosen in ("#viewer .words [aria-pressed=true]", ".choice.chosen", "[role=tab]"):
        styles = page.locator(chosen).first.evaluate("e => getComputedStyle(e).outlineStyle")
        assert styles == "solid", chosen
    tab = page.locator("[role=tab]").first  # Gradio cuts off what is around it
    assert tab.evaluate("e => getComputedStyle(e).outlineOffset") == "-2px"


def test_right_to_left(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(
        """(photo) => document.dispatchEvent(new CustomEvent("captioner:restore", { detail: {
            id: "x", name: "x", photo, size: [1, 1], region: null, options: null, captions: [{
                text: "כלב רץ בדשא", words: ["כלב", "רץ", "בדשא"], log_probs: [-1, -1, -1],
                attention: [[[1]], [[1]], [[1]]], alternatives: [[], [], []], source: "sample",
                region: null, note: "The model is unsure here." }] } }))""",
        "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=",
    )
    chips = page.locator("#viewer .words button")
    expect(chips).to_have_text(["כלב", "רץ", "בדשא"])
    lefts = [chip.bounding_box()["x"] for chip in chips.all()]
    assert lefts == sorted(lefts, reverse=True)
    chips.nth(1).focus()
    page.keyboard.press("ArrowLeft")
    expect(chips.nth(2)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(chips.nth(1)).to_be_focused()
    span = page.locator(f"{CAPTIONS} span")
    assert span.evaluate("e => getComputedStyle(e).direction") == "rtl"
    expect(page.locator("#viewer .unsure")).to_have_text("The model is unsure here.")
