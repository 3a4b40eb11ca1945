"""Batches of images with all their captions, for training and validation."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from captioner.config import TrainingConfig
from captioner.datasets import Record
from captioner.features import FeatureCache
from captioner.vocabulary import END, PAD, START, Vocabulary

# The images of a batch and, for each, which of its captions.
Batch = tuple[list[int], list[list[int]]]
WINDOW = 20  # batches; within a window, images of like caption length are put together


class CaptionBatches(keras.utils.PyDataset):
    """Batches ({"features", "words"}, targets):

    features (batch, locations, channels) float16; words and targets (batch, captions, steps) int32,
    the targets one step ahead of the words. Padding only reaches the longest caption of the batch.
    The captions of an image stand in one row, so that they share its encoding.

    With `epoch` given, images come in an order that depends on seed and epoch alone, from batch
    number `first` on; without, in the order of their longest captions, for validation.

    With `parts` processes, each gives its `part` of the rows of the same batches.
    """

    def __init__(
        self,
        records: Sequence[Record],
        cache: FeatureCache,
        vocabulary: Vocabulary,
        training: TrainingConfig,
        epoch: int | None = None,
        first: int = 0,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        super().__init__(workers=1, max_queue_size=4)
        self.cache = cache
        self.training = training
        self.size = training.batch_size // parts
        self.mine = slice(part * self.size, (part + 1) * self.size)
        encoded = {r.image_id: _encode(r, vocabulary, training.max_words) for r in records}
        self.ids = [image_id for image_id, captions in encoded.items() if captions]
        self.captions = [encoded[image_id] for image_id in self.ids]
        self.rng = None if epoch is None else np.random.default_rng([training.seed, epoch])
        self.order = self._order()[first:]

    @property
    def num_batches(self) -> int:
        return len(self.order)

    def __len__(self) -> int:
        return self.num_batches

    def may_stop_after(self, done: int) -> bool:
        """Whether the batches after the first `done` can start an epoch: see `_order`."""
        rest = self.order[done : done + 2]
        return len(rest) < 2 or self._length(rest[0]) != self._length(rest[1])

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rows, chosen = self.order[index]
        size, count = self.size, self.training.captions_per_image
        longest = self._length((rows, chosen))  # of all parts, which have the same shape
        if keras.backend.backend() == "jax":
            longest = -(-longest // 4) * 4  # every new shape is compiled: have few
        # The last batch is filled up with images that have no words, and so no loss: a part of it
        # may have no others.
        some = rows[:1]
        rows, chosen = rows[self.mine], chosen[self.mine]
        both = np.full((size, count, longest + 1), PAD, np.int32)
        for i, (row, few) in enumerate(zip(rows, chosen, strict=True)):
            for j, c in enumerate(few):
                ids = self.captions[row][c]
                both[i, j, 0] = START
                both[i, j, 1 : len(ids) + 1] = ids
        words, targets = both[:, :, :-1], both[:, :, 1:]
        features = self.cache.gather([self.ids[row] for row in rows or some])[: len(rows)]
        # (batch, locations, channels), or photos (batch, size, size, 3)
        features = np.pad(features, [(0, size - len(rows))] + [(0, 0)] * (features.ndim - 1))
        return {"features": features, "words": words}, targets

    def _length(self, batch: Batch) -> int:
        """Words of the longest caption, the end included."""
        return max(len(self.captions[row][c]) for row, few in zip(*batch, strict=True) for c in few)

    def _order(self) -> list[Batch]:
        """The batches of the epoch."""
        count = self.training.captions_per_image
        images = np.arange(len(self.ids))
        if self.rng is not None:
            self.rng.shuffle(images)
        chosen = {int(i): self._choose(len(self.captions[i]), count) for i in images}

        def longest(image: int) -> int:
            return max(len(self.captions[image][c]) for c in chosen[image])

        size = self.training.batch_size
        window = size * WINDOW if self.rng is not None else len(images)
        batches: list[list[int]] = []
        for start in range(0, len(images), window):
            near = sorted((int(i) for i in images[start : start + window]), key=longest)
            batches += [near[i : i + size] for i in range(0, len(near), size)]
        if self.rng is not None:
            self.rng.shuffle(batches)
        order = [(batch, [chosen[i] for i in batch]) for batch in batches]
        # Keras takes a dimension that is equal in the first two batches for a constant.
        lengths = [self._length(batch) for batch in order]
        other = next((i for i, n in enumerate(lengths) if n != lengths[0]), None)
        if other is not None:
            order.insert(1, order.pop(other))
        return order

    def _choose(self, available: int, count: int) -> list[int]:
        if self.rng is None or available <= count:
            return list(range(min(available, count)))
        return sorted(self.rng.choice(available, count, replace=False).tolist())


def _encode(record: Record, vocabulary: Vocabulary, max_words: int) -> list[list[int]]:
    """Each caption's ids and, unless it had to be cut, the end; captions without words are left
    out."""
    encoded = []
    for caption in record.captions:
        ids = vocabulary.encode(caption)
        if ids:
            encoded.append([*ids, END] if len(ids) <= max_words else ids[:max_words])
    return encoded
