"""The page under axe-core, which knows the rules of the Web Content Accessibility Guidelines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from captioner.web.examples import example_photos


def violations(page: Page) -> list[str]:
    """What axe-core finds serious or critical, with the elements that are meant."""
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']} ({v['impact']}): {v['help']}: {[node['html'][:200] for node in v['nodes']]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation(open_page: Callable[..., Page], scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    assert violations(page) == []
    page.set_input_files("#photo-file", example_photos()[0])
    expect(page.locator("#viewer .words button").first).to_be_visible()
    expect(page.locator("#viewer .captions [role=radio]")).to_have_count(3)
    page.get_by_role("button", name="How many captions, and how").click()
    expect(page.get_by_label("Temperature").first).to_be_visible()
    assert violations(page) == []


def test_axe_core_finds_what_is_wrong(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.evaluate(
        """() => {
            const bad = document.createElement("div");
            bad.innerHTML = '<button></button><p style="color: #ccc; background: #fff">pale</p>';
            document.querySelector("main").append(bad);
        }"""
    )
    assert len(violations(page)) == 2
