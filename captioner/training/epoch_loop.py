"""The loop over epochs, the same for every phase of training.

After each epoch it keeps the state and the best weights on disk, and also where Ctrl-C cuts an
epoch. A run that is killed at any moment goes on from there by the same call, and takes the steps
that it would have taken.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

import numpy as np

from captioner.training.distribution import Distribution
from captioner.training.training_state import (
    History,
    Model,
    restore_state,
    save_state,
    save_weights,
)

logger = logging.getLogger(__name__)

# How far an epoch came: its "batches" so far, and sums over them. Empty before the first batch.
Progress = dict[str, float]
AfterEpoch = Callable[[str, Model, History], None]


@dataclass(frozen=True)
class Phase:
    """A stretch of training, with files of its own in the output folder."""

    name: str  # of an epoch, in the log
    state: str  # file of the variables and the history
    best: str  # file of the weights of the best epoch
    epochs: int
    patience: int | None = None  # epochs without a better score after which it stops


class Trainer(Protocol):
    """What a phase computes. `run_epochs` says when, and keeps it on disk."""

    judged_before: bool  # whether the weights before the first epoch are validated, and may win

    @property
    def model(self) -> Model:
        """Compiled, and with its optimizer's variables built."""

    @property
    def batches(self) -> int:
        """Of an epoch."""

    def begin(self) -> None:
        """What comes once, before the first step of all."""

    def train_epoch(self, epoch: int, progress: Progress, interrupted: Event) -> Progress:
        """Trains on what `progress` has left of an epoch, or on as much of it as comes before
        `interrupted` is set. Returns it brought up to date."""

    def summary(self, progress: Progress) -> dict[str, float]:
        """What the history keeps of a whole epoch's training."""

    def validate(self) -> dict[str, float]:
        """What the history keeps of the weights as they are."""

    def score(self, epoch: dict[str, float]) -> float:
        """Of an epoch in the history: the higher, the better."""


def run_epochs(
    trainer: Trainer,
    phase: Phase,
    output: Path,
    distribution: Distribution | None = None,
    after_epoch: AfterEpoch | None = None,
) -> History:
    """Trains from what `trainer` begins with, or goes on with what `output` holds, to the end of
    the phase. The weights of the best epoch are in `phase.best` then.

    `after_epoch` is called with the phase's name, the model and the history when an epoch is on
    disk; not among several processes, where one that does something alone keeps the others waiting.

    Raises KeyboardInterrupt after Ctrl-C or SIGTERM, once the state is on disk.
    """
    model, distribution = trainer.model, distribution or Distribution()
    state, best = output / phase.state, output / phase.best
    history = restore_state(state, model)
    progress = history.pop() if history and "batches" in history[-1] else {}
    before = int(trainer.judged_before)  # entries of the history that are not of an epoch
    if history or progress:
        done = len(history) - before, progress.get("batches", 0)
        logger.info("going on after %s %d, batch %d", phase.name, *done)
    else:
        trainer.begin()
        if trainer.judged_before:
            save_weights(best, model)
            history = [trainer.validate()]
            logger.info("before the first %s: %s", phase.name, figures(history[-1]))
    # Among several processes the one that stops after a step would leave the others waiting: there
    # Ctrl-C ends at once, and loses the epoch.
    with interrupt_set() if distribution.parts == 1 else nullcontext(Event()) as interrupted:
        for epoch in range(len(history) - before, phase.epochs):
            scores = [trainer.score(h) for h in history]
            if _patience_is_over(scores, phase.patience):
                logger.info("no better validation in %d epochs", phase.patience)
                break
            logger.info("%s %d of %d", phase.name, epoch + 1, phase.epochs)
            progress = trainer.train_epoch(epoch, progress, interrupted)
            if progress["batches"] < trainer.batches:
                save_state(state, model, [*history, progress])
                raise KeyboardInterrupt
            history.append(trainer.summary(progress) | trainer.validate())
            progress = {}
            logger.info("%s %d: %s", phase.name, epoch + 1, figures(history[-1]))
            if distribution.is_main:
                _keep(trainer, history, state, best)
            if after_epoch and distribution.parts == 1:
                after_epoch(phase.name, model, history)
            if interrupted.is_set():
                raise KeyboardInterrupt
    distribution.agree("their history", json.dumps(history))  # and the best weights are written
    return history


def figures(entry: Mapping[str, float]) -> str:
    """An entry of a history for people, with four digits."""
    return ", ".join(f"{name} {value:.4g}" for name, value in entry.items())


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


def _keep(trainer: Trainer, history: History, state: Path, best: Path) -> None:
    """Puts the epoch on disk."""
    scores = [trainer.score(h) for h in history]
    if scores[-1] >= max(scores):
        save_weights(best, trainer.model)
    # This comes last, because it says that the epoch is done: a run that is killed before does the
    # epoch again.
    save_state(state, trainer.model, history)


def _patience_is_over(scores: list[float], patience: int | None) -> bool:
    if not scores or patience is None:
        return False
    return len(scores) - 1 - int(np.argmax(scores)) >= patience
