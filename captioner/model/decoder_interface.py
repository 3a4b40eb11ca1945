"""The interface of a model to decoding. Every strategy works with a model that implements it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

Tensor = Any  # a tensor of whatever backend Keras runs on


class Sizes(Protocol):
    """The sizes of a model that decoding reads, see `config.ModelConfig`."""

    @property
    def vocabulary_size(self) -> int:
        """The number of words, including the special tokens."""
        ...

    @property
    def locations(self) -> int:
        """The number of cells of the photo that have an attention weight."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """Computes the next word of captions. `rows` is how many captions a photo has at once."""

    config: Sizes

    def encode(self, features: Tensor) -> Any:
        """Turns features (batch, locations, channels) into what `initial_state` and `step` read."""
        ...

    def initial_state(self, annotations: Any, captions: int) -> Tensor:
        """The state (batch, captions, units) before the first word."""
        ...

    def embedding(self, words: Tensor) -> Tensor:
        """Turns word ids (batch, rows) into vectors (batch, rows, dim)."""
        ...

    def step(
        self, annotations: Any, state: Tensor, embedded: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Moves on by one word.

        Args:
            annotations: What `encode` returns.
            state: (batch, rows, units).
            embedded: The previous word, (batch, rows, dim).
            bias: (batch, 1, locations), added to the attention scores before their softmax.

        Returns:
            The new state (batch, rows, units), the context (batch, rows, dim) and the attention
            weights (batch, rows, locations), which sum to 1.
        """
        ...

    def project(
        self, state: Tensor, context: Tensor, embedded: Tensor, training: bool = False
    ) -> Tensor:
        """The logits (batch, rows, vocabulary) of the next word, from a step's input and output."""
        ...
