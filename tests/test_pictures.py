"""The documentation's pictures show what the model computes."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
from app_process import ROOT
from PIL import Image

from captioner import Captioner
from captioner.data.images import load_image
from captioner.web.examples import example_photos


def test_the_pictures_show_what_was_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "tools" / "make_pictures.py")
    pictures = sys.modules["pictures"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    captioner = Captioner.from_pretrained(ROOT / "assets" / "checkpoint")
    photo = load_image(example_photos()[0])
    caption = captioner.caption(photo, strategy="greedy")[0]
    number = pictures.chosen_word(caption)
    found = pictures.trace(captioner, photo, caption, number)
    words = [word for word, _ in found.likeliest]
    place = words.index(caption.words[number])
    assert set(words[:place]) <= set(caption.words[:number])  # more probable, but already said
    chosen = found.likeliest[place][1]
    assert chosen == pytest.approx(math.exp(caption.log_probs[number]), rel=1e-3)
    assert found.attention == pytest.approx(caption.attention[number], abs=1e-4)
    pictures.draw_architecture(tmp_path / "a.png", photo, caption, number, captioner)
    pictures.write_film(tmp_path / "words.webp", photo, caption)
    with Image.open(tmp_path / "a.png") as drawing, Image.open(tmp_path / "words.webp") as film:
        assert drawing.width > drawing.height > 500
        assert film.n_frames == len(caption.words) + 1
    assert (tmp_path / "words.webp").stat().st_size < pictures.MOST_BYTES
