"""What the page does for people who train models: `--compare` and `--feedback`, in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import keras
import numpy as np
import pytest
from app_process import App, running_app
from conftest import DESKTOP
from PIL import Image
from playwright.sync_api import Page, expect
from test_accessibility import violations
from test_browser import PHONE, give, words
from test_visit import CAPTIONS, rest, texts
from toy import WORDS

from captioner import Captioner
from captioner.checkpoint.checkpoint_folder import Checkpoint, read_checkpoint, write_checkpoint
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig
from captioner.data.datasets import read_dataset
from captioner.data.vocabulary import Vocabulary
from captioner.environment import BUNDLED_CHECKPOINT
from captioner.model.backbone import build_backbone, fingerprint
from captioner.model.caption_model import CaptionModel
from captioner.web.examples import example_photos
from captioner.web.feedback import CONSENT
from captioner.web.shown_models import names_apart, shown_models

OpenPage = Callable[..., Page]
PHOTO = example_photos()[1]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path) -> Path:
    """A checkpoint with another network, image size, grid and vocabulary."""
    backbone = build_backbone(backbone_file, image_size=139)
    sizes = ModelConfig(len(WORDS), 3, 3, 2048, embedding_dim=16, units=16)
    keras.utils.set_random_seed(5)
    stamp = BackboneConfig("inception_v3", 139, "bundled", fingerprint(backbone))
    model = CaptionModel(sizes)
    parts = Checkpoint(CaptionerConfig(sizes, stamp), Vocabulary(WORDS), model, backbone)
    folder = tmp_path_factory.mktemp("runs") / "second" / "checkpoint"
    folder.parent.mkdir()
    write_checkpoint(folder, parts, {"scores": []}, {})
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the feedback."""
    return tmp_path_factory.mktemp("kept") / "feedback"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, other: Path, kept: Path) -> Iterator[App]:
    options = ("--compare", str(other), "--feedback", str(kept))
    with running_app(tmp_path_factory.mktemp("app"), *options) as running:
        yield running


def test_two_checkpoints_side_by_side(open_page: OpenPage, other: Path) -> None:
    page = open_page(path="?captions=2&seed=3")
    give(page, PHOTO, captions=4)
    rest(page)
    headings = page.locator("#viewer .captions section h3")
    expect(headings).to_have_text(["assets/checkpoint: Samples", "second/checkpoint: Samples"])
    sections = page.locator("#viewer .captions section")
    left, right = (sections.nth(i).bounding_box() for i in range(2))
    assert left["y"] == right["y"] and left["x"] < right["x"]
    expect(page.locator("#about")).to_contain_text("assets/checkpoint and second/checkpoint")
    found = [
        caption
        for place in (BUNDLED_CHECKPOINT, other)
        for caption in Captioner.from_pretrained(place).caption(PHOTO, 2, seed=3)
    ]
    assert texts(page) == [caption.text for caption in found]
    with page.expect_download() as download:
        page.get_by_role("button", name="Captions as JSON").click()
    written = json.loads(download.value.path().read_text())["captions"]
    assert [c["model"] for c in written] == ["assets/checkpoint"] * 2 + ["second/checkpoint"] * 2
    for caption, expected in zip(written, found, strict=True):
        assert np.shape(caption["attention"]) == expected.attention.shape
        np.testing.assert_allclose(caption["attention"], expected.attention, atol=2e-3)
    # A caption of the second is shown, taken away, steered and completed by the second.
    page.locator(CAPTIONS).nth(2).click()
    assert words(page) == found[2].words
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all").click()
    assert download.value.suggested_filename == f"{PHOTO.stem}.zip"
    page.get_by_label("First words of a caption").fill("grey patch")
    page.get_by_role("button", name="Complete").click()
    expect(page.locator(f"{CAPTIONS} small").first).to_contain_text("by second/checkpoint")
    assert words(page)[:2] == ["grey", "patch"]
    page.get_by_role("button", name="New samples").click()
    expect(page.locator("#viewer .seed")).not_to_have_text("seed 3")
    rest(page)
    expect(headings).to_have_count(3)  # the visitor's own captions stay, above both
    assert texts(page)[1:] != [caption.text for caption in found]
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.set_viewport_size(DESKTOP)


def test_strategies_of_two_checkpoints(open_page: OpenPage) -> None:
    page = open_page(path="?captions=2&strategy=compare")
    page.set_input_files("#photo-file", PHOTO)
    sections = page.locator("#viewer .captions section")
    expect(sections).to_have_count(6)
    expect(sections.nth(5).locator("[role=radio]").first).to_be_visible()
    rest(page)
    boxes = [sections.nth(i).bounding_box() for i in range(6)]
    assert len({box["x"] for box in boxes}) == 3 and len({box["y"] for box in boxes}) == 2


def test_a_better_caption_is_kept_with_consent(open_page: OpenPage, app: App, kept: Path) -> None:
    page = open_page(expected="403")
    give(page, PHOTO, captions=6)
    rest(page)
    page.get_by_text("Leave a better caption").click()
    better, answer = (
        page.get_by_label("A better caption"),
        page.locator("#viewer .feedback .answer"),
    )
    consent, send = page.get_by_label("I agree"), page.get_by_role("button", name="Send")
    expect(better).to_have_value(texts(page)[0])  # soon: browsers tell later that it was opened
    expect(page.locator("#viewer .consent")).to_have_text(CONSENT)
    assert violations(page) == []
    better.fill("Two dogs in\u200b the snow")
    send.click()  # the browser asks for the consent
    assert not (kept / "captions.jsonl").exists()
    # A page that does not ask, too.
    page.locator("#viewer .feedback form").evaluate("form => { form.noValidate = true; }")
    send.click()
    expect(answer).to_have_text("Nothing was kept, because you have not agreed to it.")
    assert better.input_value().startswith("Two dogs"), "what was written is not lost"
    assert not (kept / "captions.jsonl").exists()
    consent.check()
    send.click()
    expect(answer).to_contain_text("Thank you")
    expect(consent).not_to_be_checked()  # it is asked for each time
    (record,) = read_dataset("folder", kept)
    assert record.captions == ("Two dogs in the snow",) and record.by == ("people",)
    with Image.open(record.path) as photo:
        assert max(photo.size) <= 1024 and not photo.getexif()
    for path in (record.path, kept / "captions.jsonl"):
        assert httpx.get(f"{app.url}gradio_api/file={path}").status_code == 403
    # Of a photo that only this browser still has, too.
    page.reload()
    page.locator("#intake .entries button").first.click()
    page.get_by_text("Leave a better caption").click()
    better.fill("A dog")
    consent.check()
    send.click()
    expect(answer).to_contain_text("Thank you")
    assert ("A dog",) in [record.captions for record in read_dataset("folder", kept)]


def test_a_network_that_is_the_same_is_shared() -> None:
    captioners = [Captioner(read_checkpoint(BUNDLED_CHECKPOINT)) for _ in range(2)]
    models = shown_models(*captioners, places=("runs/a/checkpoint", "runs/b/checkpoint"))
    assert [model.name for model in models] == ["a/checkpoint", "b/checkpoint"]
    assert captioners[0].extractor is captioners[1].extractor
    (alone,) = shown_models(captioners[0])
    assert alone.name == ""


def test_names_that_tell_apart() -> None:
    assert names_apart(["runs/first", "USER/NAME"]) == ["first", "NAME"]
    assert names_apart(["assets/checkpoint", "runs/b"]) == ["assets/checkpoint", "runs/b"]
    assert names_apart(["checkpoint", "b"]) == ["checkpoint", "b"]
    assert names_apart(["/one/x/y/", "/two/x/y"]) == ["one/x/y", "two/x/y"]
    assert names_apart(["/a/x", "/a/x"]) == ["x", "x-2"]
