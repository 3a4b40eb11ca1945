"""Captions for many visitors at once: requests that wait go through the network together.

Each request decodes its photo and draws its picture in its own thread. One further thread runs the
network and another one runs the search: each takes all requests that have come in meanwhile and
computes them as one batch. Nobody waits for a batch to fill: a lone request is a batch of one.
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
from captioner.model.decoding import DecodingLoop, SearchInputs, decode
from captioner.model.decoding_options import DecodingOptions

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# The requests that wait are divided into batches of these sizes. Each further size would be one
# more graph to compile (under JAX), and padding a batch costs as much time as real photos in it.
BATCH_SIZES = (1, 2, 4, 8)
# XLA compiles a kind of search once this many single photos have been searched in that way. The
# number of compiled kinds is limited, because each takes some 70 MB.
OFTEN, MAX_COMPILED = 3, 4
PAUSE = 1.0  # seconds before compiling begins: the request that caused it is answered first


class Batcher(Generic[Item, Result]):
    """Items from any number of threads, computed in batches by one thread, which `close` ends.

    The oldest item that waits is always in the next batch, so that items are served in order.

    Args:
        run: Maps a list of items to their results, one per item.
        key: Only items with the same key share a batch.
        sizes: The sizes that a batch may have; 1 must be among them.
        name: The name of the thread, for logs and debuggers.
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
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"captioner {name}", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> Future[Result]:
        """Adds an item to those that wait.

        Returns:
            A future of its result, or of the exception that `run` raised for it.

        Raises:
            RuntimeError: The batcher has been closed.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher has been closed")
            self._waiting.append((item, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Cancels the items that wait, finishes the batch that is being computed, and ends the
        thread."""
        with self._changed:
            self._closed = True
            cancelled, self._waiting = self._waiting, []
            self._changed.notify()
        for _, future in cancelled:
            future.cancel()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._carry_out(batch)

    def _next_batch(self) -> list[tuple[Item, Future[Result]]]:
        """The items of the next batch, or an empty list after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
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
            # Only the item that caused the error shall fail.
            logger.exception("a batch of %d failed; its items are tried one by one", len(batch))
            for one in batch:
                self._carry_out([one])


@dataclass(frozen=True)
class SearchJob:
    """The search for one photo's captions."""

    inputs: SearchInputs  # without the batch dimension
    options: DecodingOptions

    @property
    def kind(self) -> DecodingOptions:
        """Searches with equal kinds may share a batch. Seeds may differ: see `inputs.draws`."""
        return replace(self.options, seed=0)


class BatchingCaptioner(Captioner):
    """A `Captioner` for many threads: what they ask for at the same time is computed together.

    The captions are those that `Captioner` gives, up to the rounding of floating-point sums: where
    a random number lies within about 1e-6 of the border between two words, a sample may take either
    one. Kinds of search that are often asked for are compiled, and are then faster. `close` ends
    the threads.
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

    def close(self) -> None:
        """Cancels the requests that wait, finishes those that are being computed, and ends the
        threads. The captioner cannot be used any more."""
        for batcher in (self._feature_batcher, self._search_batcher, self._compiler):
            batcher.close()

    def features_of_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self._require_own_process()
        return np.stack(
            [f.result() for f in [self._feature_batcher.submit(image) for image in pixels]]
        )

    def search(self, inputs: SearchInputs, options: DecodingOptions) -> list[list[Caption]]:
        futures = [
            self._search_batcher.submit(SearchJob(SearchInputs(*arrays), options))
            for arrays in zip(*inputs, strict=True)
        ]
        return [future.result() for future in futures]

    def _extract_batch(self, pixels: list[np.ndarray]) -> np.ndarray:
        return self.extractor(np.stack(pixels))

    def _run_searches(self, searches: list[SearchJob]) -> list[list[Caption]]:
        options = searches[0].options
        arrays = map(np.stack, zip(*(search.inputs for search in searches), strict=True))
        inputs = SearchInputs(*arrays)
        loop = self._loop(options)
        if len(searches) == 1:
            self._note(options)
            if self._is_ready(options):
                loop = self._compiled[self._kind(options)].result()
        decoded = decode(loop, inputs.features, options, *inputs[1:])
        return self._captions(decoded, inputs, options)

    def is_compiled(self, options: DecodingOptions) -> bool:
        """Whether a search of this kind has been compiled for single photos."""
        return self._is_ready(options) or not _gains_by_xla(options)

    def _is_ready(self, options: DecodingOptions) -> bool:
        future = self._compiled.get(self._kind(options))
        return future is not None and future.done() and future.exception() is None

    def _note(self, options: DecodingOptions) -> None:
        """Counts the searches of this kind for single photos, and has the kind compiled when there
        have been `OFTEN` of them."""
        if _gains_by_xla(options) and len(self._compiled) < MAX_COMPILED:
            kind = self._kind(options)
            self._asked[kind] += 1
            if self._asked[kind] == OFTEN:
                self._compiled[kind] = self._compiler.submit(options)

    def _compile(self, options: Sequence[DecodingOptions]) -> list[DecodingLoop]:
        """Compiles the search for a single photo by XLA. That takes seconds, during which visitors
        are served by the search that is not compiled."""
        time.sleep(PAUSE)
        loop = self._new_loop(options[0], xla=True)
        try:
            decode(loop, np.zeros((1, *self.extractor.shape), np.float16), options[0])
        except Exception:
            logger.exception("a search could not be compiled; the uncompiled one is used")
            raise
        return [loop]


def _gains_by_xla(options: DecodingOptions) -> bool:
    # XLA is slower at sorting the vocabulary, which `top_p` needs. JAX always compiles by XLA.
    return backend.name() == "tensorflow" and not options.filtered
