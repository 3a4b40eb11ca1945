"""`app.py --feedback`: what is kept of what visitors leave, and what is not."""

from __future__ import annotations

import errno
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from conftest import Photo
from gradio.utils import get_upload_folder
from PIL import Image

from captioner.data.datasets import read_dataset
from captioner.web import feedback as module
from captioner.web import responses
from captioner.web.feedback import CaptionRefused, Feedback, FeedbackUnusable, open_folder
from captioner.web.page_events import PageEvents
from captioner.web.sent_files import NO_PHOTO


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_becomes_a_data_set(tmp_path: Path, photo: Photo) -> None:
    kept = Feedback(tmp_path / "new" / "feedback")
    photos = [jpeg(photo(seed)) for seed in range(20)]
    work = [(picture, f"A\u200b dog\tno. {i}\ud800 ") for picture in photos for i in range(3)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda one: kept.keep(*one), work + work))  # twice: a double click
    records = read_dataset("folder", tmp_path / "new" / "feedback")
    assert len(records) == 20 and {record.split for record in records} == {"train", "val"}
    for record in records:
        assert sorted(record.captions) == ["A dog no. 0", "A dog no. 1", "A dog no. 2"]
        assert record.by == ("people",) * 3 and record.path.read_bytes() in photos
    # The next server goes on with it, also if somebody has written a caption in another way.
    lines = tmp_path / "new" / "feedback" / "captions.jsonl"
    first, _, rest = lines.read_text("utf-8").partition("\n")
    lines.write_text(f"{first.replace('A dog', f'A{chr(0x2028)}dog')}\n{rest}", "utf-8")
    Feedback(tmp_path / "new" / "feedback").keep(photos[0], "a cat")
    assert len(read_dataset("folder", tmp_path / "new" / "feedback")) == 20


@pytest.mark.parametrize("text", ["", " \t", "?!", "dog " * 41, "a" * 301])
def test_what_is_no_caption_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CaptionRefused):
        Feedback(tmp_path).keep(b"photo", text)
    assert files(tmp_path) == {}


def test_there_is_an_end_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Feedback(tmp_path)
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    kept.keep(b"12345678", "a dog")
    before = files(tmp_path)
    with pytest.raises(CaptionRefused, match="as many captions as it keeps"):
        kept.keep(b"123", "a dog")
    assert files(tmp_path) == before
    monkeypatch.setattr(module, "MOST_CAPTIONS", 2)
    kept.keep(b"12345678", "a cat")
    with pytest.raises(CaptionRefused, match="as many captions as it keeps"):
        kept.keep(b"12345678", "a cow")


def test_a_full_disk_leaves_nothing_behind(mount, photo: Photo) -> None:
    disk = mount("size=64k")
    kept = Feedback(disk / "feedback")
    kept.keep(jpeg(photo()), "a dog")
    before = files(disk)
    random = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    with pytest.raises(OSError) as caught:
        kept.keep(jpeg(Image.fromarray(random)), "a dog")
    assert caught.value.errno == errno.ENOSPC and files(disk) == before


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("other things")
    with pytest.raises(FeedbackUnusable, match=r"has other files in it \(mine.txt\)"):
        open_folder(tmp_path / "photos")
    with pytest.raises(FeedbackUnusable, match="Not a directory"):
        open_folder(tmp_path / "photos" / "mine.txt")
    served = Path(get_upload_folder()) / "feedback"
    with pytest.raises(FeedbackUnusable, match="which visitors can read"):
        open_folder(served)
    assert not served.exists()


def test_nothing_is_kept_without_consent(tmp_path: Path, photo: Photo) -> None:
    events = PageEvents([], Feedback(tmp_path))
    kept = responses.KeptPhoto("7", jpeg(photo()), (48, 32), ())
    request = {"key": "7", "caption": "a dog"}
    for consent in ({}, {"consent": False}, {"consent": "yes"}, {"consent": 1}):
        event = gr.EventData(None, request | consent)
        assert events.keep_caption(kept, event) == (
            "Nothing was kept, because you have not agreed to it."
        )
    assert files(tmp_path) == {}
    agreed = request | {"consent": True}
    assert PageEvents([]).keep_caption(kept, gr.EventData(None, agreed)), "it was not asked for"
    assert "needs words" in events.keep_caption(kept, gr.EventData(None, agreed | {"caption": 0}))
    gone = events.keep_caption(None, gr.EventData(None, agreed))
    assert gone == NO_PHOTO
    assert files(tmp_path) == {}
    assert events.keep_caption(kept, gr.EventData(None, agreed)) == ""
    (line,) = (tmp_path / "captions.jsonl").read_text().splitlines()
    assert json.loads(line)["caption"] == "a dog"


def test_what_a_camera_wrote_into_the_photo_is_not_kept(photo: Photo) -> None:
    exif = Image.Exif()
    exif[0x010E] = "at home"
    exif.get_ifd(0x8825)[1] = "N"  # where it was taken
    given = jpeg(photo(), exif=exif, comment=b"for my eyes only")
    assert b"at home" in given and b"for my eyes only" in given
    with Image.open(io.BytesIO(given)) as opened:
        opened.load()
        shown = responses.preview(opened)
    with Image.open(io.BytesIO(shown)) as again:
        assert not again.getexif() and "comment" not in again.info
    assert b"at home" not in shown and b"for my eyes only" not in shown
