"""The public object, with the bundled checkpoint on real photographs."""

import copy
import dataclasses
import inspect
import io
import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import gradio
import numpy as np
import pytest
from PIL import Image

from captioner import Captioner, CheckpointError, DecodingOptions, ImageError
from captioner.captioner import ForkError, _kept
from captioner.checkpoint.checkpoint_folder import Checkpoint
from captioner.errors import CaptionerError
from captioner.model.decoding_options import DEFAULTS, OptionError
from captioner.model.function_words import UNFINISHED

PHOTOS = Path(gradio.__file__).parent / "media_assets" / "images"
CHECKPOINT = Path(__file__).parents[1] / "assets" / "checkpoint"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def photo() -> Path:
    return PHOTOS / "lion.jpg"


ONE = {"strategy": "beam", "num_captions": 1}


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
    if strategy != "beam":
        means = [c.mean_log_prob for c in captions]
        assert means == sorted(means, reverse=True)
    again = captioner.caption(photo, num_captions=4, strategy=strategy, seed=7)
    assert again == captions and again[0] in captions
    assert captions[0].attention.base is None or captions[0].attention.base.size == (
        captions[0].attention.size
    ), "it keeps no other memory alive"


def test_a_beam_has_the_same_best_caption_however_many_are_asked_for(captioner):
    """The mean over words alone would prefer captions that break off: "... with a cup"."""
    photos = sorted((Path(__file__).parents[1] / "assets" / "examples").glob("*.jpg"))
    one = captioner.caption_batch(photos, strategy="beam", num_captions=1, length_penalty=0.5)
    five = captioner.caption_batch(photos, strategy="beam", num_captions=5, length_penalty=0.5)
    assert [captions[0] for captions in one] == [captions[0] for captions in five]
    means = [[c.mean_log_prob for c in captions] for captions in five]
    assert any(some != sorted(some, reverse=True) for some in means), "else this tests nothing"


def test_an_animal_is_recognised(captioner):
    """The real model on real files."""
    examples = Path(__file__).parents[1] / "assets" / "examples"
    for name, word in (("cat", "cat"), ("motorcycle", "motorcycle")):
        photo = examples / f"{name}.jpg"
        text = captioner.caption(photo, strategy="beam", num_captions=1)[0].text
        assert word in text.split(), text


def test_samples_differ_as_long_as_there_are_enough(captioner):
    photo = PHOTOS / "lion.jpg"

    def texts(**settings):
        return [c.text for c in captioner.caption_batch([photo], **settings)[0]]

    def plain_texts(seed):
        return texts(num_captions=3, temperature=0.5, seed=seed, distinct=False)

    seed = next(s for s in range(50) if len(set(plain_texts(s))) == 2)  # two of three agree
    settings = {"num_captions": 3, "temperature": 0.5, "seed": seed}
    plain, more = plain_texts(seed), texts(**settings | {"num_captions": 5})
    found = texts(**settings)
    assert len(set(found)) == 3 and set(plain) < set(found)
    assert set(found) <= {*plain, *more}
    assert [c.text for c in captioner.caption(photo, **settings)] == found
    # So cold, all are the same: then there are as many as were asked for nevertheless.
    assert len(texts(num_captions=5, temperature=0.01)) == 5


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
    assert captioner.features([]).shape == (0, *captioner.features(photos).shape[1:])
    steered = captioner.caption_batch(photos, options, prefix="two", region=(0, 0, 0.5, 1))
    for photo, captions in zip(photos, steered, strict=True):
        alone = captioner.caption(
            photo, 2, "beam", prefix="two", region=(0, 0, 0.5, 1), distinct=False
        )
        assert [c.text for c in captions] == [c.text for c in alone]
        assert captions[0].words[0] == "two"
        assert captions[0].attention[:, :, :4].sum((1, 2)).min() > 0.8
    greedy = captioner.caption_batch(photos[:1], options, strategy="greedy")
    assert greedy == [captioner.caption(photos[0], strategy="greedy")], "what is named counts"
    with pytest.raises(TypeError, match="max_word"):
        captioner.caption_batch(photos, options, max_word=3)
    with pytest.raises(TypeError, match="options"):
        captioner.caption(photos[0], options=options)
    with pytest.raises(ImageError, match=r"^images\[1\]: the picture is not a picture"):
        captioner.caption_batch([photos[0], b"no picture"])
    image = Image.new("RGB", (8, 8))
    as_file = io.BytesIO(photos[0].read_bytes())
    arrays = (np.asarray(image), np.asarray(image)[0])
    for single in (photos[0], str(photos[0]), photos[0].read_bytes(), image, as_file, *arrays):
        with pytest.raises(OptionError, match=r"takes a list of photos, not a \w+"):
            captioner.caption_batch(single)


def test_one_set_of_defaults(captioner, photo):
    """Python's are those of the options, which page and endpoints read."""
    parameters = inspect.signature(Captioner.caption).parameters
    for field in dataclasses.fields(DecodingOptions):
        if field.name in parameters:
            assert parameters[field.name].default == getattr(DEFAULTS, field.name), field.name
    assert [c.text for c in captioner.caption(photo)] == [
        c.text for c in captioner.caption_batch([photo], DEFAULTS)[0]
    ]


def test_temperature_and_nucleus(captioner, photo):
    def distinct(**settings):
        return len({c.text for c in captioner.caption(photo, num_captions=10, **settings)})

    assert distinct(temperature=0.01) == 1
    assert distinct(temperature=1.5) == 10
    assert distinct(temperature=1.5, top_k=1) == 1
    assert distinct(temperature=1.5, top_p=0.001) == 1


def test_every_word_has_alternatives(captioner, photo):
    caption = captioner.caption(photo, num_captions=1, seed=3)[0]
    assert len(caption.alternatives) == len(caption.words)
    for word, alternatives in zip(caption.words, caption.alternatives, strict=True):
        others = [other for other, _ in alternatives]
        assert len(set(others)) == 5 and word not in others
        assert not {"<pad>", "<start>", "<end>", "<unk>"} & set(others)
        log_probs = [p for _, p in alternatives]
        assert log_probs == sorted(log_probs, reverse=True) and max(log_probs) < 0
    # Choosing one gives it the probability that it was listed with.
    other, log_prob = caption.alternatives[1][0]
    prefix = f"{caption.words[0]} {other}"
    chosen = captioner.caption(photo, prefix=prefix, **ONE)[0]
    assert chosen.words[:2] == prefix.split()
    assert chosen.log_probs[1] == pytest.approx(log_prob, abs=1e-3)


def test_completion(captioner, photo):
    captions = captioner.caption(photo, num_captions=4, seed=1, prefix="Two dogs,")
    assert len(captions) == 4
    assert all(c.words[:2] == ["two", "dogs"] for c in captions)
    means = [c.mean_log_prob for c in captions]
    assert means == sorted(means, reverse=True)
    free = captioner.caption(photo, strategy="beam", num_captions=1)[0]
    assert captioner.caption(photo, prefix="", **ONE)[0].text == free.text
    # Taking the best word each time, a caption's own beginning leads to it again.
    greedy = captioner.caption(photo, strategy="greedy")[0]
    again = captioner.caption(photo, prefix=" ".join(greedy.words[:3]), strategy="greedy")[0]
    assert again.text == greedy.text
    assert again.log_probs == pytest.approx(greedy.log_probs, abs=1e-4)
    with pytest.raises(ValueError, match="does not know the word 'xylophagous'"):
        captioner.caption(photo, prefix="a xylophagous man")
    with pytest.raises(ValueError, match="'qwxz', 'unk'"):
        captioner.caption(photo, prefix="qwxz <unk> qwxz")
    with pytest.raises(ValueError, match="21 words, but a caption at most 20"):
        captioner.caption(photo, prefix="a " * 21)


def test_the_attention_stays_in_the_region(captioner, photo):
    free = captioner.caption(photo, strategy="greedy")[0]
    left = captioner.caption(photo, region=(0, 0, 0.5, 1), strategy="greedy")[0]
    right = np.zeros((2, 2))
    right[:, 1] = 3
    right = captioner.caption(photo, region=right, strategy="greedy")[0]
    assert free.attention[:, :, :4].sum((1, 2)).mean() < 0.9
    assert left.attention[:, :, :4].sum((1, 2)).min() > 0.9
    assert right.attention[:, :, 4:].sum((1, 2)).min() > 0.9
    np.testing.assert_allclose(left.attention.sum((1, 2)), 1, atol=1e-4)
    whole = captioner.caption(photo, region=np.ones((3, 5)), strategy="greedy")[0]
    assert whole.text == free.text
    with pytest.raises(ValueError, match="left below right"):
        captioner.caption(photo, region=(0.5, 0, 0.5, 1))


def test_errors_are_documented_ones(captioner, photo, tmp_path):
    with pytest.raises(OptionError, match="prefix is 3: it must be text"):
        captioner.caption(photo, prefix=3)
    with pytest.raises(OptionError, match="leak is 'x': it must be above 0"):
        captioner.caption(photo, region=(0, 0, 1, 1), leak="x")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        captioner.caption(tmp_path / "text.jpg")
    with pytest.raises(ValueError, match="strategy"):
        captioner.caption(photo, strategy="best")
    with pytest.raises(CheckpointError, match="neither a checkpoint directory nor a Hub id"):
        Captioner.from_pretrained("a/b/c")


def test_a_caption_that_is_cut_does_not_end_in_the_middle_of_a_phrase(captioner, photo):
    whole = captioner.caption(photo, **ONE)[0].words
    n = next(i for i, word in enumerate(whole) if word in UNFINISHED and i > 1)
    while whole[n] in UNFINISHED:
        n += 1  # words that a cut leaves off
    cut = captioner.caption(photo, prefix=" ".join(whole[:2]), max_words=n, **ONE)[0]
    assert cut.words[-1] not in UNFINISHED and len(cut.words) < n
    assert len(cut.log_probs) == len(cut.attention) == len(cut.alternatives) == len(cut.words)
    given = captioner.caption(photo, prefix="a dog in the", max_words=4, **ONE)[0]
    assert given.text == "a dog in the", "captions begin with all that was asked for"


def test_saving_into_the_current_folder(captioner, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    made = Captioner(
        Checkpoint(
            captioner.config, captioner.vocabulary, captioner.model, captioner.extractor.backbone
        )
    )
    made.save_pretrained(".")
    monkeypatch.chdir(tmp_path / "empty")
    assert Captioner.from_pretrained(".").vocabulary.words == captioner.vocabulary.words
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_saving(captioner, photo, tmp_path):
    """What was loaded is saved whole, and a captioner that was made in memory too."""
    saved = captioner.save_pretrained(tmp_path / "copy")
    assert {p.name for p in saved.iterdir()} == {p.name for p in captioner.folder.iterdir()}
    for name in ("README.md", "metrics.json", "decoder.safetensors", "backbone.safetensors"):
        assert (saved / name).read_bytes() == (captioner.folder / name).read_bytes(), name
    again = Captioner.from_pretrained(saved)
    assert again.save_pretrained(saved) == saved, "onto itself"
    made = Captioner(
        Checkpoint(again.config, again.vocabulary, again.model, captioner.extractor.backbone)
    )
    made.save_pretrained(tmp_path / "copy")  # over a checkpoint
    assert "Not computed yet" in (saved / "README.md").read_text()
    one, other = (
        c.caption(photo, strategy="greedy")[0]
        for c in (captioner, Captioner.from_pretrained(saved))
    )
    assert one.text == other.text and one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"mine holds other files \(thesis\.txt\)"):
        made.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_threads_get_what_one_would_get(captioner):
    photos = sorted(PHOTOS.glob("*.jpg"))[:3]

    def said(i: int) -> list[str]:
        return [c.text for c in captioner.caption(photos[i % 3], seed=i // 3)]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(said, range(6))) == [said(i) for i in range(6)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_says_so_in_place_of_hanging(captioner, photo):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child() -> None:
        try:
            captioner.caption(photo, strategy="greedy")
        except ForkError as error:
            theirs.send(str(error))

    process = context.Process(target=child, daemon=True)
    with warnings.catch_warnings():
        # Python and JAX warn of what this test is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        process.start()
    try:
        assert ours.poll(60) and "spawn" in ours.recv()
    finally:
        process.kill()
        process.join()


def test_a_copy_reads_the_folder_again(captioner, monkeypatch):
    read = []
    sent = pickle.dumps(captioner.caption)  # as a pool does with each task

    def from_pretrained(folder):
        read.append(folder)
        return captioner

    monkeypatch.setattr(Captioner, "from_pretrained", from_pretrained)
    for _ in range(2):
        assert pickle.loads(sent).__self__ is captioner
    copy.deepcopy(captioner)
    assert read == [str(CHECKPOINT)], "once"
    monkeypatch.setattr(os, "getpid", lambda: 1)  # a forked child must not use its parent's
    pickle.loads(sent)
    assert len(read) == 2
    monkeypatch.undo()
    _kept.cache_clear()
    monkeypatch.setattr(captioner, "folder", None)
    with pytest.raises(CaptionerError, match=r"was not read from a folder\. Call save_pretrained"):
        pickle.dumps(captioner)


def test_an_address_is_not_taken_for_a_path(captioner):
    with pytest.raises(ImageError, match="addresses are not fetched"):
        captioner.caption("https://example.org/photo.jpg")


@pytest.mark.slow
def test_a_process_that_starts_anew_gets_the_same_caption(captioner, photo):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(captioner.caption, photo, strategy="greedy").result(200)
    assert there[0].text == captioner.caption(photo, strategy="greedy")[0].text
