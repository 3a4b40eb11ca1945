"""Training backbone and decoder together, from photos (Vinyals et al. 2016, arXiv 1609.06647).

It comes after the decoder has learnt to speak: before, its gradients would spoil the backbone.
Photos are decoded once, and reach the device as bytes. The device crops, mirrors and colours them,
differently in every epoch (`model/augmentation.py`). They may be smaller here than later: what a
crop shows is larger than it is in the whole photo, which a smaller picture makes up for, at half
the cost (Touvron et al. 2019, arXiv 1906.06423). Later phases have a cache again, of the tuned
backbone's features of photos of full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from captioner.config import TrainingConfig
from captioner.data.datasets import Record
from captioner.data.images import load_image, to_square
from captioner.data.views import names_a_side
from captioner.model import backbones
from captioner.model.augmentation import draw
from captioner.model.backbone import copy_of, round_weights
from captioner.model.backend import copy_weights, memory_of_machine
from captioner.model.caption_model import CaptionModel, EndToEndModel
from captioner.training.batches import CaptionBatches
from captioner.training.cross_entropy import (
    CrossEntropyTrainer,
    RunContext,
    fit,
    make_optimizer,
)
from captioner.training.epoch_loop import Phase
from captioner.training.training_state import History

TUNED_STATE, TUNED_BEST = "tuned_state.safetensors", "tuned_best.safetensors"
POLISHED_STATE, POLISHED_BEST = "polished_state.safetensors", "polished_best.safetensors"


def fit_end_to_end(model: CaptionModel, backbone: keras.Model, context: RunContext) -> History:
    """Trains `model` and, from the block `finetune_from` on, `backbone`; leaves the weights of the
    epoch with the lowest validation loss in both. Resumes and raises as `run_epochs`; `ImageError`
    for a photo that cannot be read any more."""
    training = context.config.training
    student = copy_of(backbone, training.finetune_image_size, training.mixed_precision)
    entry = backbones.backbone(context.config.backbone.name)
    thaw(student, entry.first_layer(student, training.finetune_from))
    schedule = _schedule(training, training.finetune_epochs)
    slow = student.trainable_variables
    ratio = training.finetune_learning_rate / training.decoder_learning_rate
    trainer = CrossEntropyTrainer(
        EndToEndModel(student, model),
        with_photos(context),
        partial(make_optimizer, schedule, kind=partial(TwoRates, slow=slow, ratio=ratio)),
        partial(RunContext.batches, kind=PhotoBatches),
    )
    epochs, patience = training.finetune_epochs, training.patience
    history = fit(trainer, Phase("fine-tuning epoch", TUNED_STATE, TUNED_BEST, epochs, patience))
    copy_weights(backbone, student)
    round_weights(backbone)  # as a checkpoint carries them
    return history


def polish(model: CaptionModel, context: RunContext) -> History:
    """Trains `model` alone, on the features that the tuned backbone has in `context.cache`."""
    training = context.config.training
    epochs, patience = training.polish_epochs, training.patience
    trainer = CrossEntropyTrainer(
        model, context, partial(make_optimizer, _schedule(training, epochs))
    )
    return fit(trainer, Phase("polishing epoch", POLISHED_STATE, POLISHED_BEST, epochs, patience))


def thaw(backbone: keras.Model, first: int) -> None:
    """Makes the kernels of the convolutions trainable from layer number `first` on; all that comes
    before, and every batch normalisation, stays as it is."""
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    backbone.trainable = True
    for i, layer in enumerate(backbone.layers):
        layer.trainable = i >= first and isinstance(layer, convolutions)


class TwoRates(keras.optimizers.AdamW):
    """AdamW with a learning rate of `ratio` times the others' for the variables in `slow`."""

    def __init__(
        self, *arguments: Any, slow: Sequence[keras.Variable], ratio: float, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        # Under TensorFlow, Keras hands on what is inside its variables.
        self._slow = {id(inner) for v in slow for inner in (v, v.value)}
        self._ratio = ratio

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = self._ratio if id(variable) in self._slow else 1.0
        super().update_step(gradient, variable, learning_rate * factor)


class Photos:
    """Stands where a feature cache does, and gives the photos themselves, as they are.

    Decoded photos stay in memory for the next epochs, as long as they take less than `limit` bytes;
    by default a quarter of the machine's.
    """

    def __init__(self, records: Sequence[Record], size: int, limit: int | None = None) -> None:
        self.paths = {r.image_id: r.path for r in records}
        self.size = size
        self.limit = memory_of_machine() // 4 if limit is None else limit
        self.kept: dict[str, np.ndarray] = {}

    def __contains__(self, image_id: str) -> bool:
        return image_id in self.paths

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """uint8 (images, size, size, 3). Several threads may call it."""
        return np.stack([self._photo(i) for i in image_ids])

    def _photo(self, image_id: str) -> np.ndarray:
        photo = self.kept.get(image_id)
        if photo is None:
            photo = to_square(load_image(self.paths[image_id]), self.size)
            if (len(self.kept) + 1) * photo.nbytes <= self.limit:
                self.kept[image_id] = photo
        return photo


class PhotoBatches(CaptionBatches):
    """Batches of photos in place of features. Those of an epoch also have "shown", float32
    (batch, 8): how each photo is cropped, mirrored and coloured, which depends on seed, epoch and
    photo alone (`augmentation.draw`)."""

    def __init__(self, records: Sequence[Record], *arguments: Any) -> None:
        super().__init__(records, *arguments)
        self.epoch = arguments[3]
        self.numbers = {r.image_id: number for number, r in enumerate(records)}
        self.sided = {r.image_id for r in records if names_a_side(r)}

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        inputs, targets = super().__getitem__(index)
        if self.epoch is None:
            return inputs, targets
        shown = np.zeros((self.size, 8), np.float32)
        for row, image in zip(shown, self.order[index][0][self.mine], strict=False):
            row[:] = self._draw(self.ids[image])
        return inputs | {"shown": shown}, targets

    def _draw(self, image_id: str) -> np.ndarray:
        name = [self.training.seed, self.epoch, self.numbers[image_id], 2]
        return draw(np.random.default_rng(name), may_mirror=image_id not in self.sided)


def with_photos(context: RunContext) -> RunContext:
    """The same, with photos in place of features: on the device, if there is room for all."""
    size = context.config.training.finetune_image_size
    photos = Photos([*context.train, *context.val], size)
    return replace(context, cache=photos, views=(), resident=None).on_device()


def _schedule(training: TrainingConfig, epochs: int) -> TrainingConfig:
    return replace(
        training, epochs=epochs, learning_rate=training.decoder_learning_rate, schedule="cosine"
    )
