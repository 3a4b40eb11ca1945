"""What a visitor can do with captions, in a real browser: other words, regions, comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from test_accessibility import violations
from test_browser import PHONE, give, layer, words

from captioner.web.examples import example_photos

OpenPage = Callable[..., Page]
CAPTIONS = "#viewer .captions [role=radio]"
REGION = "#viewer .region"


def region(page: Page) -> list[float]:
    """Left, top, right and bottom of the region on the photo, in fractions of it."""
    inner, outer = page.locator(REGION).bounding_box(), page.locator(".stage").bounding_box()
    left = (inner["x"] - outer["x"]) / outer["width"]
    top = (inner["y"] - outer["y"]) / outer["height"]
    return [
        left, top, left + inner["width"] / outer["width"], top + inner["height"] / outer["height"]
    ]  # fmt: skip


def attention_inside(page: Page, box: tuple[int, int, int, int]) -> float:
    """The smallest share of the shown caption's attention in a box of cells, all words considered,
    as the JSON has it."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Captions as JSON").click()
    captions = json.loads(download.value.path().read_text())["captions"]
    left, top, right, bottom = box
    return min(
        sum(sum(row[left:right]) for row in attention[top:bottom])
        for attention in captions[0]["attention"]
    )


def test_samples_that_agree_are_one_choice(open_page: OpenPage) -> None:
    page = open_page(path="?example=1&captions=5&temperature=0.1")
    page.wait_for_function(
        """count => {
            const notes = document.querySelectorAll("#viewer .captions [role=radio] small");
            const times = (note) => Number(/drawn (\\d+) times/.exec(note.textContent)?.[1] ?? 1);
            return [...notes].reduce((sum, note) => sum + times(note), 0) === count;
        }""",
        arg=5,
    )
    choices = page.locator(CAPTIONS)
    texts = choices.locator("span").all_inner_texts()
    assert len(texts) == len(set(texts)) < 5, "so cold, they hardly differ"
    assert any("drawn" in note for note in choices.locator("small").all_inner_texts())
    expect(choices.first).to_have_attribute("aria-checked", "true")
    with page.expect_download() as download:
        page.get_by_role("button", name="Captions as JSON").click()
    assert len(json.loads(download.value.path().read_text())["captions"]) == 5
    # The others, if any, show their own words.
    for i, text in enumerate(texts):
        choices.nth(i).click()
        expect(choices.nth(i)).to_have_attribute("aria-checked", "true")
        assert words(page) == text.split()


def test_another_word_completes_the_caption_anew(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[0])
    before = words(page)
    chip = page.locator("#viewer .words button").nth(2)
    expect(chip).to_have_attribute("aria-expanded", "false")
    chip.click()
    expect(chip).to_have_attribute("aria-expanded", "true")
    others = page.locator("#viewer .others button")
    expect(others).to_have_count(5)
    shares = [re.search(r"(\d+)%$", text)[1] for text in others.all_inner_texts()]
    assert [int(s) for s in shares] == sorted((int(s) for s in shares), reverse=True)
    other = others.nth(0).locator("span").inner_text()
    assert other not in (before[2], "")
    others.nth(0).click()
    expect(page.locator(CAPTIONS)).to_have_count(4)
    assert words(page)[:3] == [*before[:2], other]
    expect(page.locator(CAPTIONS).first).to_have_attribute("aria-checked", "true")
    expect(page.locator("#viewer .others")).to_be_hidden()
    expect(page.locator("#viewer .words button").nth(2)).to_be_focused()
    # The captions of before are still there, and so is what there is to take away.
    page.locator(CAPTIONS).nth(1).click()
    assert words(page) == before


def test_other_words_by_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[1])
    before = words(page)
    page.locator("#viewer .words button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    others = page.locator("#viewer .others button")
    expect(others.first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer .others")).to_be_hidden()
    expect(page.locator("#viewer .words button").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    expect(others.nth(1)).to_be_focused()
    other = others.nth(1).locator("span").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator(CAPTIONS)).to_have_count(4)
    assert words(page)[:2] == [before[0], other]


def test_a_caption_is_begun_by_hand(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[1])
    box = page.get_by_label("First words of a caption")
    box.fill("Two dogs")
    box.press("Enter")
    expect(page.locator(CAPTIONS)).to_have_count(4)
    assert words(page)[:2] == ["two", "dogs"]
    box.fill("two xylophagous dogs")
    page.get_by_role("button", name="Complete").click()
    expect(page.get_by_text("The model does not know the word 'xylophagous'.")).to_be_visible()
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "false")
    expect(page.locator(CAPTIONS)).to_have_count(4)


def test_dragging_makes_it_look_there(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[1])
    stage = page.locator("#viewer .stage")
    before = page.locator(CAPTIONS).all_inner_texts()
    where = stage.bounding_box()
    page.mouse.move(where["x"] + 0.5 * where["width"], where["y"] + 2)
    page.mouse.down()
    page.mouse.move(where["x"] + where["width"] - 1, where["y"] + where["height"] - 2, steps=4)
    page.mouse.up()
    whole = page.get_by_role("button", name="Whole photo")
    expect(whole).to_be_visible()
    assert region(page) == pytest.approx([0.5, 0, 1, 1], abs=0.02)
    expect(page.locator(CAPTIONS)).to_have_count(3)
    assert attention_inside(page, (4, 0, 8, 8)) > 0.85
    # Completions look there, too.
    page.locator("#viewer .words button").nth(1).click()
    page.locator("#viewer .others button").first.click()
    expect(page.locator(CAPTIONS)).to_have_count(4)
    assert attention_inside(page, (4, 0, 8, 8)) > 0.85
    own = page.locator(CAPTIONS).first.inner_text()
    whole.click()
    expect(whole).to_be_hidden()
    expect(page.locator("#viewer .result")).to_have_attribute("aria-busy", "false")
    # The captions are those of the whole photo again, and the visitor's own is still there, with
    # its region.
    assert page.locator(CAPTIONS).all_inner_texts() == [own, *before]
    expect(page.locator(REGION)).to_be_hidden()
    page.locator(CAPTIONS).first.click()
    assert region(page) == pytest.approx([0.5, 0, 1, 1], abs=0.02)


def test_a_region_by_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[1])
    page.locator("#viewer .stage").focus()
    page.keyboard.press("ArrowLeft")
    assert region(page) == pytest.approx([0.3, 0.3, 0.7, 0.7], abs=0.02)
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert region(page) == pytest.approx([0.2, 0.25, 0.7, 0.65], abs=0.02)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Whole photo")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(REGION)).to_be_hidden()
    expect(page.get_by_role("button", name="Whole photo")).to_be_hidden()


def test_touch(open_page: OpenPage) -> None:
    page = open_page(PHONE, has_touch=True, is_mobile=True)
    give(page, example_photos()[1])
    chip = page.locator("#viewer .words button").nth(1)
    bare = layer(page)
    chip.tap()
    assert layer(page) != bare
    expect(page.locator("#viewer .others")).to_be_hidden()
    chip.tap()
    expect(page.locator("#viewer .others")).to_be_visible()
    # The list hides none of the words.
    words_end = page.locator("#viewer .words").bounding_box()
    assert page.locator("#viewer .others").bounding_box()["y"] >= (
        words_end["y"] + words_end["height"]
    )
    expect(page.get_by_text("Tap a word")).to_be_visible()
    expect(page.get_by_text("Point at a word")).to_be_hidden()
    stage = page.locator("#viewer .stage")
    where = stage.bounding_box()
    stage.tap(position={"x": where["width"] * 0.75, "y": where["height"] * 0.5})
    expect(page.locator("#viewer .others")).to_be_hidden()
    expect(page.get_by_role("button", name="Whole photo")).to_be_visible()
    assert region(page) == pytest.approx([0.6, 0.35, 0.9, 0.65], abs=0.02)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_strategies_side_by_side(open_page: OpenPage) -> None:
    page = open_page()
    give(page, example_photos()[1])
    page.get_by_role("button", name="How many captions, and how").click()
    page.get_by_label("compare").check()
    groups = page.locator("#viewer .captions section")
    expect(groups.locator("h3")).to_have_text(["Greedy", "Beam", "Samples"])
    expect(groups.nth(2).locator("[role=radio]")).to_have_count(3)
    assert [groups.nth(i).locator("[role=radio]").count() for i in (0, 1)] == [1, 3]
    tops = [groups.nth(i).bounding_box()["y"] for i in range(3)]
    lefts = [groups.nth(i).bounding_box()["x"] for i in range(3)]
    assert len(set(tops)) == 1 and lefts == sorted(set(lefts))
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_link_carries_the_options(open_page: OpenPage) -> None:
    page = open_page(path="?example=2&strategy=beam&captions=4&top_p=0.5&seed=7&temperature=hot")
    expect(page.locator(CAPTIONS)).to_have_count(4)
    texts = page.locator(CAPTIONS).all_inner_texts()
    page.get_by_role("button", name="How many captions, and how").click()
    expect(page.get_by_label("beam")).to_be_checked()
    page.get_by_label("number input for Temperature").fill("0.7")
    page.get_by_role("button", name="Copy a link to these options").click()
    expect(page.get_by_role("button", name="The link is in the address bar")).to_be_visible()
    expected = "captions=4&strategy=beam&temperature=0.7&top_p=0.5&seed=7&example=2"
    assert page.url.split("?")[1] == expected
    other = open_page(path=page.url.split("/")[-1])
    expect(other.locator(CAPTIONS)).to_have_count(4)
    assert other.locator(CAPTIONS).all_inner_texts() == texts


def test_the_film_starts_by_itself(open_page: OpenPage) -> None:
    page = open_page(reduced_motion="no-preference")
    give(page, example_photos()[1])
    expect(page.locator("#viewer .play")).to_have_text("■ Stop")
    expect(page.locator("#viewer .words button").nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("#viewer .words button").nth(0).hover()
    expect(page.locator("#viewer .play")).to_have_text("▶ Play")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barriers(open_page: OpenPage, scheme: str) -> None:
    """axe-core on the page with all that can be on it at a time."""
    page = open_page(color_scheme=scheme)
    give(page, example_photos()[0])
    page.get_by_role("button", name="How many captions, and how").click()
    page.locator("#viewer .stage").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Whole photo")).to_be_visible()
    box = page.get_by_label("First words of a caption")
    box.fill("a dog")
    box.press("Enter")
    expect(page.locator("#viewer .captions h3")).to_have_text(["Yours", "Samples"])
    box.fill("xylophagous")
    box.press("Enter")
    expect(page.get_by_text("does not know the word")).to_be_visible()
    page.get_by_role("button", name="Heat map").click()
    page.get_by_text("What the numbers and shades mean").click()
    page.locator("#viewer .words button").nth(1).click()
    expect(page.locator("#viewer .others")).to_be_visible()
    page.wait_for_timeout(300)  # colours in transition have no contrast to speak of
    assert violations(page) == []
