"""Batches of images with all their captions, for training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import keras
import numpy as np

from captioner.config import TrainingConfig
from captioner.data.datasets import Record
from captioner.data.vocabulary import END, PAD, START, Vocabulary
from captioner.model.backend import wants_few_shapes
from captioner.model.feature_cache import FeatureCache
from captioner.training.resident import ResidentFeatures, RowNumbers
from captioner.training.views import ViewsInTurn

Rows = list[list[int]]  # for each row of an image, the numbers of the captions in it
Batch = tuple[list[int], list[Rows]]  # the numbers of the images, and the rows of each
WINDOW = 20  # batches: within a window, images whose captions have similar lengths are put together


class CaptionBatches(keras.utils.PyDataset):
    """Batches ({"features", "words"}, targets) of images with all their captions.

    The features are float16 (batch, locations, channels), or what else `cache.gather` returns. The
    words and targets are int32 (batch, rows, steps); the targets are one step ahead of the words.
    Where every shape has to be compiled, lengths are multiples of `stride` words.

    The captions of an image share its encoding. They are packed into fewer rows than there are
    captions: several captions follow each other in a row, each with its <start>. Rows are padded to
    the longest row of the batch.

    Args:
        records: The photos and their captions.
        cache: Where the features are read from.
        vocabulary: Turns words into ids.
        training: The batch size, the number of captions per image, and so on.
        epoch: The order of the images depends only on the seed and this number. None is for
            validation: the order is that of the images' longest rows.
        first: The number of the batch to begin with.
        part: Which part of each batch this process takes, if there are several.
        parts: The number of processes.
        encoded: Keeps the captions' ids by image from one epoch to the next.
    """

    # With multiples of 8, Flickr8k's batches of 32 images have four lengths, and 15 percent more
    # steps. With multiples of 4 there would be seven lengths, and each takes some ten seconds to
    # compile.
    stride = 8

    def __init__(
        self,
        records: Sequence[Record],
        cache: FeatureCache | ViewsInTurn | RowNumbers,
        vocabulary: Vocabulary,
        training: TrainingConfig,
        epoch: int | None = None,
        first: int = 0,
        part: int = 0,
        parts: int = 1,
        encoded: dict[str, list[list[int]]] | None = None,
    ) -> None:
        # With one worker, Keras would read ahead through tf.data. At the end of each epoch it would
        # wait for a thread that tunes tf.data and sleeps for up to a minute (TensorFlow 2.21).
        super().__init__(workers=2, max_queue_size=4)
        self.cache = cache
        self.training = training
        self.size = training.batch_size // parts
        self.rows = rows_for(training.captions_per_image)
        self.mine = slice(part * self.size, (part + 1) * self.size)
        known = {} if encoded is None else encoded
        for record in records:
            if record.image_id not in known:
                known[record.image_id] = _encode(record, vocabulary, training.max_words)
        self.ids = [i for i in dict.fromkeys(r.image_id for r in records) if known[i]]
        self.captions = [known[image_id] for image_id in self.ids]
        self.rng = None if epoch is None else np.random.default_rng([training.seed, epoch])
        self.first = first

    @cached_property
    def order(self) -> list[Batch]:
        """The batches from number `first` on, which are made when they are first needed."""
        return self._order()[self.first :]

    @property
    def resident(self) -> ResidentFeatures | None:
        """The features on the device, if batches hold row numbers in their place."""
        return self.cache.resident if isinstance(self.cache, RowNumbers) else None

    @property
    def num_batches(self) -> int:
        return max(0, -(-len(self.ids) // self.training.batch_size) - self.first)

    def __len__(self) -> int:
        return self.num_batches

    def steps_of(self, index: int) -> int:
        """The length that the rows of a batch are padded to."""
        longest = self._length(self.order[index])  # counts all parts, so that all have one shape
        return -(-longest // self.stride) * self.stride if wants_few_shapes() else longest

    def may_stop_after(self, done: int) -> bool:
        """Whether the batches after the first `done` can start an epoch: see `_order`.

        A single batch cannot: Keras would take all its dimensions as constant, and TensorFlow then
        computes other last bits.
        """
        rest = self.order[done : done + 2]
        lengths = {self._length(batch) for batch in rest}
        return not rest or len(lengths) == 2

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        images, packed = self.order[index]
        longest = self.steps_of(index)
        # The last batch is filled up with images that have no words and therefore no loss. One part
        # of it may have no other images.
        some = images[:1]
        images, packed = images[self.mine], packed[self.mine]
        words, targets = np.full((2, self.size, self.rows, longest), PAD, np.int32)
        for i, (image, rows) in enumerate(zip(images, packed, strict=True)):
            for j, row in enumerate(rows):
                captions = [self.captions[image][c] for c in row]
                before = [i for ids in captions for i in (START, *ids[:-1])]
                words[i, j, : len(before)] = before
                targets[i, j, : len(before)] = [i for ids in captions for i in ids]
        features = self.cache.gather([self.ids[image] for image in images or some])[: len(images)]
        # (batch, locations, channels), or photos (batch, size, size, 3)
        missing = self.size - len(images)
        features = np.pad(features, [(0, missing)] + [(0, 0)] * (features.ndim - 1))
        return {"features": features, "words": words}, targets

    def _length(self, batch: Batch) -> int:
        """Words of the longest row, the ends included."""
        return max(
            sum(len(self.captions[image][c]) for c in row)
            for image, rows in zip(*batch, strict=True)
            for row in rows
        )

    def _order(self) -> list[Batch]:
        """The batches of the epoch."""
        images = np.arange(len(self.ids))
        if self.rng is not None:
            self.rng.shuffle(images)
        packed = {int(i): self._pack(int(i)) for i in images}

        def longest(image: int) -> int:
            return self._length(([image], [packed[image]]))

        size = self.training.batch_size
        window = size * WINDOW if self.rng is not None else len(images)
        batches: list[list[int]] = []
        for start in range(0, len(images), window):
            near = sorted((int(i) for i in images[start : start + window]), key=longest)
            batches += [near[i : i + size] for i in range(0, len(near), size)]
        if self.rng is not None:
            self.rng.shuffle(batches)
        order = [(batch, [packed[i] for i in batch]) for batch in batches]
        # If a dimension is equal in the first two batches, Keras takes it for a constant.
        lengths = [self._length(batch) for batch in order]
        other = next((i for i, n in enumerate(lengths) if n != lengths[0]), None)
        if other is not None:
            order.insert(1, order.pop(other))
        if wants_few_shapes() and self.rng is not None:
            # Batches of one shape follow each other, so that one call can take several of them.
            order = [
                batch
                for start in range(0, len(order), WINDOW)
                for batch in sorted(
                    order[start : start + WINDOW], key=lambda b: -(-self._length(b) // self.stride)
                )
            ]
        return order

    def _pack(self, image: int) -> Rows:
        """The captions in each row of the image. They are drawn again in each epoch."""
        available, count = len(self.captions[image]), self.training.captions_per_image
        chosen = list(range(min(available, count)))
        if self.rng is not None and available > count:
            chosen = sorted(self.rng.choice(available, count, replace=False).tolist())
        lengths = [len(self.captions[image][c]) for c in chosen]
        return [[chosen[i] for i in row] for row in pack(lengths, self.rows)]


def rows_for(captions: int) -> int:
    """The number of rows that the captions of an image are packed into.

    With one row per caption, three tenths of Flickr8k's batches would be padding. With fewer and
    longer rows, the matrix products of a step would be too small to be fast.
    """
    return max(1, round(0.6 * captions))


def pack(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Distributes captions to rows of nearly the same length.

    The longest captions come first, and each goes into the row that is the shortest so far (Graham
    1969, doi 10.1137/0117039).

    Args:
        lengths: The lengths of the captions.
        rows: The number of rows.

    Returns:
        For each row, the numbers of its captions.
    """
    packed: list[list[int]] = [[] for _ in range(rows)]
    totals = [0] * rows
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        shortest = totals.index(min(totals))
        packed[shortest].append(i)
        totals[shortest] += lengths[i]
    return packed


def _encode(record: Record, vocabulary: Vocabulary, max_words: int) -> list[list[int]]:
    """The ids of each caption, with END unless the caption had to be cut. Captions without words
    are left out."""
    encoded = []
    for caption in record.captions:
        ids = vocabulary.encode(caption)
        if ids:
            encoded.append([*ids, END] if len(ids) <= max_words else ids[:max_words])
    return encoded
