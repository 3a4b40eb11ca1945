"""What decoding needs of a model: implement this, and every strategy works with it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

Tensor = Any  # a tensor of whatever backend Keras runs on


class Sizes(Protocol):
    """The sizes that decoding asks a model for, see `config.ModelConfig`."""

    @property
    def vocabulary_size(self) -> int:
        """Words, the special tokens included."""
        ...

    @property
    def locations(self) -> int:
        """Cells of the photo that attention is divided among."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """One photo in, one word at a time out. `rows` is how many captions of a photo go together."""

    config: Sizes

    def encode(self, features: Tensor) -> Any:
        """Features (batch, locations, channels) to what `initial_state` and `step` read."""
        ...

    def initial_state(self, annotations: Any, captions: int) -> Tensor:
        """The state (batch, captions, units) before the first word."""
        ...

    def embedding(self, words: Tensor) -> Tensor:
        """Word ids (batch, rows) to vectors (batch, rows, dim)."""
        ...

    def step(
        self, annotations: Any, state: Tensor, embedded: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One word further: the new state (batch, rows, units), the context (batch, rows, dim)
        and the attention weights (batch, rows, locations), which sum to 1. `bias` (batch, 1,
        locations) is added to the attention scores before their softmax."""
        ...

    def project(
        self, state: Tensor, context: Tensor, embedded: Tensor, training: bool = False
    ) -> Tensor:
        """The logits (batch, rows, vocabulary) of the next word."""
        ...
