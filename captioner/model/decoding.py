"""Greedy, sampling and beam search, built from the model's single step.

One loop serves all strategies. At each step the model computes the log-probabilities of the next
word for each row of an image (a sample or a beam), and a chooser picks, for each row, a word and
the row that it continues. A chooser maps probabilities to words and knows nothing about the model.
The loop is compiled as a whole; all images and all rows go through it as one batch.

Random numbers in [0, 1), one for each row and step, are made by NumPy from the seed and passed to
the loop. The same seed therefore gives the same captions under every backend and in every batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from captioner.data.vocabulary import END, PAD, SPECIAL_TOKENS, START, UNK
from captioner.model.backend import compiles_whole_steps, own_settings, predict
from captioner.model.decoder_interface import Decoder, Tensor
from captioner.model.decoding_options import DecodingOptions

PIECE = 64  # words in a piece of the vocabulary, see `_cumulated`
IMPOSSIBLE = -1e9  # a log-probability; finite, because sums of it must stay numbers


class Decoded(NamedTuple):
    """The result of the loop: `rows` captions for each image; those of a beam are best first."""

    words: np.ndarray  # int32 (batch, rows, steps), padded with PAD after END
    log_probs: np.ndarray  # float32 (batch, rows, steps), natural logarithm, before temperature
    attention: np.ndarray  # float32 (batch, rows, steps, locations)
    # The most probable words at each step, best first, without special tokens. The chosen word may
    # be among them. Their number is the loop's `alternatives`.
    alternatives: np.ndarray  # int32 (batch, rows, steps, alternatives)
    alternative_log_probs: np.ndarray  # float32, likewise


class SearchInputs(NamedTuple):
    """The arrays that a search reads, with one entry for each image."""

    features: np.ndarray  # float16 (batch, locations, channels)
    forced: np.ndarray  # int32 (batch, rows, steps): the word that a step must have, PAD for none
    bias: np.ndarray  # float32 (batch, 1, locations), added to the attention scores
    draws: np.ndarray  # float32 (batch, rows, steps): random numbers in [0, 1)


def search_inputs(
    features: np.ndarray,
    options: DecodingOptions,
    forced: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    draws: np.ndarray | None = None,
) -> SearchInputs:
    """The arguments as `SearchInputs`. By default, no word is forced, the attention has no bias,
    and the random numbers are made from the seed of `options`."""
    batch, locations, _ = features.shape
    shape = (batch, options.rows, options.max_words + 1)  # the end of the caption takes one step
    return SearchInputs(
        features,
        np.zeros(shape, np.int32) if forced is None else forced,
        np.zeros((batch, 1, locations), np.float32) if bias is None else bias,
        uniforms(options.seed, *shape) if draws is None else draws,
    )


def uniforms(seed: int, batch: int, rows: int, steps: int) -> np.ndarray:
    """Random numbers in [0, 1), float32 (batch, rows, steps).

    All images of a batch get the same numbers, so that the captions of an image do not depend on
    the other images. The numbers of a row do not depend on how many rows there are.
    """
    key = zlib.crc32(b"captions")
    draws = [np.random.default_rng([key, seed, row]).random(steps) for row in range(rows)]
    return np.broadcast_to(np.array(draws, np.float32), (batch, rows, steps))


class Carry(NamedTuple):
    """The state of the loop."""

    step: Tensor
    state: Tensor  # (batch, rows, units)
    score: Tensor  # (batch, rows): sum of log-probabilities, the end included
    length: Tensor  # (batch, rows): words, the end included
    ended: Tensor  # (batch, rows), bool
    words: Tensor  # (batch, rows, steps)
    log_probs: Tensor  # (batch, rows, steps)
    attention: Tensor  # (batch, rows, steps, locations)
    alternatives: Tensor  # (batch, rows, steps, alternatives)
    alternative_log_probs: Tensor  # (batch, rows, steps, alternatives)


Choice = tuple[Tensor, Tensor | None]  # the words (batch, rows), the rows they continue or None
Chooser = Callable[[Tensor, Carry, dict[str, Tensor]], Choice]


def choose_greedily(log_probs: Tensor, carry: Carry, inputs: dict[str, Tensor]) -> Choice:
    """The most probable word."""
    return ops.argmax(log_probs, axis=-1), None


def choose_by_chance(log_probs: Tensor, carry: Carry, inputs: dict[str, Tensor]) -> Choice:
    """A word drawn by its probability after temperature: the first word whose cumulated
    probability exceeds the row's random number."""
    probs = _probabilities(log_probs, inputs)
    return _first_above(_cumulated(probs), _draw(carry, inputs)), None


def choose_by_filtered_chance(log_probs: Tensor, carry: Carry, inputs: dict[str, Tensor]) -> Choice:
    """Like `choose_by_chance`, but limited to the `top_k` most probable words (Fan et al. 2018,
    arXiv 1805.04833) and to the nucleus of `top_p` (Holtzman et al. 2020, arXiv 1904.09751)."""
    size = log_probs.shape[-1]
    probs, order = ops.top_k(_probabilities(log_probs, inputs), size)
    before = ops.cumsum(probs, axis=-1) - probs  # the probability of all more probable words
    rank = ops.arange(size, dtype="int32")
    kept = ops.logical_and(before < inputs["top_p"], rank < inputs["top_k"])
    kept = ops.logical_or(kept, rank == 0)
    cumulated = ops.cumsum(ops.where(kept, probs, 0.0), axis=-1)
    place = _first_above(cumulated, _draw(carry, inputs) * cumulated[..., -1])
    words = ops.take_along_axis(order, ops.expand_dims(place, -1), axis=-1)
    return ops.squeeze(words, -1), None


def choose_by_beam(log_probs: Tensor, carry: Carry, inputs: dict[str, Tensor]) -> Choice:
    """The best continuations of all rows together, ranked by log-probability divided by
    length ** `length_penalty` (Wu et al. 2016, arXiv 1609.08144, with a plain power).

    A caption that has ended competes without growing, and is kept until better ones replace it.
    """
    size, rows = log_probs.shape[-1], log_probs.shape[1]
    ended = ops.expand_dims(carry.ended, -1)
    only_pad = ops.where(ops.arange(size) == PAD, 0.0, IMPOSSIBLE)
    score = ops.expand_dims(carry.score, -1) + ops.where(ended, only_pad, log_probs)
    length = ops.expand_dims(ops.where(carry.ended, carry.length, carry.length + 1), -1)
    rank = score / length ** inputs["length_penalty"]  # (batch, rows, vocabulary)
    _, best = ops.top_k(ops.reshape(rank, (-1, rows * size)), rows)
    return best % size, best // size


def chooser_for(options: DecodingOptions) -> Chooser:
    """The chooser of a strategy."""
    if options.is_beam:
        return choose_by_beam
    if options.strategy == "greedy":
        return choose_greedily
    return choose_by_filtered_chance if options.filtered else choose_by_chance


class DecodingLoop(keras.Model):
    """The loop around a model. It is a Keras model so that Keras compiles it on every backend.

    Args:
        model: Computes the single steps.
        chooser: The strategy, see `chooser_for`.
        rows: How many captions of an image are searched for at the same time.
        alternatives: How many of the most probable words to record at each step.
        unfinished: Ids of words after which a caption does not end, such as "the".
        repeatable: Ids of the words that a caption may say more than once, though not twice in a
            row (`function_words.repeatable_ids`). A caption has no other word twice. If there are
            none, all words may be repeated. (Paulus et al. 2017, arXiv 1705.04304, section 2.5,
            forbid to repeat three words in a row.)
        xla: Whether to compile by XLA, as is always done under JAX. The search is faster then (a
            beam search twice as fast), but compiling takes two seconds and some 70 MB for each
            shape of inputs.
    """

    def __init__(
        self,
        model: Decoder,
        chooser: Chooser,
        rows: int,
        alternatives: int = 0,
        unfinished: Sequence[int] = (),
        repeatable: Sequence[int] = (),
        xla: bool = False,
    ) -> None:
        super().__init__(dtype="float32")
        self.model = model
        self.chooser = chooser
        self.rows = rows
        self.alternatives = min(alternatives, model.config.vocabulary_size)
        # For each word, the id that is banned after it: END, or PAD, which is banned anyway.
        self.no_end = np.full(model.config.vocabulary_size, PAD, np.int32)
        self.no_end[[START, *unfinished]] = END
        # For each word, the id that is banned after the word was said: the word itself, or PAD.
        self.once = None
        if len(repeatable):
            self.once = np.arange(model.config.vocabulary_size, dtype=np.int32)
            self.once[list(repeatable)] = PAD
        self.built = True
        self.compile(jit_compile=xla or compiles_whole_steps())

    @own_settings()
    def call(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Runs the search on `inputs` as `decode` makes them. Returns the fields of `Decoded`."""
        annotations = self.model.encode(inputs["features"])
        start = self._start(annotations, inputs)
        end = ops.while_loop(
            lambda carry: self._continues(carry, inputs),
            lambda carry: self._advance(carry, annotations, inputs),
            (start,),
        )[0]
        return end[end._fields.index("words") :]

    def _start(self, annotations: Any, inputs: dict[str, Tensor]) -> Carry:
        state = self.model.initial_state(annotations, self.rows)
        none = ops.zeros_like(inputs["forced"])  # (batch, rows, steps), int32
        zeros = ops.cast(none, "float32")
        score = zeros[..., 0]
        if self.chooser is choose_by_beam:
            # All rows begin alike. They would stay alike if more than the first one could continue.
            score = score + ops.where(ops.arange(self.rows) == 0, 0.0, IMPOSSIBLE)
        # By the features, because in fine-tuning photos may be smaller than the model's own.
        attention = ops.expand_dims(zeros, -1) * ops.expand_dims(ops.zeros_like(inputs["bias"]), 2)
        words = ops.expand_dims(none, -1) * ops.zeros((self.alternatives,), "int32")
        return Carry(
            ops.zeros((), "int32"), state, score, zeros[..., 0], none[..., 0] > 0, none, zeros,
            attention, words, ops.cast(words, zeros.dtype),
        )  # fmt: skip

    def _continues(self, carry: Carry, inputs: dict[str, Tensor]) -> Tensor:
        steps = inputs["forced"].shape[-1]
        return ops.logical_and(carry.step < steps, ops.logical_not(ops.all(carry.ended)))

    def _advance(self, carry: Carry, annotations: Any, inputs: dict[str, Tensor]) -> tuple[Carry]:
        model, steps = self.model, inputs["forced"].shape[-1]
        now = ops.cast(ops.arange(steps) == carry.step, "int32")  # (steps,), one-hot
        before = ops.cast(ops.arange(steps) == carry.step - 1, "int32")
        previous = ops.where(carry.step == 0, START, ops.sum(carry.words * before, axis=-1))
        embedded = model.embedding(previous)  # (batch, rows, dim)
        state, context, weights = model.step(annotations, carry.state, embedded, inputs["bias"])
        log_probs = ops.log_softmax(model.project(state, context, embedded), axis=-1)
        forced = ops.sum(inputs["forced"] * now, axis=-1)  # (batch, rows)
        allowed = _allowed(log_probs, self._banned(carry.words, previous), forced)
        words, parents = self.chooser(allowed, carry, inputs)
        words = ops.cast(words, "int32")
        if parents is not None:
            carry = Carry(carry.step, *(_rows_of(x, parents) for x in carry[1:]))
            state, weights, log_probs, allowed = (
                _rows_of(x, parents) for x in (state, weights, log_probs, allowed)
            )
        words = ops.where(carry.ended, PAD, words)
        chosen = ops.where(carry.ended, 0.0, _at(log_probs, words))
        # A beam with too few possible continuations is filled up with impossible ones, which must
        # keep an impossible score.
        gained = ops.where(carry.ended, 0.0, _at(allowed, words))
        now_float = ops.cast(now, chosen.dtype)
        likeliest, likely = carry.alternatives, carry.alternative_log_probs
        if self.alternatives:
            special = ops.arange(log_probs.shape[-1]) < len(SPECIAL_TOKENS)
            spoken = ops.where(special, IMPOSSIBLE, log_probs)
            values, ids = ops.top_k(spoken, self.alternatives)  # (batch, rows, alternatives)
            likely = likely + ops.expand_dims(values, 2) * ops.expand_dims(now_float, -1)
            ids = ops.cast(ids, "int32")
            likeliest = likeliest + ops.expand_dims(ids, 2) * ops.expand_dims(now, -1)
        return (
            Carry(
                carry.step + 1,
                state,
                carry.score + gained,
                carry.length + ops.cast(ops.logical_not(carry.ended), chosen.dtype),
                ops.logical_or(carry.ended, words == END),
                carry.words + ops.expand_dims(words, -1) * now,
                carry.log_probs + ops.expand_dims(chosen, -1) * now_float,
                carry.attention + ops.expand_dims(weights, 2) * ops.expand_dims(now_float, -1),
                likeliest,
                likely,
            ),
        )

    def _banned(self, words: Tensor, previous: Tensor) -> Tensor:
        """The ids that must not follow `previous` (batch, rows), the last of `words` (batch, rows,
        steps). They are (batch, rows, any number), some of them more than once."""
        end = ops.expand_dims(ops.take(self.no_end, previous, axis=0), -1)
        banned = [ops.zeros_like(end) + np.array([PAD, START, UNK], np.int32), end]
        if self.once is not None:
            banned += [ops.expand_dims(previous, -1), ops.take(self.once, words, axis=0)]
        return ops.concatenate(banned, axis=-1)


def decode(
    loop: DecodingLoop,
    features: np.ndarray,
    options: DecodingOptions,
    forced: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    draws: np.ndarray | None = None,
) -> Decoded:
    """Searches for captions.

    Args:
        loop: The compiled search. Its chooser and its rows must be those of `options`.
        features: (batch, locations, channels).
        options: The options of the search.
        forced: int32 (batch, rows, steps): the word that a caption must have at a step, or PAD.
        bias: float32 (batch, 1, locations), added to the attention scores
            (`steering.attention_bias`).
        draws: float32 (batch, rows, steps) in [0, 1). Replaces the random numbers that are made
            from the seed of `options`.
    """
    inputs = search_inputs(features, options, forced, bias, draws)._asdict() | {
        "temperature": np.array([options.temperature], np.float32),
        "top_k": np.array([options.top_k or 2**31 - 1], np.int32),
        "top_p": np.array([options.top_p or 1.0], np.float32),
        "length_penalty": np.array([options.length_penalty], np.float32),
    }
    return Decoded(*(np.asarray(x) for x in predict(loop, inputs)))


def _allowed(log_probs: Tensor, banned: Tensor, forced: Tensor) -> Tensor:
    """Log-probabilities (batch, rows, vocabulary) in which the `banned` words (batch, rows, any
    number) are impossible. Where a word is `forced` (batch, rows; PAD for none), all others are."""
    size = log_probs.shape[-1]
    flat = ops.reshape(log_probs, (-1,))
    row = ops.arange(ops.shape(flat)[0] // size, dtype="int32")
    index = ops.reshape(banned, (-1, banned.shape[-1])) + size * row[:, None]
    index = ops.reshape(index, (-1, 1))
    # A mask over the vocabulary for each banned word would take a hundred times the memory.
    allowed = ops.scatter_update(flat, index, IMPOSSIBLE * ops.ones_like(index[:, 0], flat.dtype))
    allowed = ops.reshape(allowed, ops.shape(log_probs))
    forced = ops.expand_dims(forced, -1)
    alone = ops.where(ops.arange(size, dtype="int32") == forced, log_probs, IMPOSSIBLE)
    return ops.where(forced == PAD, allowed, alone)


def _rows_of(values: Tensor, parents: Tensor) -> Tensor:
    """values (batch, rows, ...) with row i replaced by row parents[:, i]."""
    index = ops.reshape(parents, (-1, parents.shape[1]) + (1,) * (len(values.shape) - 2))
    return ops.take_along_axis(values, index, axis=1)


def _at(values: Tensor, words: Tensor) -> Tensor:
    """The entries of values (batch, rows, vocabulary) for the words (batch, rows)."""
    return ops.squeeze(ops.take_along_axis(values, ops.expand_dims(words, -1), axis=-1), -1)


def _draw(carry: Carry, inputs: dict[str, Tensor]) -> Tensor:
    draws = inputs["draws"]  # (batch, rows, steps)
    now = ops.cast(ops.arange(draws.shape[-1]) == carry.step, draws.dtype)
    return ops.sum(draws * now, axis=-1)


def _probabilities(log_probs: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """The probabilities after temperature."""
    # `ops.softmax` computes the same, but takes three times as long under TensorFlow.
    return ops.exp(ops.log_softmax(log_probs / inputs["temperature"], axis=-1))


def _cumulated(values: Tensor) -> Tensor:
    """The cumulated sum along the last axis, which is padded to whole pieces.

    Products with triangular matrices of ones compute the sums within the pieces and over them. This
    takes a third of the time of `ops.cumsum` under TensorFlow.
    """
    size = values.shape[-1]
    pieces = -(-size // PIECE)
    values = ops.pad(values, [(0, 0)] * (len(values.shape) - 1) + [(0, pieces * PIECE - size)])
    values = ops.reshape(values, (-1, values.shape[1], pieces, PIECE))
    within = ops.matmul(values, np.triu(np.ones((PIECE, PIECE), np.float32)))
    before = ops.matmul(within[..., -1], np.triu(np.ones((pieces, pieces), np.float32), 1))
    whole = within + ops.expand_dims(before, -1)
    return ops.reshape(whole, (-1, values.shape[1], pieces * PIECE))


def _first_above(cumulated: Tensor, threshold: Tensor) -> Tensor:
    """The first index along the last axis at which `cumulated` exceeds `threshold`."""
    # The final sum may be rounded to slightly less than the threshold. The index is then that of
    # the last word with any probability, where the final sum is first reached.
    threshold = ops.minimum(threshold, cumulated[..., -1] * (1 - 1e-6))
    # Counting the smaller entries is faster than `argmax`, which would take a sixth of the search.
    return ops.sum(ops.cast(cumulated <= ops.expand_dims(threshold, -1), "int32"), axis=-1)
