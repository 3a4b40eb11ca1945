"""Training backbone and decoder together, from photos (Vinyals et al. 2016, arXiv 1609.06647).

This follows the training of the decoder, because the gradients of an untrained decoder would spoil
the backbone. Photos are sent to the device as bytes; those that memory has room for are decoded
once. The device crops, mirrors and colours them differently in every epoch
(`model/augmentation.py`). The photos may be smaller here than later, at half the cost: things look
larger in a crop than in the whole photo, and a smaller picture makes up for this (Touvron et al.
2019, arXiv 1906.06423). Later phases use a cache again, of the tuned backbone's features of photos
of full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from captioner import machine
from captioner.config import CaptionerConfig, TrainingConfig
from captioner.data.datasets import Record
from captioner.data.images import load_image, to_square
from captioner.data.views import names_a_side
from captioner.model import backbones
from captioner.model.augmentation import draw
from captioner.model.backbone import copy_of, round_weights
from captioner.model.backend import copy_weights
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

# Of the device's free memory. Besides the weights, XLA plans 4 GB for a step of the recipe "gpu",
# on a CPU, and 0.5 GB for a step of the decoder alone. Photos that have no room are sent in time.
SHARE_OF_PHOTOS = 0.3
TUNED_STATE, TUNED_BEST = "tuned_state.safetensors", "tuned_best.safetensors"
POLISHED_STATE, POLISHED_BEST = "polished_state.safetensors", "polished_best.safetensors"


def fit_end_to_end(model: CaptionModel, backbone: keras.Model, context: RunContext) -> History:
    """Trains `model`, and `backbone` from the block `finetune_from` on.

    In the end, both have the weights of the epoch with the lowest validation loss. A run that was
    interrupted is continued.

    Raises:
        ImageError: A photo cannot be read any more.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when the state has been saved.
    """
    training = context.config.training
    student = student_of(backbone, context.config)
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
    trainer.context.release()
    copy_weights(backbone, student)
    round_weights(backbone)  # to the precision of a checkpoint
    return history


def polish(model: CaptionModel, context: RunContext) -> History:
    """Trains `model` alone on the features in `context.cache`, which are of the tuned backbone."""
    training = context.config.training
    epochs, patience = training.polish_epochs, training.patience
    trainer = CrossEntropyTrainer(
        model, context, partial(make_optimizer, _schedule(training, epochs))
    )
    return fit(trainer, Phase("polishing epoch", POLISHED_STATE, POLISHED_BEST, epochs, patience))


def student_of(backbone: keras.Model, config: CaptionerConfig) -> keras.Model:
    """A copy of `backbone` for fine-tuning: for photos of its size, and its blocks learn."""
    training = config.training
    student = copy_of(backbone, training.finetune_image_size, training.mixed_precision)
    entry = backbones.backbone(config.backbone.name)
    thaw(student, entry.first_layer(student, training.finetune_from))
    return student


def thaw(backbone: keras.Model, first: int) -> None:
    """Makes the kernels of the convolutions trainable from layer number `first` on. The layers
    before it, and all batch normalisations, stay frozen."""
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    backbone.trainable = True
    for i, layer in enumerate(backbone.layers):
        layer.trainable = i >= first and isinstance(layer, convolutions)


class TwoRates(keras.optimizers.AdamW):
    """AdamW whose learning rate for the variables in `slow` is multiplied by `ratio`. Their weight
    decay is not."""

    def __init__(
        self, *arguments: Any, slow: Sequence[keras.Variable], ratio: float, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        # Under TensorFlow, Keras passes the inner variables to `update_step`.
        self._slow = {id(inner) for v in slow for inner in (v, v.value)}
        self._ratio = ratio

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = self._ratio if id(variable) in self._slow else 1.0
        super().update_step(gradient, variable, learning_rate * factor)


class Photos:
    """Takes the place of a feature cache, and gives photos in place of features.

    Args:
        records: The photos.
        size: Their width and height in pixels.
        limit: Decoded photos are kept for the next epochs as long as they take less than this many
            bytes; by default `room_for_photos`.
    """

    def __init__(self, records: Sequence[Record], size: int, limit: int | None = None) -> None:
        self.paths = {r.image_id: r.path for r in records}
        self.size = size
        self.limit = room_for_photos() if limit is None else limit
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
    """Batches of photos in place of features.

    Training batches also have "shown", float32 (batch, 8): how each photo is cropped, mirrored and
    coloured (`augmentation.draw`). This depends only on the seed, the epoch and the photo.
    """

    # There are fewer lengths than without photos: for each, the whole network is compiled, which
    # takes half a minute, while further steps of the decoder take little of the time of a batch.
    stride = 24

    def __init__(self, records: Sequence[Record], *arguments: Any) -> None:
        super().__init__(records, *arguments)
        self.epoch = arguments[3]
        self.numbers = {r.image_id: number for number, r in enumerate(records)}
        shown = () if self.epoch is None else records
        self.sided = {r.image_id for r in shown if names_a_side(r)}

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


def room_for_photos() -> int:
    """The bytes of main memory that decoded photos may take: a quarter of what this process may
    use."""
    return machine.memory() // 4


def with_photos(context: RunContext) -> RunContext:
    """This context with photos in place of features, on the device if there is room for all."""
    records, size = [*context.train, *context.val], context.config.training.finetune_image_size
    # Photos that go to the device are not kept besides.
    passing = Photos(records, size, limit=0)
    shown = replace(context, cache=passing, views=(), device_copy=None)
    shown = shown.on_device(SHARE_OF_PHOTOS)
    return replace(shown, cache=Photos(records, size))


def _schedule(training: TrainingConfig, epochs: int) -> TrainingConfig:
    return replace(
        training, epochs=epochs, learning_rate=training.decoder_learning_rate, schedule="cosine"
    )
