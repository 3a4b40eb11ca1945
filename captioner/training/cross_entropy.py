"""Training with cross-entropy and teacher forcing, on features or, in fine-tuning, on photos."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event

import keras
import numpy as np

from captioner.config import CaptionerConfig, TrainingConfig
from captioner.data.datasets import Record
from captioner.data.mixture import by_dataset
from captioner.data.vocabulary import Vocabulary
from captioner.model.backend import compiles_whole_steps
from captioner.model.caption_model import CaptionModel
from captioner.model.feature_cache import FeatureCache
from captioner.training.batches import CaptionBatches
from captioner.training.device_steps import DeviceSteps
from captioner.training.distribution import Distribution
from captioner.training.epoch_loop import AfterEpoch, Phase, Progress, run_epochs
from captioner.training.resident import SHARE, DeviceCopy, ResidentFeatures
from captioner.training.training_state import History, Model, load_weights
from captioner.training.views import ViewsInTurn

STATE, BEST = "state.safetensors", "best.safetensors"


@dataclass(frozen=True)
class RunContext:
    """What every phase of a run needs."""

    config: CaptionerConfig
    vocabulary: Vocabulary
    cache: FeatureCache
    train: Sequence[Record]
    val: Sequence[Record]
    output: Path
    distribution: Distribution = field(default_factory=Distribution)
    views: Sequence[FeatureCache] = ()  # of training photos, mirrored or cropped
    device_copy: DeviceCopy | None = None  # the features on the device, if it may have them
    encoded: dict[str, list[list[int]]] = field(default_factory=dict)  # captions' ids by image
    after_epoch: AfterEpoch | None = None  # called after each epoch: see `run_epochs`

    def per_dataset(self) -> dict[str, RunContext]:
        """For each data set, this context with the validation photos of that data set alone."""
        return {name: replace(self, val=some) for name, some in by_dataset(self.val).items()}

    def features(self, epoch: int | None) -> FeatureCache | ViewsInTurn:
        """The features for a training epoch, or for validation if `epoch` is None."""
        if epoch is None or not self.views:
            return self.cache
        return ViewsInTurn((self.cache, *self.views), self.config.training.seed, epoch)

    def on_device(self, share: float = SHARE) -> RunContext:
        """This context, which copies all features to the device when they are first needed, if
        there is one device and they take at most `share` of its free memory."""
        if not has_loops(self.distribution):
            return self
        caches = (self.cache, *self.views)
        ids = list(dict.fromkeys(r.image_id for r in (*self.train, *self.val)))
        return replace(self, device_copy=DeviceCopy(ids, caches, share))

    @property
    def resident(self) -> ResidentFeatures | None:
        """The features on the device, if they are to be there and fit."""
        return self.device_copy.get() if self.device_copy else None

    def release(self) -> None:
        """Frees the memory of the device. Nothing may use the features there afterwards."""
        if self.device_copy:
            self.device_copy.release()

    def batches(
        self,
        epoch: int | None,
        first: int = 0,
        kind: Callable[..., CaptionBatches] = CaptionBatches,
    ) -> CaptionBatches:
        """The training batches of an epoch from number `first` on. None: the validation batches."""
        records = self.val if epoch is None else self.train
        features, resident = self.features(epoch), self.resident
        return kind(
            records,
            resident.seen_by(features) if resident else features,
            self.vocabulary,
            self.config.training,
            epoch,
            first,
            self.distribution.part,
            self.distribution.parts,
            self.encoded,
        )


class CrossEntropyTrainer:
    """Trains `model` with teacher forcing. The best epoch has the lowest validation loss."""

    judged_before = False

    def __init__(
        self,
        model: Model,
        context: RunContext,
        optimizer: Callable[[int], keras.optimizers.Optimizer],  # from the steps per epoch
        batches: Callable[..., CaptionBatches] = RunContext.batches,  # or batches of photos
        begin: Callable[[], object] = lambda: None,
    ) -> None:
        self.model = model
        self.context = context
        self.batches_of = batches
        self._begin = begin
        # The features are not needed to count the batches.
        self.batches = len(batches(replace(context, device_copy=None), epoch=0))
        model.compile(optimizer=optimizer(self.batches), jit_compile=compiles_whole_steps())
        model.optimizer.build(model.trainable_variables)
        self.on_device = DeviceSteps(model) if has_loops(context.distribution) else None

    def begin(self) -> None:
        """Measures the features in the first phase; does nothing in the others."""
        self._begin()

    def prepare(self) -> None:
        """Copies the features to the device, if they are to be there."""
        _ = self.context.resident

    def train_epoch(self, epoch: int, progress: Progress, interrupted: Event) -> Progress:
        """See `epoch_loop.Trainer`. `progress` has the sum of the loss and the number of words."""
        before = int(progress.get("batches", 0))
        batches = self.batches_of(self.context, epoch, before)
        if self.on_device:
            done = self.on_device.train(batches, interrupted.is_set)
        else:
            done = self._train_by_keras(batches, interrupted)
        return {
            "batches": before + done,
            "loss": progress.get("loss", 0.0) + float(self.model.nll.total),
            "words": progress.get("words", 0.0) + float(self.model.nll.count),
        }

    def _train_by_keras(self, batches: CaptionBatches, interrupted: Event) -> int:
        stop = _StopAfterStep(interrupted, batches.may_stop_after)
        self.model.stop_training = False
        verbose = 1 if sys.stdout.isatty() else 0  # no progress bar in log files
        self.model.fit(batches, epochs=1, shuffle=False, verbose=verbose, callbacks=[stop])
        return stop.done

    def summary(self, progress: Progress) -> dict[str, float]:
        """The training loss per word."""
        return {"nll": progress["loss"] / progress["words"]}

    def validate(self) -> dict[str, float]:
        """The loss per word on the validation photos: the mean over the data sets, and that of
        each. The best epoch is chosen by the mean, so that no data set decides alone."""
        losses = {}
        for name, part in self.context.per_dataset().items():
            batches = self.batches_of(part, None)
            if self.on_device:
                losses[name] = self.on_device.evaluate(batches)
            else:
                found = self.model.evaluate(batches, verbose=0, return_dict=True)
                losses[name] = float(found["nll"])
        each = {f"val_nll/{name}": loss for name, loss in losses.items()}
        return {"val_nll": float(np.mean([*losses.values()]))} | (each if len(each) > 1 else {})

    def score(self, epoch: dict[str, float]) -> float:
        """The score is higher when the validation loss is lower."""
        return -epoch["val_nll"]


def fit_cross_entropy(model: CaptionModel, context: RunContext) -> History:
    """Trains on the features of the cache, which is the first phase. See `fit`."""
    training = context.config.training
    trainer = CrossEntropyTrainer(
        model,
        context,
        partial(make_optimizer, training),
        begin=lambda: model.encoder.standardize(*_mean_and_std(context)),
    )
    return fit(trainer, Phase("epoch", STATE, BEST, training.epochs, training.patience))


def fit(trainer: CrossEntropyTrainer, phase: Phase) -> History:
    """Trains the epochs of a phase that are not in the output folder yet.

    In the end, the model has the weights of the best epoch.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when the state has been saved.
    """
    context = trainer.context
    history = run_epochs(trainer, phase, context.output, context.distribution, context.after_epoch)
    load_weights(context.output / phase.best, trainer.model, context.output / phase.state)
    return history


def has_loops(distribution: Distribution) -> bool:
    """Whether training uses `DeviceSteps`, which it does under JAX on one device."""
    return compiles_whole_steps() and distribution.engine is None


def make_optimizer(
    training: TrainingConfig,
    steps_per_epoch: int,
    kind: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.AdamW,
) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101). Its learning rate is constant, or it is
    warmed up and then follows a cosine."""
    total = training.epochs * steps_per_epoch
    warmup = min(training.warmup_steps, total // 4)
    schedule = training.learning_rate
    if training.schedule == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            warmup_target=training.learning_rate,
            warmup_steps=warmup,
            decay_steps=max(1, total - warmup),
            alpha=0.02,
        )
    optimizer = kind(
        schedule, weight_decay=training.weight_decay, global_clipnorm=training.clip_norm
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


class _StopAfterStep(keras.callbacks.Callback):
    """Ends an epoch once `wanted` is set, after the next batch for which `possible` is true."""

    def __init__(self, wanted: Event, possible: Callable[[int], bool]) -> None:
        super().__init__()
        self.wanted = wanted
        self.possible = possible
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.done = batch + 1
        if self.wanted.is_set() and self.possible(self.done):
            self.model.stop_training = True


def _mean_and_std(context: RunContext) -> tuple[float, float]:
    """Mean and standard deviation of the features, from up to 512 training images."""
    sample = context.cache.gather([r.image_id for r in context.train[:512]]).astype(np.float32)
    return float(sample.mean()), float(sample.std())
