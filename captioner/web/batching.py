"""Captions for many visitors at once: requests that wait go through the network together.

A request's photo is decoded and its picture drawn in the request's own thread. In between, two
threads of their own, one for the network and one for the search, take what has come in meanwhile
and carry it out as one batch. Nobody waits for a batch to fill: a lone request is a batch of one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from captioner.captioner import Caption, Captioner
from captioner.model import backend
from captioner.model.decoding import DecodingLoop, decode, uniforms
from captioner.model.decoding_options import DecodingOptions

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# A waiting crowd is cut into batches of these sizes. Every further size would be one more graph to
# compile (under JAX), and padding to a size would cost as much as the photos that are missing.
BATCH_SIZES = (1, 2, 4, 8)
# A kind of search is compiled by XLA once it has been asked for this often, one photo each time.
# The number of kinds is limited, because each takes some 70 MB.
OFTEN, MAX_COMPILED = 3, 4
PAUSE = 1.0  # seconds before it begins: whoever asked has the answer first


class Batcher(Generic[Item, Result]):
    """Calls from any number of threads, carried out in batches by one thread.

    `run` maps a list of items to a list of results, one per item. Only items with the
    same `key` share a batch. First come, first served: the oldest item is always in the next batch.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result] | np.ndarray],
        key: Callable[[Item], Hashable] = lambda item: None,
        sizes: Sequence[int] = BATCH_SIZES,
        name: str = "batcher",
    ) -> None:
        if 1 not in sizes:
            raise ValueError(f"batch sizes {sizes}: 1 must be among them")
        self._run = run
        self._key = key
        self._sizes = sorted(sizes)
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, item: Item) -> Future[Result]:
        """A future of the item's result, or of the exception that `run` raised for it."""
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((item, future))
            self._changed.notify()
        return future

    def _work(self) -> None:
        while True:
            self._carry_out(self._next_batch())

    def _next_batch(self) -> list[tuple[Item, Future[Result]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            key = self._key(self._waiting[0][0])
            alike = [i for i, (item, _) in enumerate(self._waiting) if self._key(item) == key]
            size = max(size for size in self._sizes if size <= len(alike))
            chosen = alike[:size]
            batch = [self._waiting[i] for i in chosen]
            for i in reversed(chosen):
                del self._waiting[i]
        return batch

    def _carry_out(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        try:
            results = self._run([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            # Whoever is to blame fails alone.
            logger.exception("a batch of %d failed; each of it is tried alone", len(batch))
            for one in batch:
                self._carry_out([one])


@dataclass(frozen=True)
class SearchJob:
    """One photo's part in a batch of searches; arrays without the batch dimension."""

    features: np.ndarray  # float16 (locations, channels)
    options: DecodingOptions
    forced: np.ndarray  # int32 (rows, steps)
    bias: np.ndarray  # float32 (1, locations)
    draws: np.ndarray  # float32 (rows, steps)

    @property
    def kind(self) -> DecodingOptions:
        """Searches of equal kind may share a batch; each brings the random numbers of its seed."""
        return replace(self.options, seed=0)


class BatchingCaptioner(Captioner):
    """A `Captioner` for many threads: what they ask for at the same time is computed together.

    The captions are those that `Captioner` gives, up to the rounding of floating-point sums: where
    a random number lands within about 1e-6 of the border of two words, a sample may take either.
    Searches that are often asked for get faster after a while: see `_compile`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._feature_batcher = Batcher(self._extract_batch, name="network")
        self._search_batcher = Batcher(
            self._run_searches, key=lambda search: search.kind, name="search"
        )
        self._compiler = Batcher(self._compile, sizes=(1,), name="compiler")
        self._asked: Counter[Hashable] = Counter()
        self._compiled: dict[Hashable, Future[DecodingLoop]] = {}

    def features_of_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return np.stack(
            [f.result() for f in [self._feature_batcher.submit(image) for image in pixels]]
        )

    def caption_features(
        self,
        features: np.ndarray,
        options: DecodingOptions,
        forced: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> list[list[Caption]]:
        images, locations, _ = features.shape
        shape = (images, options.rows, options.max_words + 1)
        forced = np.zeros(shape, np.int32) if forced is None else forced
        bias = np.zeros((images, 1, locations), np.float32) if bias is None else bias
        draws = uniforms(options.seed, *shape)
        futures = [
            self._search_batcher.submit(
                SearchJob(features[i], options, forced[i], bias[i], draws[i])
            )
            for i in range(images)
        ]
        return [future.result() for future in futures]

    def _extract_batch(self, pixels: list[np.ndarray]) -> np.ndarray:
        return self.extractor(np.stack(pixels))

    def _run_searches(self, searches: list[SearchJob]) -> list[list[Caption]]:
        options = searches[0].options
        features, forced, bias, draws = (
            np.stack([getattr(search, name) for search in searches])
            for name in ("features", "forced", "bias", "draws")
        )
        loop = self._loop(options)
        if len(searches) == 1:
            self._note(options)
            if self._is_ready(options):
                loop = self._compiled[self._kind(options)].result()
        decoded = decode(loop, features, options, forced, bias, draws)
        return [self._captions(decoded, i, options) for i in range(len(searches))]

    def is_compiled(self, options: DecodingOptions) -> bool:
        """Whether a search of this kind has been compiled for single photos."""
        return self._is_ready(options) or not _gains_by_xla(options)

    def _is_ready(self, options: DecodingOptions) -> bool:
        future = self._compiled.get(self._kind(options))
        return future is not None and future.done() and future.exception() is None

    def _note(self, options: DecodingOptions) -> None:
        """Remembers that one photo was searched with `options`, and has that compiled in time."""
        if _gains_by_xla(options) and len(self._compiled) < MAX_COMPILED:
            kind = self._kind(options)
            self._asked[kind] += 1
            if self._asked[kind] == OFTEN:
                self._compiled[kind] = self._compiler.submit(options)

    def _compile(self, options: Sequence[DecodingOptions]) -> list[DecodingLoop]:
        """The search for one photo, by XLA. Takes seconds, in which visitors have the other one."""
        time.sleep(PAUSE)
        loop = self._new_loop(options[0], xla=True)
        try:
            decode(loop, np.zeros((1, *self.extractor.shape), np.float16), options[0])
        except Exception:
            logger.exception("a search could not be compiled; it goes on as it is")
            raise
        return [loop]


def _gains_by_xla(options: DecodingOptions) -> bool:
    # Sorting the vocabulary, for `top_p`, takes XLA longer. Under JAX there is nothing else.
    return backend.name() == "tensorflow" and not options.filtered
