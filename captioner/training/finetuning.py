"""Training backbone and decoder together, from photos (Vinyals et al. 2016, arXiv 1609.06647).

It comes after the decoder has learnt to speak: before, its gradients would spoil the backbone.
The photos are cropped, mirrored and coloured differently in every epoch, so nothing can be cached.
They may be smaller here than later: what a crop shows is larger than it is in the whole photo,
which a smaller picture makes up for, at half the cost (Touvron et al. 2019, arXiv 1906.06423).
Later phases have a cache again, of the tuned backbone's features of photos of full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from captioner.config import TrainingConfig
from captioner.data.datasets import Record
from captioner.data.images import load_image, to_network_input
from captioner.data.views import names_a_side, random_crop
from captioner.model import backbones
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

TUNED_STATE, TUNED_BEST = "tuned_state.safetensors", "tuned_best.safetensors"
POLISHED_STATE, POLISHED_BEST = "polished_state.safetensors", "polished_best.safetensors"
COLOUR = (0.8, 1.2)  # factors on brightness, contrast and saturation


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
        context,
        partial(make_optimizer, schedule, kind=partial(TwoRates, slow=slow, ratio=ratio)),
        batches_of_photos,
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
    """Stands where a feature cache does, and gives the photos themselves: as they are, or with an
    `epoch`, cropped, mirrored and coloured in a way that depends on seed, epoch and photo alone."""

    def __init__(
        self, records: Sequence[Record], size: int, seed: int = 0, epoch: int | None = None
    ) -> None:
        self.numbers = {r.image_id: i for i, r in enumerate(records)}
        self.records = records
        self.size = size
        self.seed = seed
        self.epoch = epoch

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """float32 (images, size, size, 3) in -1..1."""
        return np.stack([self._photo(self.numbers[i]) for i in image_ids])

    def _photo(self, number: int) -> np.ndarray:
        record = self.records[number]
        photo = load_image(record.path)
        if self.epoch is not None:
            rng = np.random.default_rng([self.seed, self.epoch, number, 2])
            photo = augmented(photo, rng, may_mirror=not names_a_side(record))
        return to_network_input(photo, self.size)


def augmented(photo: Image.Image, rng: np.random.Generator, may_mirror: bool) -> Image.Image:
    """A part of the photo, perhaps mirrored, in slightly other colours."""
    photo = random_crop(photo, rng)
    if rng.random() < 0.5 and may_mirror:
        photo = ImageOps.mirror(photo)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        photo = enhance(photo).enhance(rng.uniform(*COLOUR))
    return photo


def _schedule(training: TrainingConfig, epochs: int) -> TrainingConfig:
    return replace(
        training, epochs=epochs, learning_rate=training.decoder_learning_rate, schedule="cosine"
    )


def batches_of_photos(context: RunContext, epoch: int | None, first: int = 0) -> CaptionBatches:
    """Batches as `RunContext.batches` gives them, of photos in place of features."""
    records = context.val if epoch is None else context.train
    training = context.config.training
    photos = Photos(records, training.finetune_image_size, training.seed, epoch)
    return replace(context, cache=photos, views=(), resident=None).batches(epoch, first)
