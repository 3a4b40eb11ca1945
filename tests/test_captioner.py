"""The public object, with the bundled checkpoint on real photographs."""

from pathlib import Path

import gradio
import numpy as np
import pytest
from PIL import Image

from captioner import Captioner, CheckpointError, DecodingOptions, ImageError

PHOTOS = Path(gradio.__file__).parent / "media_assets" / "images"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_pretrained(Path(__file__).parents[1] / "assets" / "checkpoint")


@pytest.fixture(scope="module")
def photo() -> Path:
    return PHOTOS / "lion.jpg"


@pytest.mark.parametrize("strategy", ["sample", "greedy", "beam"])
def test_the_contract(captioner, photo, strategy):
    captions = captioner.caption(photo, num_captions=4, strategy=strategy, seed=7)
    assert len(captions) == (1 if strategy == "greedy" else 4)
    for caption in captions:
        assert caption.text == " ".join(caption.words) and caption.words
        assert not {"<pad>", "<start>", "<end>", "<unk>"} & set(caption.words)
        assert len(caption.log_probs) == len(caption.words)
        assert all(isinstance(p, float) and p <= 0 for p in caption.log_probs)
        assert caption.attention.dtype == np.float32
        assert caption.attention.shape == (len(caption.words), 8, 8)
        np.testing.assert_allclose(caption.attention.sum((1, 2)), 1, atol=1e-4)
    means = [np.mean(c.log_probs) for c in captions]
    assert means == sorted(means, reverse=True)


def test_an_animal_is_recognised(captioner):
    """The real model on a real file: it has seen dogs, and no lions."""
    text = captioner.caption(PHOTOS / "lion.jpg", strategy="beam", num_captions=1)[0].text
    assert {"dog", "dogs", "animal"} & set(text.split()), text


def test_seeds(captioner, photo):
    def texts(seed):
        return [c.text for c in captioner.caption(photo, num_captions=5, seed=seed)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_a_path_its_bytes_and_its_pixels_give_the_same_captions(captioner, photo):
    image = Image.open(photo).convert("RGB")
    sources = [photo, str(photo), photo.read_bytes(), image, np.asarray(image)]
    texts = {captioner.caption(s, strategy="greedy")[0].text for s in sources}
    assert len(texts) == 1


def test_a_batch_is_captioned_as_its_photos_alone(captioner):
    photos = [PHOTOS / name for name in ("cheetah1.jpg", "lion.jpg", "tower.jpg")]
    options = DecodingOptions("beam", num_captions=2)
    together = captioner.caption_batch(photos, options)
    for photo, captions in zip(photos, together, strict=True):
        alone = captioner.caption_batch([photo], options)[0]
        assert [c.text for c in captions] == [c.text for c in alone]
        np.testing.assert_allclose(captions[0].log_probs, alone[0].log_probs, atol=2e-2)
    assert captioner.caption_batch([], options) == []


def test_temperature_and_nucleus(captioner, photo):
    def distinct(**settings):
        return len({c.text for c in captioner.caption(photo, num_captions=10, **settings)})

    assert distinct(temperature=0.01) == 1
    assert distinct(temperature=1.5) == 10
    assert distinct(temperature=1.5, top_k=1) == 1
    assert distinct(temperature=1.5, top_p=0.001) == 1


def test_errors_are_documented_ones(captioner, photo, tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        captioner.caption(tmp_path / "text.jpg")
    with pytest.raises(ValueError, match="strategy"):
        captioner.caption(photo, strategy="best")
    with pytest.raises(CheckpointError, match="neither a checkpoint directory nor a Hub id"):
        Captioner.from_pretrained("a/b/c")
