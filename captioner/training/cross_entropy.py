"""Epochs of cross-entropy with teacher forcing, saved after each and at every Ctrl-C."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from captioner.training.resident import ResidentFeatures, make_resident
from captioner.training.training_state import (
    History,
    Model,
    load_weights,
    restore_state,
    save_state,
    save_weights,
)
from captioner.training.views import ViewsInTurn

logger = logging.getLogger(__name__)

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
    resident: ResidentFeatures | None = None  # where they fit on the device
    encoded: dict[str, list[list[int]]] = field(default_factory=dict)  # captions, by image

    def per_dataset(self) -> dict[str, RunContext]:
        """The same, with the validation photos of one data set each."""
        return {name: replace(self, val=some) for name, some in by_dataset(self.val).items()}

    def features(self, epoch: int | None) -> FeatureCache | ViewsInTurn:
        """What a training epoch, or validation, reads its features from."""
        if epoch is None or not self.views:
            return self.cache
        return ViewsInTurn((self.cache, *self.views), self.config.training.seed, epoch)

    def on_device(self) -> RunContext:
        """The same, with all features on the device if it is one and has room for them."""
        if not has_loops(self.distribution):
            return self
        ids = list(dict.fromkeys(r.image_id for r in (*self.train, *self.val)))
        return replace(self, resident=make_resident(ids, (self.cache, *self.views)))

    def batches(self, epoch: int | None, first: int = 0) -> CaptionBatches:
        """Training batches of an epoch from number `first` on, or those of validation."""
        records = self.val if epoch is None else self.train
        features = self.features(epoch)
        return CaptionBatches(
            records,
            self.resident.seen_by(features) if self.resident else features,
            self.vocabulary,
            self.config.training,
            epoch,
            first,
            self.distribution.part,
            self.distribution.parts,
            self.encoded,
        )


@dataclass(frozen=True)
class Phase:
    """A stretch of training with cross-entropy, with files of its own in the output folder."""

    name: str  # of an epoch, in the log
    state: str
    best: str
    epochs: int
    optimizer: Callable[[int], keras.optimizers.Optimizer]  # for so many steps an epoch
    batches: Callable[..., CaptionBatches] = RunContext.batches  # or of photos
    begin: Callable[[], object] = lambda: None  # before the first step of all


def fit_cross_entropy(model: CaptionModel, context: RunContext) -> History:
    """The first phase, on features of the cache: see `fit`."""
    training = context.config.training
    phase = Phase(
        "epoch",
        STATE,
        BEST,
        training.epochs,
        partial(make_optimizer, training),
        begin=lambda: model.encoder.standardize(*_mean_and_std(context)),
    )
    return fit(model, context, phase)


def fit(model: Model, context: RunContext, phase: Phase) -> History:
    """Trains `model`, or goes on with what `context.output` holds; leaves the weights of the epoch
    with the lowest validation loss in it.

    Raises KeyboardInterrupt after Ctrl-C or SIGTERM, once the state is on disk.
    """
    output, distribution = context.output, context.distribution
    steps = len(phase.batches(context, epoch=0))
    model.compile(optimizer=phase.optimizer(steps), jit_compile=compiles_whole_steps())
    model.optimizer.build(model.trainable_variables)
    steps_on_device = DeviceSteps(model) if has_loops(distribution) else None
    history = restore_state(output / phase.state, model)
    if not history:
        phase.begin()
    # How far an epoch came that Ctrl-C has cut: its batches so far, their summed loss and words.
    begun = history.pop() if history and "batches" in history[-1] else {}
    if history or begun:
        logger.info("going on after epoch %d, batch %d", len(history), _done(begun))
    # Among several processes the one that stops after a step would leave the others waiting: there
    # Ctrl-C ends at once, and loses the epoch.
    with interrupt_set() if distribution.parts == 1 else nullcontext(Event()) as interrupted:
        patience = context.config.training.patience
        for epoch in range(len(history), phase.epochs):
            if _patience_is_over(history, patience):
                logger.info("no better validation loss in %d epochs", patience)
                break
            logger.info("%s %d of %d", phase.name, epoch + 1, phase.epochs)
            batches = phase.batches(context, epoch, _done(begun))
            begun = _fit_epoch(model, steps_on_device, batches, begun, interrupted)
            if _done(begun) < steps:
                save_state(output / phase.state, model, [*history, begun])
                raise KeyboardInterrupt
            losses = _validate(model, steps_on_device, phase, context)
            val_nll = losses["val_nll"]
            history.append({"nll": begun["loss"] / begun["words"]} | losses)
            begun = {}
            logger.info("%s %d: %s", phase.name, epoch + 1, json.dumps(history[-1]))
            if distribution.is_main and val_nll <= min(h["val_nll"] for h in history):
                save_weights(output / phase.best, model)
            # This comes last, because it says that the epoch is done: a run that is killed before
            # does the epoch again.
            if distribution.is_main:
                save_state(output / phase.state, model, history)
            if interrupted.is_set():
                raise KeyboardInterrupt
    distribution.agree("their history", json.dumps(history))  # and the best weights are written
    load_weights(output / phase.best, model, output / phase.state)
    return history


def has_loops(distribution: Distribution) -> bool:
    """Whether training goes by `DeviceSteps`: under JAX, on one device."""
    return compiles_whole_steps() and distribution.engine is None


def _validate(
    model: Model, on_device: DeviceSteps | None, phase: Phase, context: RunContext
) -> dict[str, float]:
    """Loss per word on the validation photos: the mean over the data sets, so that the largest does
    not decide alone which epoch is the best, and that of each."""
    losses = {}
    for name, part in context.per_dataset().items():
        batches = phase.batches(part, None)
        if on_device:
            losses[name] = on_device.evaluate(batches)
        else:
            losses[name] = float(model.evaluate(batches, verbose=0, return_dict=True)["nll"])
    each = {f"val_nll/{name}": loss for name, loss in losses.items()}
    return {"val_nll": float(np.mean([*losses.values()]))} | (each if len(each) > 1 else {})


def make_optimizer(
    training: TrainingConfig,
    steps_per_epoch: int,
    kind: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.AdamW,
) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): warmed up, then along a cosine, or with
    a constant learning rate."""
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
    """Ends an epoch early once `wanted` is set, after a batch at which `possible` says so."""

    def __init__(self, wanted: Event, possible: Callable[[int], bool]) -> None:
        super().__init__()
        self.wanted = wanted
        self.possible = possible
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.done = batch + 1
        if self.wanted.is_set() and self.possible(self.done):
            self.model.stop_training = True


def _fit_epoch(
    model: Model,
    on_device: DeviceSteps | None,
    batches: CaptionBatches,
    begun: dict[str, float],
    interrupted: Event,
) -> dict[str, float]:
    """Trains on the `batches` that `begun` has left of an epoch; returns it brought up to date."""
    if on_device:
        done = on_device.train(batches, interrupted.is_set)
    else:
        stop = _StopAfterStep(interrupted, batches.may_stop_after)
        model.stop_training = False
        verbose = 1 if sys.stdout.isatty() else 0  # a bar for people; log files get our own lines
        model.fit(batches, epochs=1, shuffle=False, verbose=verbose, callbacks=[stop])
        done = stop.done
    return {
        "batches": _done(begun) + done,
        "loss": begun.get("loss", 0.0) + float(model.nll.total),
        "words": begun.get("words", 0.0) + float(model.nll.count),
    }


def _done(begun: dict[str, float]) -> int:
    return int(begun.get("batches", 0))


@contextmanager
def interrupt_set() -> Iterator[Event]:
    """An event that Ctrl-C or SIGTERM sets; the second one interrupts at once, as usual."""
    interrupted = Event()

    def note(number: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        print("\nstopping after this step ...", file=sys.stderr)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, note) for s in signals]
    try:
        yield interrupted
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)


def _mean_and_std(context: RunContext) -> tuple[float, float]:
    """Mean and standard deviation of the features, from up to 512 training images."""
    sample = context.cache.gather([r.image_id for r in context.train[:512]]).astype(np.float32)
    return float(sample.mean()), float(sample.std())


def _patience_is_over(history: History, patience: int) -> bool:
    losses = [h["val_nll"] for h in history]
    return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience
