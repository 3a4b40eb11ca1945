"""What this browser keeps of a visit, and what a reload shows."""

from __future__ import annotations

import json
from collections.abc import Callable

from app_process import App
from conftest import DESKTOP
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect
from test_browser import give, layer, words
from test_visit import CAPTIONS, asked, rest, texts

from captioner.web.examples import example_photos

OpenPage = Callable[..., Page]


def test_the_history_survives_a_reload_and_stays_here(open_page: OpenPage) -> None:
    page = open_page()
    bodies = asked(page)
    give(page, example_photos()[1])
    page.get_by_label("First words of a caption").fill("a dog")
    page.get_by_role("button", name="Complete").click()
    expect(page.locator(CAPTIONS)).to_have_count(4)
    before, shown, large = texts(page), words(page), layer(page)
    give(page, example_photos()[0])
    entries = page.locator("#intake .entries button")
    expect(entries).to_have_count(2)
    rest(page)

    latest = texts(page)
    bodies.clear()
    page.reload()
    expect(entries).to_have_count(2)
    expect(page.locator(CAPTIONS)).to_have_count(3)
    assert texts(page) == latest, "a reload shows what was shown"
    entries.nth(1).click()
    expect(page.locator(CAPTIONS)).to_have_count(4)
    assert texts(page) == before
    page.locator(CAPTIONS).first.click()
    assert words(page) == shown
    page.locator("#viewer .words button").nth(1).hover()
    assert layer(page) == large
    assert bodies == [], "it was shown without the server"
    # Data of others in the same place is left alone, and takes nothing away.
    page.evaluate(
        """() => {
            const kept = JSON.parse(localStorage.getItem("captioner-history"));
            localStorage.setItem("captioner-history", JSON.stringify([1, null, {}, ...kept]));
        }"""
    )
    page.reload()
    expect(entries).to_have_count(2)
    entries.nth(1).click()
    # What is asked of such a photo takes the photo with it.
    complete_and_download(page, "two dogs", captions=5)
    page.get_by_role("button", name="Clear").click()
    expect(entries).to_have_count(0)
    page.reload()
    page.wait_for_timeout(500)
    expect(page.locator("#intake .past")).to_be_hidden()


def complete_and_download(page: Page, beginning: str, captions: int) -> None:
    """Has a caption completed, of which there are so many then, and downloads its grid."""
    page.get_by_label("First words of a caption").fill(beginning)
    page.get_by_role("button", name="Complete").click()
    expect(page.locator(CAPTIONS)).to_have_count(captions)
    assert words(page)[:2] == beginning.split()
    with page.expect_download() as download:
        page.get_by_role("button", name="Grid as PNG").click()
    with Image.open(download.value.path()) as picture:
        assert max(picture.size) > 1200


def test_a_photo_that_the_server_has_forgotten_is_sent_again(open_page: OpenPage) -> None:
    """As it forgets those of the oldest visitors when there are many, and all when it restarts."""
    page = open_page()
    give(page, example_photos()[0])
    rest(page)

    def forget(route: Route) -> None:
        body = json.loads(route.request.post_data)
        if body.get("event_data"):
            body["event_data"]["key"] = "forgotten" if body["event_data"].get("key") else None
        route.continue_(post_data=json.dumps(body))

    page.route("**/queue/join*", forget)
    complete_and_download(page, "a dog", captions=4)


def test_what_was_shown_or_cleared_is_kept_so_at_once(app: App, chromium: Browser) -> None:
    """However soon the page is closed, and whatever another page of this browser has kept."""
    context = chromium.new_context(viewport=DESKTOP, reduced_motion="reduce")

    def opened(change: str = "") -> Page:
        page = context.new_page()
        if change:
            page.add_init_script(change)
        page.goto(app.url)
        page.wait_for_selector("#viewer .result, #viewer .empty", state="attached")
        return page

    kept = "JSON.stringify(Object.entries(localStorage))"
    # Whatever is in the browser's memory the moment that the list has changed.
    first = opened(
        "new MutationObserver(() => { window.atOnce ??= "
        "document.querySelector('#intake .entries button') ? " + kept + " : undefined; })"
        ".observe(document, { childList: true, subtree: true });"
    )
    second = opened()
    give(first, example_photos()[1])
    expect(first.locator("#intake .entries button")).to_have_count(1)
    rest(first)
    assert first.evaluate("atOnce.length") > 1000
    give(second, example_photos()[0])
    rest(second)
    give(first, example_photos()[2])
    expect(first.locator("#intake .entries button")).to_have_count(3)
    assert (
        first.evaluate(
            f"() => {{ document.querySelector('#intake .clear').click(); return {kept}.length; }}"
        )
        < 200
    )
    expect(first.locator("#intake .past")).to_be_hidden()
    context.close()


def test_what_was_shown_is_there_again_after_a_lost_connection(open_page: OpenPage) -> None:
    """Gradio reloads the page when the server can be reached again."""
    page = open_page(
        path="?captions=2&example=1&seed=1", expected="ERR_|Failed to fetch|errored out"
    )
    expect(page.locator(CAPTIONS)).to_have_count(2)
    rest(page)
    page.get_by_role("button", name="Example photo 2").click()
    rest(page)
    before = texts(page)
    bodies = asked(page)
    page.route("**/queue/data*", lambda route: route.abort(), times=1)
    with page.expect_event("load"):
        page.get_by_role("button", name="Example photo 3").click()
    expect(page.locator("#intake .entries button")).to_have_count(2)
    expect(page.locator(CAPTIONS)).to_have_count(2)
    rest(page)
    assert texts(page) == before and len(bodies) == 1, "nothing was asked anew"
    expect(page.get_by_text("reloaded before the server had answered. Ask again")).to_be_visible()
    page.get_by_role("button", name="Example photo 3").click()
    expect(page.locator("#intake .entries button")).to_have_count(3)
    page.reload()
    expect(page.locator(CAPTIONS).first).to_be_visible()
    expect(page.locator("#viewer .refused")).to_be_hidden()
