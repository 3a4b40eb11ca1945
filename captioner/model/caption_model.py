"""Encoder, attention and decoder of Show, Attend and Tell (Xu et al. 2015, arXiv 1502.03044).

The code uses Keras layers and `keras.ops` alone, so that TensorFlow and JAX both run it. Shapes in
comments use these names:

    batch     images
    captions  captions of one image, which share the image's encoding; in training, rows of several
              captions, one after the other, each beginning with its `<start>`
    steps     words of a caption, or of such a row, including `<start>`
    locations 64, the 8 x 8 cells of the feature map

With `mixed_precision`, every matrix product except that of the last layer is computed in bfloat16.
Its factors are rounded to bfloat16, and so is its result, such as the score of each location. If
the layer has an activation, it is computed in bfloat16, too. Then the result becomes float32 again.
Weights, the GRU's gates and states, the softmax of the attention, logits and losses are float32.

Decoding calls `step`. Training takes the same steps in `ops.scan`, but computes the products that
need no state for all steps at once: the words' part of the GRU's input, and the projection onto the
vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers, ops

from captioner.config import ModelConfig
from captioner.data.vocabulary import PAD, START, UNK
from captioner.model.augmentation import augmented, network_input
from captioner.model.backend import precision

Tensor = Any


class Annotations(NamedTuple):
    """The encoding of images that the decoder attends to, computed once for each image."""

    vectors: Tensor  # (batch, locations, embedding_dim)
    keys: Tensor  # (batch, locations, attention_units)


class Product(layers.Dense):
    """A dense layer whose result is float32, whatever the precision of the product."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return ops.cast(super().call(inputs, training=training), "float32")


class Encoder(layers.Layer):
    """Features (batch, locations, channels) -> annotation vectors (batch, locations, dim)."""

    def __init__(self, config: ModelConfig, policy: keras.DTypePolicy, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.dropout = layers.Dropout(config.dropout, dtype="float32")
        self.dense = Product(config.embedding_dim, activation="relu", name="dense", dtype=policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # `standardize` sets these two, because the initialisation of the dense layer expects about
        # unit variance, and the features of backbones differ in scale by a factor of two or more.
        self.mean = self.add_weight(name="mean", initializer="zeros", trainable=False)
        self.std = self.add_weight(name="std", initializer="ones", trainable=False)
        self.dense.build(input_shape)
        self.built = True

    def standardize(self, mean: float, std: float) -> None:
        """Makes the encoder use (features - mean) / std, or features - mean if `std` is 0."""
        self.mean.assign(mean)
        self.std.assign(std or 1.0)

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        standard = (features - self.mean) / self.std
        return self.dense(self.dropout(standard, training=training))


class BahdanauAttention(layers.Layer):
    """Additive attention (Bahdanau et al. 2015, arXiv 1409.0473, appendix A.1.2)."""

    def __init__(self, config: ModelConfig, policy: keras.DTypePolicy, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.config = config
        self.policy = policy
        self.key = Product(config.attention_units, name="key", dtype=policy)
        self.query = Product(config.attention_units, use_bias=False, name="query", dtype=policy)
        self.score = Product(1, use_bias=False, name="score", dtype=policy)

    def build(self) -> None:
        self.key.build((None, None, self.config.embedding_dim))
        self.query.build((None, None, self.config.units))
        self.score.build((None, None, None, self.config.attention_units))
        self.built = True

    def call(
        self, annotations: Annotations, state: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attends once.

        Args:
            annotations: The encoding of the images.
            state: (batch, captions, units).
            bias: (batch, 1 or captions, locations), added to the scores before the softmax: the
                logarithm of a factor on each weight.

        Returns:
            The context vectors (batch, captions, dim) and the attention weights (batch, captions,
            locations), which sum to 1.
        """
        query = ops.expand_dims(self.query(state), 2)  # (batch, captions, 1, attention_units)
        keys = ops.expand_dims(annotations.keys, 1)  # (batch, 1, locations, attention_units)
        scores = ops.squeeze(self.score(ops.tanh(keys + query)), -1)  # (batch, captions, locations)
        if bias is not None:
            scores = scores + bias
        weights = ops.softmax(scores, axis=-1)
        return _product(weights, annotations.vectors, self.policy), weights


class CaptionModel(keras.Model):
    """Computes the logits of the next words from features and the previous words."""

    def __init__(
        self, config: ModelConfig, label_smoothing: float = 0.0, mixed_precision: bool = False
    ) -> None:
        super().__init__(name="captioner", dtype="float32")
        self.config = config
        self.label_smoothing = label_smoothing
        self.policy = policy = precision(mixed_precision)
        plain = {"dtype": "float32"}
        self.encoder = Encoder(config, policy, name="encoder")
        self.attention = BahdanauAttention(config, policy, name="attention")
        self.embedding = layers.Embedding(
            config.vocabulary_size, config.embedding_dim, name="embedding", **plain
        )
        self.gru = layers.GRUCell(config.units, name="gru", **plain)
        self.hidden = Product(config.output_dim, name="hidden", dtype=policy)
        # Never in bfloat16, whose few digits would be visible in the log-probabilities.
        self.logits = layers.Dense(config.vocabulary_size, name="logits", **plain)
        self.embedding_dropout = layers.Dropout(config.dropout, **plain)
        self.output_dropout = layers.Dropout(config.dropout, **plain)
        if config.initial_state == "mean":
            self.initial = Product(config.units, activation="tanh", name="initial", dtype=policy)
        if config.gate:
            self.gate = Product(1, activation="sigmoid", name="gate", dtype=policy)
        # The loss in nats per word, without label smoothing.
        self.nll = keras.metrics.Mean(name="nll", dtype="float32")
        self._build()

    def _build(self) -> None:
        config = self.config
        self.encoder.build((None, config.locations, config.channels))
        self.attention.build()
        self.embedding.build((None, None))
        self.gru.build((None, config.embedding_dim * 2))
        if config.initial_state == "mean":
            self.initial.build((None, config.embedding_dim))
        if config.gate:
            self.gate.build((None, None, config.units))
        width = config.units + 2 * config.embedding_dim * config.deep_output
        self.hidden.build((None, None, width))
        self.logits.build((None, None, config.output_dim))
        self.built = True

    @property
    def named_weights(self) -> dict[str, keras.Variable]:
        return {v.path: v for v in self.weights}

    def encode(self, features: Tensor, training: bool = False) -> Annotations:
        """Encodes features (batch, locations, channels); needed only once for each image."""
        vectors = self.encoder(features, training=training)
        return Annotations(vectors, self.attention.key(vectors))

    def initial_state(self, annotations: Annotations, captions: int) -> Tensor:
        """The state before the first word, (batch, captions, units)."""
        vectors = annotations.vectors
        if self.config.initial_state == "mean":
            state = self.initial(ops.mean(vectors, axis=1))
        else:
            state = ops.zeros((ops.shape(vectors)[0], self.config.units), "float32")
        return ops.repeat(ops.expand_dims(state, 1), captions, axis=1)

    def step(
        self,
        annotations: Annotations,
        state: Tensor,
        embedded: Tensor,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Moves on by one word.

        Args:
            annotations: The encoding of the images.
            state: (batch, captions, units).
            embedded: The previous word, (batch, captions, dim).
            bias: As in `BahdanauAttention.call`.

        Returns:
            The new state, the gated context vectors (batch, captions, dim), and the attention
            weights (batch, captions, locations).
        """
        context, weights = self._attend(annotations, state, bias)
        inputs = ops.concatenate([embedded, context], axis=-1)  # (batch, captions, 2 dim)
        inputs = _product(inputs, self.gru.kernel, self.policy) + self.gru.bias[0]
        return self._advance(state, inputs), context, weights

    def _attend(
        self, annotations: Annotations, state: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The gated context vectors and the attention weights."""
        context, weights = self.attention(annotations, state, bias)
        return (context * self.gate(state) if self.config.gate else context), weights

    def _advance(self, state: Tensor, inputs: Tensor) -> Tensor:
        """One step of the GRU (Cho et al. 2014, arXiv 1406.1078), from the state and the inputs of
        its three gates (batch, captions, 3 units). The reset gate is applied after the product, as
        in `keras.layers.GRU` and cuDNN."""
        recurrent = _product(state, self.gru.recurrent_kernel, self.policy) + self.gru.bias[1]
        input_update, input_reset, input_new = ops.split(inputs, 3, axis=-1)
        update, reset, new = ops.split(recurrent, 3, axis=-1)
        update, reset = ops.sigmoid(input_update + update), ops.sigmoid(input_reset + reset)
        return update * state + (1 - update) * ops.tanh(input_new + reset * new)

    def project(
        self, state: Tensor, context: Tensor, embedded: Tensor, training: bool = False
    ) -> Tensor:
        """The logits (..., vocabulary_size) of the next word, from the results of `step` and the
        embedded previous word."""
        if self.config.deep_output:
            state = ops.concatenate([state, context, embedded], axis=-1)
        return self.logits(self.output_dropout(self.hidden(state), training=training))

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Predicts each word from the words before it (teacher forcing).

        Args:
            inputs: "features" (batch, locations, channels) and "words" (batch, captions, steps).
            training: Whether to apply dropout.

        Returns:
            Logits (batch, captions, steps, vocabulary_size).
        """
        annotations = self.encode(inputs["features"], training=training)
        words = inputs["words"]
        embedded = self.embedding_dropout(self.embedding(words), training=training)
        initial = self.initial_state(annotations, ops.shape(words)[1])
        # All words are known beforehand. One product for all steps computes their part of the
        # gates' inputs in half the time of a product per step. The loop adds the context's part.
        dim = self.config.embedding_dim
        kernel = ops.convert_to_tensor(self.gru.kernel)
        of_words = _product(embedded, kernel[:dim], self.policy) + self.gru.bias[0]
        of_context = ops.cast(kernel[dim:], self.policy.compute_dtype)  # once, not at each step

        begins = ops.expand_dims(ops.transpose(words == START, (2, 0, 1)), -1)

        def step(carry: tuple[Tensor, ...], of_word: Tensor) -> tuple[Any, Any]:
            state, _, index = carry
            # A new caption in the row begins with the initial state.
            state = ops.where(ops.take(begins, index, axis=0), initial, state)
            context, _ = self._attend(annotations, state)
            state = self._advance(state, of_word + _product(context, of_context, self.policy))
            carry = (state, context, index + 1)
            return carry, carry

        # `begins` is read by an index of our own, because Keras 3.15 cannot scan two tensors of
        # unknown length under TensorFlow. `ops.scan` also requires outputs of the same shapes as
        # the carry: therefore the context is carried, and the index is among the outputs.
        start = (initial, ops.zeros_like(embedded[:, :, 0]), ops.zeros((), "int32"))
        _, (states, contexts, _) = ops.scan(step, start, ops.transpose(of_words, (2, 0, 1, 3)))
        states = ops.transpose(states, (1, 2, 0, 3))  # (batch, captions, steps, units)
        contexts = ops.transpose(contexts, (1, 2, 0, 3))
        return self.project(states, contexts, embedded, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Cross-entropy in nats, averaged over the words of `y` that are not padding.

        The labels are smoothed only in training. The `nll` metric and the validation loss are
        computed without, so that they can be compared between recipes.

        Args:
            x: Not used.
            y: Word ids (batch, captions, steps).
            y_pred: Logits (batch, captions, steps, vocabulary_size).
            sample_weight: (batch, captions), the weight of each caption; in self-critical training
                its advantage.
            training: Whether to smooth the labels.
        """
        logits = ops.cast(y_pred, "float32")
        if sample_weight is not None:
            # Decoding never chooses these tokens. If they took part in the softmax, the model would
            # learn to avoid captions with low scores by making these tokens probable.
            ids = ops.arange(logits.shape[-1])
            spoken = ops.logical_and(ids != UNK, ops.logical_and(ids != PAD, ids != START))
            logits = ops.where(spoken, logits, -1e9)
        log_probs = ops.log_softmax(logits, axis=-1)
        chosen = ops.take_along_axis(log_probs, ops.expand_dims(y, -1), axis=-1)
        nll = -ops.squeeze(chosen, -1)  # (batch, captions, steps)
        real = ops.cast(y != PAD, "float32")
        words = ops.maximum(ops.sum(real), 1.0)
        if sample_weight is not None:
            return ops.sum(nll * real * ops.expand_dims(sample_weight, -1)) / words
        loss = ops.sum(nll * real) / words
        self.nll.update_state(loss, sample_weight=words)
        if training and self.label_smoothing:
            uniform = ops.sum(-ops.mean(log_probs, axis=-1) * real) / words
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        return loss


def _product(left: Tensor, right: Tensor, policy: keras.DTypePolicy) -> Tensor:
    """A matrix product that is computed in the precision of `policy`, and returned as float32."""
    dtype = policy.compute_dtype
    return ops.cast(ops.matmul(ops.cast(left, dtype), ops.cast(right, dtype)), "float32")


class EndToEndModel(keras.Model):
    """Backbone and caption model as one model, from photos and words to logits."""

    def __init__(self, backbone: keras.Model, captions: CaptionModel) -> None:
        super().__init__(name="end_to_end", dtype="float32")
        self.backbone = backbone
        self.captions = captions
        self.nll = captions.nll
        self.built = True

    @property
    def named_weights(self) -> dict[str, keras.Variable]:
        # Keras numbers the backbone's layers across the whole process.
        backbone = {f"backbone/{i:03d}.{v.name}": v for i, v in enumerate(self.backbone.weights)}
        return backbone | self.captions.named_weights

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Like `CaptionModel.call`, but "features" are photos, uint8 (batch, size, size, 3). In
        training, "shown" (batch, 8) says how each photo is shown (`augmentation.draw`)."""
        photos = inputs["features"]
        photos = augmented(photos, inputs["shown"]) if training else network_input(photos)
        # The backbone never gets `training`, so its batch normalisations keep their statistics.
        maps = self.backbone(photos, training=False)
        _, rows, columns, channels = maps.shape
        features = ops.cast(ops.reshape(maps, (-1, rows * columns, channels)), "float32")
        return self.captions({**inputs, "features": features}, training=training)

    def compute_loss(self, *arguments: Any, **options: Any) -> Tensor:
        return self.captions.compute_loss(*arguments, **options)
