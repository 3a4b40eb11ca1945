"""The tab for many photos, in a real browser; and what its files hold."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import DESKTOP
from PIL import Image
from playwright.sync_api import Page, Route, expect
from test_accessibility import violations
from test_browser import PHONE
from test_devices import drop

from captioner.captioner import Caption
from captioner.web.examples import example_photos
from captioner.web.many_photos import MAX_PHOTOS, Captioned, answer, to_csv, to_json_lines


def taken(page: Page, label: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("link", name=label).or_(page.get_by_role("button", name=label)).click()
    return download.value.path().read_bytes()


def test_many_photos(open_page: Callable[..., Page], tmp_path: Path) -> None:
    names = ["first.jpg", "=second.png", "First.png", "odd.jpg"]
    for name, photo in zip(names, example_photos(), strict=False):
        with Image.open(photo) as image:
            image.convert("RGB").resize((320, 240)).save(tmp_path / name)
    (tmp_path / "odd.jpg").write_text("no picture")
    page = open_page()
    page.get_by_role("tab", name="Many photos").click()
    expect(page.locator("#viewer")).to_be_hidden()
    page.locator("#many-files").evaluate(
        """box => {
            window.heights = [];
            new ResizeObserver(() => heights.push(box.offsetHeight)).observe(box);
        }"""
    )
    page.set_input_files("#many-files input[type=file]", [tmp_path / name for name in names])
    expect(page.get_by_text("4 of 4 files are done, 1 of which could not")).to_be_visible()
    rows = page.locator("#many-table tbody tr")
    shown = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    assert [row[0] for row in shown] == names
    assert all(len(row) == 3 and row[2].endswith("%") for row in shown[:3])
    assert len(shown[3]) == 2 and "picture" in shown[3][1]

    tops = [page.locator(f"#many-{part}").bounding_box()["y"] for part in ("csv", "table")]
    assert tops == sorted(tops), "a long table does not hide the downloads"
    table = list(csv.DictReader(io.StringIO(taken(page, "Captions as CSV").decode("utf-8-sig"))))
    best = [row for row in table if row["rank"] in ("1", "")]
    assert [row["name"] for row in best] == ["first.jpg", "'=second.png", "First.png", "odd.jpg"]
    assert [row["caption"] for row in best[:3]] == [row[1] for row in shown[:3]]
    assert [f"{float(row['probability']):.0%}" for row in best[:3]] == [r[2] for r in shown[:3]]
    assert best[3]["problem"] == shown[3][1] and len(table) == 3 * 3 + 1
    lines = taken(page, "Captions as JSON lines").decode().splitlines()
    objects = [json.loads(line) for line in lines]
    assert [o["name"] for o in objects] == names
    assert [o["captions"][0]["text"] for o in objects[:3]] == [row[1] for row in shown[:3]]
    with zipfile.ZipFile(io.BytesIO(taken(page, "Attention grids as ZIP"))) as archive:
        assert archive.namelist() == ["first.png", "=second.png", "First-2.png"]
        for name in archive.namelist():
            assert Image.open(archive.open(name)).width >= 200
    assert len(set(page.evaluate("heights"))) == 1, "nothing jumps while it works"
    assert violations(page) == []
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.set_viewport_size(DESKTOP)
    # A folder can be dropped anywhere, too. What is no picture takes no place.
    (tmp_path / "huge.bmp").write_bytes(bytes(21_000_000))
    others = [".DS_Store", "a.aae", "b.mov", "Thumbs.db"]
    for name in others:
        (tmp_path / name).write_text("no picture")
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    drop(page, [tmp_path])
    expect(page.get_by_text("They wait until those of other visitors are done")).to_be_visible()
    while not held:
        page.wait_for_timeout(20)
    held.pop().continue_()
    page.unroute("**/queue/join*")
    expect(page.locator("#many-table [role=status]")).to_have_text(re.compile("^4 of 4 files"))
    expect(
        page.get_by_text("Left out, because they are larger than 20 MB: huge.bmp")
    ).to_be_visible()
    assert f"they are not pictures: {', '.join(others)}" in page.locator("#many-large").inner_text()
    for name in ("huge.bmp", *others):
        (tmp_path / name).unlink()
    names = sorted(path.name for path in tmp_path.iterdir())
    names.sort(key=str.lower)
    expect(rows.locator("th")).to_have_text(names)
    assert len(page.context.pages) == 1, "no file was opened in place of the page"
    hundreds = tmp_path / "hundreds"
    hundreds.mkdir()
    for number in range(MAX_PHOTOS + 9):
        (hundreds / f"{number:03d}.jpg").write_text("no picture")
    drop(page, [hundreds])
    expect(page.get_by_text("Left out, because they come after the first 100")).to_be_visible()
    expect(page.locator("#many-large")).to_contain_text("100.jpg, 101.jpg, 102.jpg")
    expect(page.locator("#many-large")).to_contain_text("104.jpg and 4 more")
    expect(page.locator("#many-table [role=status]")).to_contain_text("100 of 100 files")
    assert "left out" not in page.locator("#many-table [role=status]").inner_text()
    # While the server works, the box has no input.
    page.locator("#many-files input[type=file]").evaluate("input => input.remove()")
    drop(page, [tmp_path / "first.jpg"])
    expect(page.get_by_text("Wait until these photos are done.")).to_be_visible()
    page.get_by_role("tab", name="One photo").click()
    expect(page.locator("#viewer")).to_be_visible()


def test_cells_are_no_formulas() -> None:
    caption = Caption("@sum", ["@sum"], [-1.0], np.ones((1, 1, 1), np.float32))
    rows = [Captioned(f"{sign}1", "1.png", [caption]) for sign in "=+-@"]
    rows.append(Captioned("b.txt", "b.png", problem="-no"))
    cells = list(csv.reader(io.StringIO(to_csv(rows).decode("utf-8-sig"))))
    assert [row[0] for row in cells[1:]] == ["'=1", "'+1", "'-1", "'@1", "b.txt"]
    assert {row[2] for row in cells[1:5]} == {"'@sum"} and cells[5][6] == "'-no"
    assert json.loads(to_json_lines(rows).splitlines()[0])["name"] == "=1"


class Broken:
    """In place of a captioner whose network fails, behind photos that can be opened."""

    def pixels(self, photo: Image.Image) -> np.ndarray:
        return np.zeros((1, 1, 3), np.float32)

    def features_of_pixels(self, pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("no device")


def test_limits_and_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # as if these files had been sent
    (tmp_path / "odd.jpg").write_text("no picture")
    odd = {"path": str(tmp_path / "odd.jpg"), "orig_name": "<b>.jpg"}
    *_, (content, paths) = answer(Broken(), [odd] * (MAX_PHOTOS + 2))
    assert "2 more files were left out" in content and content.count("<tr>") == MAX_PHOTOS + 1
    assert "&lt;b&gt;.jpg" in content and "<b>" not in content
    assert paths[2] is None, "there is nothing to draw"
    shutil.copy(example_photos()[0], tmp_path / "good.png")
    good = {"path": str(tmp_path / "good.png"), "orig_name": "good.jpg"}
    *_, (content, paths) = answer(Broken(), [odd] * 8 + [good])
    assert "8 of 9 files are done" in content and "It stopped here." in content
    assert "no device" not in content
    assert len(Path(paths[1]).read_text().splitlines()) == 8
    foreign = {"path": str(example_photos()[0]), "orig_name": "good.jpg"}
    *_, (content, _) = answer(Broken(), [foreign])
    assert "opens only files that it has been sent" in content
