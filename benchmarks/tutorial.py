"""The captioner of the well-known tutorial, written from its description, to compare with.

It has 512 units and an embedding of 256. No state is carried into the GRU, the attention keys are
recomputed at every word, the encoder runs once per caption, every caption is padded to the longest
of the data set, and one feature file per image is read for every caption. Each flag of `Variant`
corrects one of these; the benchmark turns them on one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow import keras

UNITS, EMBEDDING = 512, 256


@dataclass(frozen=True)
class Variant:
    """Which properties of the tutorial are corrected."""

    keys_once: bool = False  # attention keys once per batch, not once per word
    project_once: bool = False  # one output product for all words
    fit_padding: bool = False  # batches of similar lengths, padded to their own longest caption


class Tutorial(keras.Model):
    """Encoder, attention and decoder, called one word at a time as the tutorial does."""

    def __init__(self, vocabulary_size: int, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.encoder = keras.layers.Dense(EMBEDDING, activation="relu")
        self.keys = keras.layers.Dense(UNITS)
        self.query = keras.layers.Dense(UNITS)
        self.score = keras.layers.Dense(1)
        self.embedding = keras.layers.Embedding(vocabulary_size, EMBEDDING)
        self.gru = keras.layers.GRU(UNITS, return_sequences=True, return_state=True)
        self.hidden = keras.layers.Dense(UNITS)
        self.output_layer = keras.layers.Dense(vocabulary_size)

    def step(self, words: tf.Tensor, encoded: tf.Tensor, keys: tf.Tensor | None, state: tf.Tensor):
        """words (batch, 1) -> GRU outputs (batch, units), the state, the attention weights."""
        keys = self.keys(encoded) if keys is None else keys  # (batch, 64, units)
        scores = self.score(tf.nn.tanh(keys + self.query(tf.expand_dims(state, 1))))
        weights = tf.nn.softmax(scores, axis=1)  # (batch, 64, 1)
        context = tf.reduce_sum(weights * encoded, axis=1)
        inputs = tf.concat([tf.expand_dims(context, 1), self.embedding(words)], axis=-1)
        output, state = self.gru(inputs)
        return output[:, 0], state, weights

    def predict_words(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.output_layer(self.hidden(outputs))


def train_step(model: Tutorial) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """(features (batch, 64, 2048), captions (batch, steps)) -> loss, after one step of Adam."""
    optimizer = keras.optimizers.Adam()

    def loss_of(logits: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(words, logits)
        return tf.reduce_mean(loss * tf.cast(words != 0, loss.dtype))

    @tf.function(reduce_retracing=not model.variant.fit_padding)
    def step(features: tf.Tensor, captions: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            encoded = model.encoder(features)
            keys = model.keys(encoded) if model.variant.keys_once else None
            state = tf.zeros((captions.shape[0], UNITS))
            loss, outputs = 0.0, []
            for i in range(1, captions.shape[1]):
                output, state, _ = model.step(captions[:, i - 1 : i], encoded, keys, state)
                if model.variant.project_once:
                    outputs.append(output)
                else:
                    loss += loss_of(model.predict_words(output), captions[:, i])
            if outputs:
                logits = model.predict_words(tf.stack(outputs, axis=1))
                loss = loss_of(logits, captions[:, 1:]) * len(outputs)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return step


def batches(
    pairs: Sequence[tuple[Path, list[int]]],
    variant: Variant,
    longest: int,
    batch_size: int = 64,
) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    """Batches of (feature file, caption) pairs as the tutorial reads them, one file per caption.

    `longest` is the length of the data set's longest caption, in words.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(pairs))
    if variant.fit_padding:
        order = sorted(order, key=lambda i: len(pairs[i][1]))
    groups = [order[i : i + batch_size] for i in range(0, len(pairs) - batch_size + 1, batch_size)]
    rng.shuffle(groups)

    def load(path: bytes, caption: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.load(path.decode()), caption

    def of(group: Sequence[int]) -> tf.data.Dataset:
        width = max(len(pairs[i][1]) for i in group) if variant.fit_padding else longest
        captions = np.zeros((len(group), width), np.int32)
        for row, i in enumerate(group):
            captions[row, : len(pairs[i][1])] = pairs[i][1]
        names = [str(pairs[i][0]) for i in group]
        files = tf.data.Dataset.from_tensor_slices((names, captions))
        loaded = files.map(
            lambda path, caption: tf.numpy_function(load, [path, caption], [tf.float32, tf.int32]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        shaped = loaded.map(
            lambda f, c: (tf.ensure_shape(f, (64, 2048)), tf.ensure_shape(c, (width,)))
        )
        return shaped.batch(len(group), drop_remainder=True)

    if not variant.fit_padding:
        return (
            of([i for group in groups for i in group])
            .unbatch()
            .batch(batch_size, drop_remainder=True)
            .prefetch(tf.data.AUTOTUNE)
        )
    return iter(batch for group in groups for batch in of(group))


def generate(model: Tutorial, features: np.ndarray, count: int, start: int, steps: int) -> list:
    """Draws `count` samples of one image eagerly, one word and one sample at a time."""
    captions = []
    for _ in range(count):
        encoded = model.encoder(features[None])
        state, words, said = tf.zeros((1, UNITS)), tf.constant([[start]]), []
        for _ in range(steps):
            output, state, _ = model.step(words, encoded, None, state)
            words = tf.random.categorical(model.predict_words(output), 1, dtype=tf.int32)
            said.append(int(words[0, 0]))
        captions.append(said)
    return captions
