"""The report: one file with everything in it, and nothing in it that could do harm."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from captioner.captioner import Caption
from captioner.data.datasets import Record
from captioner.data.images import ImageError
from captioner.evaluation.report import ranked, write_report


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def evaluated(tmp_path, photo):
    records, captions = [], []
    for i in range(7):
        path = tmp_path / f"photo{i}.png"
        photo(i, 640, 480).save(path)
        theirs = (f"Reference {i}.", "<script>alert('&')</script>")
        records.append(Record(f"photo{i}", path, theirs, "val"))
        words = ["dog", f"number{i}"]
        maps = np.full((2, 8, 8), 1 / 64, np.float32)
        captions.append(Caption(" ".join(words), words, [-0.5, -1.0], maps))
    return records, captions, np.array([30.0, 10, 50, 0, 70, 20, 60])


def test_report(evaluated, tmp_path):
    file = tmp_path / "report.html"
    scores = {"CIDEr": 34.3, "confidence_95": {"CIDEr": [30.1, 38.2]}, "captions": {"distinct": 90}}
    write_report(file, *evaluated, scores, shown=2)
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    captions = re.findall(r"<h3>dog number(\d)</h3>", text)
    assert captions == ["4", "6", "2", "0", "3", "1"]  # best two, middle two, worst two
    assert text.count("<h2>") == 3 and "CIDEr 70.0" in page.text
    assert "30.1 to 38.2" in page.text and "captions: distinct" in page.text

    assert "<script>alert('&')</script>" in page.text  # shown, not run
    assert "script" not in {tag for tag, _ in page.tags}
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 6 * (1 + 2) and all(p["alt"] for p in pictures)
    for picture in pictures:
        head, _, data = picture["src"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == "JPEG" and image.size in ((360, 270), (120, 90))
    assert not re.search(r"https?:|@import|url\(", text)  # it needs no other file
    assert "light dark" in text


def test_groups():
    cider = np.arange(1000.0)
    groups = ranked(cider, 20)
    assert groups["Best"] == list(range(999, 979, -1))
    assert groups["Worst"] == list(range(20))
    assert groups["Median"] == list(range(509, 489, -1))
    assert ranked(cider[:1], 20) == {"Best": [0], "Median": [0], "Worst": [0]}


def test_nothing_is_left_of_a_report_that_failed(evaluated, tmp_path):
    records, captions, cider = evaluated
    records[4].path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"photo4\.png"):
        write_report(tmp_path / "report.html", records, captions, cider, {})
    assert not list(tmp_path.glob("report*"))
