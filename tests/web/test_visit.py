"""A whole visit in a real browser: one change is one request, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect
from test_browser import give, layer

from captioner.web.examples import example_photos

OpenPage = Callable[..., Page]
CAPTIONS = "#viewer .captions [role=radio]"
OPTIONS = "How many captions, and how"

# What is on the page at each of its frames, from the first caption on: the first caption, and where
# the heading, the photo and the first word stand.
WATCH = """() => {
    window.frames_seen = [];
    const placeOf = (selector) => {
        const place = document.querySelector(selector).getBoundingClientRect();
        return [place.left, place.top, place.width, place.height].map(Math.round);
    };
    const look = () => {
        const first = document.querySelector("#viewer .captions [role=radio] span");
        if (first) frames_seen.push(JSON.stringify([
            first.textContent, placeOf("h1"), placeOf("#viewer .stage"),
            placeOf("#viewer .words button"),
        ]));
        requestAnimationFrame(look);
    };
    look();
}"""


def rest(page: Page) -> None:
    """Waits until nothing is being worked on or about to be."""
    page.wait_for_timeout(350)
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "false")


def open_options(page: Page) -> None:
    page.get_by_role("button", name=OPTIONS).click()
    expect(page.get_by_label("Seed")).to_be_visible()
    page.wait_for_timeout(300)  # Gradio sets the values once more as it shows them first


def texts(page: Page) -> list[str]:
    return page.locator(f"{CAPTIONS} span").all_inner_texts()


def asked(page: Page) -> list[str]:
    """A list that grows with the body of each request that the page makes of the server's queue."""
    bodies: list[str] = []
    page.on(
        "request", lambda r: bodies.append(r.post_data or "") if "queue/join" in r.url else None
    )
    return bodies


def test_one_change_is_one_request(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    bodies = asked(page)
    again = page.get_by_role("button", name="New samples")
    expect(again).to_be_hidden()  # there is nothing yet to have new samples of
    page.get_by_role("button", name="Example photo 1").dblclick()
    expect(page.locator(CAPTIONS)).to_have_count(3)
    rest(page)
    assert len(bodies) == 1
    first = texts(page)
    # The same photo, as a file. The history has it once.
    page.set_input_files("#photo-file", example_photos()[0])
    expect(page.get_by_role("button", name=f"{example_photos()[0].name}: ")).to_be_visible()
    expect(page.locator("#intake .entries button")).to_have_count(1)
    rest(page)
    assert len(bodies) == 2 and texts(page) == first
    bodies.pop()
    expect(page.locator("#viewer .seed")).to_have_text("seed 0")

    again.click()
    expect(page.locator("#viewer .seed")).not_to_have_text("seed 0")
    rest(page)
    assert len(bodies) == 2
    open_options(page)
    seed = page.get_by_label("Seed")
    expect(page.locator("#viewer .seed")).to_have_text(f"seed {seed.input_value()}")
    seed.fill("0")
    expect(page.locator("#viewer .seed")).to_have_text("seed 0")
    rest(page)
    assert texts(page) == first  # the same seed, the same samples
    assert len(bodies) == 3

    page.set_input_files("#photo-file", example_photos()[1])
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "true")
    rest(page)
    assert len(bodies) == 4
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam,\n")
    page.set_input_files("#photo-file", tmp_path / "letter.jpg")
    expect(page.get_by_text("letter.jpg is not a picture")).to_have_count(1)
    rest(page)
    assert len(bodies) == 5


@pytest.mark.parametrize("path", ["", "?strategy=compare"])
def test_what_is_shown_first_stays_where_it_is(open_page: OpenPage, path: str) -> None:
    page = open_page(path=path)
    before = page.locator("h1").bounding_box()
    page.evaluate(WATCH)
    page.set_input_files("#photo-file", example_photos()[1])
    expect(page.locator(CAPTIONS).nth(2)).to_be_visible()
    rest(page)
    assert page.locator("h1").bounding_box() == before
    seen = page.evaluate("frames_seen")
    assert len(seen) > 5
    assert len(set(seen)) == 1, "nothing moved or was replaced"


def test_the_last_request_wins(open_page: OpenPage) -> None:
    page = open_page(path="?captions=2")
    give(page, example_photos()[0], captions=2)
    open_options(page)
    page.get_by_label("beam").check()
    page.wait_for_timeout(320)  # now beam search is at work
    page.get_by_label("compare").check()
    groups = page.locator("#viewer .captions section h3")
    expect(groups).to_have_text(["Greedy", "Beam", "Samples"])
    rest(page)
    expect(page.get_by_label("compare")).to_be_checked()
    # Of two photos, too, and of a region that was chosen on the first.
    page.get_by_role("button", name="Example photo 3").click()
    page.locator("#viewer .stage").click()
    page.get_by_role("button", name="Example photo 2").click()
    rest(page)
    expect(page.locator("#viewer .result")).to_have_attribute("data-example", "2")
    expect(page.get_by_role("button", name="Whole photo")).to_be_hidden()
    # An earlier photo needs no server, so it does not wait for the server either.
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.get_by_role("button", name="Example photo 4").click()
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "true")
    earlier = page.locator("#intake .entries button").last
    earlier.click()
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "false")
    assert earlier.get_attribute("title") in texts(page)
    with page.expect_response("**/queue/data*"):
        held.pop().continue_()
    page.wait_for_timeout(1000)
    assert earlier.get_attribute("title") in texts(page), "the answer comes too late"


def test_a_wrong_option_or_file_takes_nothing_away(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    give(page, example_photos()[0])
    before = texts(page)
    open_options(page)
    for wrong in ("-1", ""):
        page.get_by_label("Seed").fill(wrong)
        message = page.get_by_text("seed must be a whole number")
        expect(message).to_be_visible()
        rest(page)
        expect(message).to_have_count(1)
        assert texts(page) == before
    page.get_by_label("Seed").fill("0")
    expect(message).to_be_hidden()

    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam,\n")
    (tmp_path / "empty.png").write_bytes(b"")
    page.set_input_files("#photo-file", tmp_path / "letter.jpg")
    expect(page.get_by_text("letter.jpg is not a picture this program can read")).to_be_visible()
    page.clock.install()
    page.set_input_files("#photo-file", tmp_path / "empty.png")
    expect(page.get_by_text("empty.png is empty")).to_be_visible()
    expect(page.get_by_text("letter.jpg")).to_be_hidden()  # messages do not pile up
    rest(page)
    assert texts(page) == before
    page.clock.fast_forward(11_000)  # Gradio's own messages go after ten seconds
    expect(page.get_by_text("empty.png is empty")).to_be_visible()
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.set_input_files("#photo-file", example_photos()[1])
    expect(page.get_by_text("empty.png is empty")).to_be_hidden()  # as soon as there is another
    while not held:
        page.wait_for_timeout(50)
    held.pop().continue_()
    rest(page)
    assert texts(page) != before


def test_a_caption_can_be_marked_and_copied(open_page: OpenPage) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    give(page, example_photos()[0])
    second = texts(page)[1]
    page.locator(f"{CAPTIONS} span").nth(1).click(click_count=3)
    assert page.evaluate("getSelection().toString()").strip() == second
    copy = page.get_by_role("button", name=f"Copy “{second}”")
    copy.click()
    expect(page.locator("#viewer .announcer")).to_have_text("Copied.")
    expect(copy).to_have_text("Copied")
    copy.click()
    assert page.evaluate("navigator.clipboard.readText()") == second
    page.locator(CAPTIONS).nth(1).press("Enter")
    page.get_by_role("button", name="Copy HTML alt text").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    # Where that is forbidden, the text is marked, or stands there to be marked.
    page.evaluate("() => navigator.clipboard.writeText = async () => { throw new Error(); }")
    page.get_by_role("button", name=f"Copy “{second}”").click()
    assert page.evaluate("getSelection().toString()") == second
    page.get_by_role("button", name="Copy HTML alt text").click(timeout=5000)
    expect(page.get_by_text("This is the text: <img")).to_be_visible()
    page.wait_for_timeout(2200)
    assert copy.inner_text() == "Copy", "its own text is back"
    chosen = page.locator(f"{CAPTIONS}[aria-checked=true] span").inner_text()
    assert copied == f'<img src="{example_photos()[0].name}" alt="{chosen}">'


def test_what_the_numbers_and_shades_mean(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    page.get_by_text("What the numbers and shades mean").click()
    expect(page.get_by_text("the probability that the model gave it")).to_be_visible()
    chip = page.locator("#viewer .words button").nth(1)
    assert "probability of" in chip.get_attribute("title")
    chip.hover()
    light = layer(page)
    scale = page.locator("#viewer .scale")
    expect(scale).to_contain_text("of the attention, per cell")
    page.get_by_role("button", name="Heat map").click()
    heat = layer(page)
    page.get_by_label("Colours of the heat map").select_option("viridis")
    green = layer(page)
    page.get_by_label("Opacity of the heat map").fill("100")
    opaque = layer(page)
    page.get_by_label("Special to this word").check()
    expect(scale).to_contain_text("the caption's mean")
    special = layer(page)
    assert len({light, heat, green, opaque, special}) == 5
    page.get_by_role("button", name="Spotlight").click()
    page.get_by_label("Special to this word").uncheck()
    assert layer(page) == light
    # "The model nearly said" stands above words that were nearly as probable.
    with page.expect_download() as download:
        page.get_by_role("button", name="Captions as JSON").click()
    caption = json.loads(download.value.path().read_text())["captions"][0]
    for i, (log_prob, others) in enumerate(
        zip(caption["log_probs"], caption["alternatives"], strict=True)
    ):
        page.locator("#viewer .words button").nth(i).click()
        near = [o for o in others if o["log_prob"] > min(log_prob - 1.387, -2.303)]
        titles = page.locator("#viewer .others p").all_inner_texts()
        assert any("the model nearly said" in title for title in titles) == bool(near)
        assert any("less likely" in title for title in titles) == (len(near) < len(others))


def test_what_it_cannot_do_is_said_and_the_card_is_there(open_page: OpenPage) -> None:
    page = open_page()
    about = page.locator("#about")
    expect(about).to_contain_text("What it cannot do")
    expect(about).to_contain_text("Model: captioner-flickr8k")
    card = page.get_by_role("heading", name="Image captioner with visual attention")
    expect(card).to_be_hidden()
    about.get_by_role("link", name="Model card").click()
    expect(card).to_be_visible()


def test_without_an_answer_it_can_be_tried_again(open_page: OpenPage) -> None:
    page = open_page(expected="503")
    give(page, example_photos()[0])
    before = texts(page)
    page.route("**/queue/join*", lambda r: r.fulfill(status=503, json={"detail": "Queue is full."}))
    page.get_by_label("First words of a caption").fill("a dog")
    page.get_by_role("button", name="Complete").click()
    again = page.get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "false")
    assert texts(page) == before
    page.unroute("**/queue/join*")
    again.click()
    expect(page.locator(CAPTIONS)).to_have_count(4)
    expect(again).to_be_hidden()
    # Where an answer is lost on its way, too.
    rest(page)
    page.clock.install()
    held = []
    page.route("**/queue/join*", lambda r: r.continue_() if held else held.append(r))
    page.get_by_label("First words of a caption").fill("two dogs")
    page.get_by_role("button", name="Complete").click()
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "true")
    page.clock.fast_forward(41_000)
    expect(again).to_be_visible()
    again.click()
    expect(page.locator(CAPTIONS)).to_have_count(5)
    expect(again).to_be_hidden()
    rest(page)
    # Sending a large photo takes long. What is asked about the old one meanwhile is turned down.
    bodies = asked(page)
    page.route("**/upload*", lambda route: held.append(route))
    page.set_input_files("#photo-file", example_photos()[1])
    expect(page.locator("#viewer .announcer")).to_have_text("Sending the photo …")
    page.clock.fast_forward(41_000)
    page.get_by_label("First words of a caption").fill("a dog")
    page.get_by_role("button", name="Complete").click()
    expect(page.get_by_text("A new photo is on its way")).to_be_visible()
    page.locator("#viewer .stage").click()
    expect(page.locator("#viewer .region")).to_be_hidden()
    expect(again).to_be_hidden()
    held.pop().continue_()
    expect(page.locator(CAPTIONS)).to_have_count(3)
    expect(page.get_by_text("A new photo is on its way")).to_be_hidden()
    rest(page)
    assert len(bodies) == 1


def test_the_page_opens_no_file_but_those_that_were_sent(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    rest(page)
    here = str(Path(__file__).parents[2] / "assets" / "examples" / "photographer.png")

    def forge(route: Route) -> None:
        body = json.loads(route.request.post_data)
        body["data"][0]["path"] = here
        route.continue_(post_data=json.dumps(body))

    page.route("**/queue/join*", forge)
    page.set_input_files("#photo-file", example_photos()[1])
    expect(page.get_by_text("opens only files that it has been sent")).to_be_visible()
    assert page.locator("#viewer .stage img").get_attribute("alt") == "The photo"
    expect(page.locator("#intake .entries button")).to_have_count(1)
