"""Requests that come together: the same captions, computed in batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captioner import Captioner, DecodingOptions, ImageError
from captioner.checkpoint.checkpoint_folder import Checkpoint, read_checkpoint
from captioner.model.decoding import Decoded, DecodingLoop, decode
from captioner.web import batching
from captioner.web.batching import Batcher, BatchingCaptioner
from captioner.web.examples import example_photos

CHECKPOINT = Path(__file__).parents[2] / "assets" / "checkpoint"
UNLUCKY = -1


class Recorder:
    """A batch's work that waits for permission to go on, and remembers what came together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.started.set()
        assert self.go_on.wait(10)
        if UNLUCKY in items:
            raise RuntimeError("unlucky")
        return [item * 10 for item in items]


def submit_while_busy(batcher: Batcher, work: Recorder, items: list[int]) -> list:
    """Futures of `items`, all of which came in while the first was being worked on."""
    futures = [batcher.submit(items[0])]
    assert work.started.wait(10)
    futures += [batcher.submit(item) for item in items[1:]]
    work.go_on.set()
    return futures


def test_what_waits_goes_together_in_batches_of_few_sizes() -> None:
    work = Recorder()
    with closing(Batcher(work)) as batcher:
        futures = submit_while_busy(batcher, work, list(range(16)))
        assert [f.result(10) for f in futures] == [item * 10 for item in range(16)]
    # Fifteen waited: 8, then the 4, 2 and 1 that 7 are made of, and each exactly once.
    assert [len(batch) for batch in work.batches] == [1, 8, 4, 2, 1]
    assert [item for batch in work.batches for item in batch] == list(range(16)), (
        "first come, first served"
    )


def test_only_what_is_alike_shares_a_batch() -> None:
    work = Recorder()
    with closing(Batcher(work, key=lambda i: i % 2)) as batcher:
        futures = submit_while_busy(batcher, work, [0, 1, 2, 3, 5, 7, 4])
        assert [f.result(10) for f in futures] == [0, 10, 20, 30, 50, 70, 40]
    assert work.batches == [[0], [1, 3, 5, 7], [2, 4]]


def test_the_one_that_fails_fails_alone() -> None:
    work = Recorder()
    with closing(Batcher(work)) as batcher:
        futures = submit_while_busy(batcher, work, [1, 12, UNLUCKY, 14, 15])
        assert [futures[i].result(10) for i in (0, 1, 3, 4)] == [10, 120, 140, 150]
        with pytest.raises(RuntimeError, match="unlucky"):
            futures[2].result(10)
    with pytest.raises(ValueError, match="1 must be among them"):
        Batcher(work, sizes=(2, 4))


def test_a_closed_batcher_finishes_its_batch_and_cancels_the_rest() -> None:
    work = Recorder()
    batcher = Batcher(work)
    running = batcher.submit(1)
    assert work.started.wait(10)
    waiting = batcher.submit(2)
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(batcher.close)
        with pytest.raises(CancelledError):
            waiting.result(10)
        assert not closed.done(), "a batch is being computed"
        work.go_on.set()
        closed.result(10)
    assert running.result(0) == 10 and work.batches == [[1]]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(3)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return read_checkpoint(CHECKPOINT)


@pytest.fixture(scope="module")
def captioner(checkpoint: Checkpoint) -> Iterator[BatchingCaptioner]:
    with closing(BatchingCaptioner(checkpoint)) as captioner:
        yield captioner


@pytest.fixture
def fresh(checkpoint: Checkpoint) -> Iterator[BatchingCaptioner]:
    """A captioner that nobody has asked for anything yet."""
    with closing(BatchingCaptioner(checkpoint)) as captioner:
        yield captioner


@pytest.fixture(scope="module")
def alone(checkpoint: Checkpoint) -> Captioner:
    return Captioner(checkpoint)


def test_captions_do_not_depend_on_who_else_asks(
    captioner: BatchingCaptioner, alone: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    keep = captioner._extract_batch

    def extract(pixels: list[np.ndarray]) -> np.ndarray:
        sizes.append(len(pixels))
        return keep(pixels)

    monkeypatch.setattr(captioner._feature_batcher, "_run", extract)
    photos = example_photos()
    requests = [
        (photos[i % len(photos)], {"num_captions": 3, "strategy": strategy, "seed": i})
        for i, strategy in enumerate(["sample"] * 8 + ["beam"] * 3 + ["greedy"])
    ]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda r: captioner.caption(r[0], **r[1]), requests))
    assert sum(sizes) == len(requests) and max(sizes) > 1
    equal = []
    for (photo, options), captions in zip(requests, together, strict=True):
        expected = {c.text: c for c in alone.caption(photo, **options)}
        same = [(c, expected[c.text]) for c in captions if c.text in expected]
        equal.append(len(same) == len(captions))
        for caption, like in same:
            np.testing.assert_allclose(caption.log_probs, like.log_probs, atol=2e-3)
            np.testing.assert_allclose(caption.attention, like.attention, atol=2e-3)
    # A draw that lands on the border of two words, within rounding, may fall on either side.
    assert sum(equal) >= len(requests) - 1
    assert all(equal[8:]), "beam and greedy draw nothing"


def test_beginnings_and_regions_share_batches_too(
    captioner: BatchingCaptioner, alone: Captioner
) -> None:
    photo = example_photos()[0]
    calls = [
        lambda c: c.caption(photo, 3, "beam", prefix="two dogs"),
        lambda c: c.caption(photo, num_captions=3, strategy="beam"),
        lambda c: c.caption(photo, 3, "beam", region=(0, 0, 0.5, 1)),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        together = list(pool.map(lambda call: call(captioner), calls))
    texts = [[c.text for c in captions] for captions in together]
    assert texts == [[c.text for c in call(alone)] for call in calls]
    assert all(text.startswith("two dogs") for text in texts[0])
    assert texts[0] != texts[1]


def test_searches_that_are_often_asked_for_are_compiled_meanwhile(
    fresh: BatchingCaptioner, alone: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PAUSE", 0.0)
    monkeypatch.setattr(batching, "MAX_COMPILED", 1)
    photo = example_photos()[0]
    features = fresh.features([photo])
    beam, greedy = DecodingOptions("beam"), DecodingOptions("greedy")
    assert fresh.is_compiled(replace(beam, strategy="sample", top_p=0.9)), "as fast as can be"
    expected = alone.caption_features(features, beam)[0]
    for _ in range(batching.OFTEN - 1):
        fresh.caption_features(features, beam)
    wait_for_compiler(fresh)
    assert not fresh.is_compiled(beam), "asked for too seldom"
    fresh.caption_features(features, beam)
    wait_for_compiler(fresh)
    assert fresh.is_compiled(beam)
    compiled = fresh.caption_features(features, beam)[0]
    assert [c.text for c in compiled] == [c.text for c in expected]
    for one, other in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
        np.testing.assert_allclose(one.attention, other.attention, atol=1e-4)
    # No more than there is memory for; and batches, which come in many sizes, stay as they are.
    for _ in range(batching.OFTEN):
        fresh.caption_features(features, greedy)
    wait_for_compiler(fresh)
    assert not fresh.is_compiled(greedy)
    assert len(fresh.caption_features(np.repeat(features, 4, 0), beam)) == 4


def test_a_search_that_cannot_be_compiled_goes_on(
    fresh: BatchingCaptioner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def decode_unless_compiled(loop: DecodingLoop, *arguments: object) -> Decoded:
        if loop.jit_compile:
            raise MemoryError("too large")
        return decode(loop, *arguments)

    monkeypatch.setattr(batching, "PAUSE", 0.0)
    monkeypatch.setattr(batching, "decode", decode_unless_compiled)
    features, options = fresh.features([example_photos()[0]]), DecodingOptions("greedy")
    for _ in range(batching.OFTEN):
        fresh.caption_features(features, options)
    wait_for_compiler(fresh)
    assert "could not be compiled" in caplog.text and not fresh.is_compiled(options)
    assert fresh.caption_features(features, options)[0][0].text


def wait_for_compiler(captioner: BatchingCaptioner) -> None:
    for future in captioner._compiled.values():
        future.exception(60)


def test_a_forked_child_is_refused(captioner: BatchingCaptioner, monkeypatch) -> None:
    """It would wait forever for threads that only its parent has."""
    monkeypatch.setattr(captioner, "_process", 1)
    with pytest.raises(RuntimeError, match="before the process was forked"):
        captioner.caption(example_photos()[0])


def test_batches_of_files_and_their_errors(captioner: BatchingCaptioner, tmp_path: Path) -> None:
    photos = example_photos()[:3]
    options = DecodingOptions("greedy")
    batch = captioner.caption_batch(photos, options)
    assert [b[0].text for b in batch] == [
        captioner.caption(photo, strategy="greedy")[0].text for photo in photos
    ]
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam,\n")
    with pytest.raises(ImageError, match=r"letter\.jpg"):
        captioner.caption_batch([photos[0], tmp_path / "letter.jpg"], options)
