"""The loop over epochs, which is the same for every phase of training.

It saves the state and the best weights after each epoch, and the state when Ctrl-C interrupts an
epoch. If a run is killed at any moment, the same call continues from there, and takes the steps
that the run would have taken.
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

from captioner.data.text import counted
from captioner.training.distribution import Distribution
from captioner.training.training_state import (
    History,
    Model,
    StateError,
    restore_state,
    save_state,
    save_weights,
)

logger = logging.getLogger(__name__)

# How far an epoch has come: the number of its "batches" so far, and sums over them. It is empty
# before the first batch.
Progress = dict[str, float]
AfterEpoch = Callable[[str, Model, History], None]


@dataclass(frozen=True)
class Phase:
    """A part of training, which has its own files in the output folder."""

    name: str  # what an epoch is called in the log
    state: str  # the file of the variables and the history
    best: str  # the file of the weights of the best epoch
    epochs: int
    patience: int | None = None  # the phase stops after this many epochs without a better score


class Trainer(Protocol):
    """What a phase computes. `run_epochs` calls it, and saves its results."""

    judged_before: bool  # whether the weights before the first epoch may be the best

    @property
    def model(self) -> Model:
        """The model, compiled, with its optimizer's variables built."""

    @property
    def batches(self) -> int:
        """The number of batches in an epoch."""

    def begin(self) -> None:
        """Called once, before the first step of the phase."""

    def prepare(self) -> None:
        """Called before the first step of this process, if any step is left to be taken."""

    def train_epoch(self, epoch: int, progress: Progress, interrupted: Event) -> Progress:
        """Trains on the remaining batches of an epoch, until `interrupted` is set.

        Args:
            epoch: The number of the epoch.
            progress: How far the epoch has come.
            interrupted: Ends the epoch after the present batch.

        Returns:
            How far the epoch has come now.
        """

    def summary(self, progress: Progress) -> dict[str, float]:
        """What the history records about the training of a whole epoch."""

    def validate(self) -> dict[str, float]:
        """What the history records about the validation of the present weights."""

    def score(self, epoch: dict[str, float]) -> float:
        """The score of an epoch in the history. Higher is better."""


def run_epochs(
    trainer: Trainer,
    phase: Phase,
    output: Path,
    distribution: Distribution | None = None,
    after_epoch: AfterEpoch | None = None,
) -> History:
    """Trains all epochs of a phase, or those that are not in the output folder yet.

    In the end, the file `phase.best` has the weights of the best epoch.

    Args:
        trainer: Computes the epochs.
        phase: The number of epochs, and the names of the files.
        output: The output folder.
        distribution: The place of this process among several.
        after_epoch: Called with the phase's name, the model and the history when an epoch has been
            saved. It is not called if there are several processes, because the others would wait.

    Returns:
        The history, with an entry for each epoch.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when the state has been saved.
        StateError: The state cannot be read, or the training has diverged.
    """
    distribution = distribution or Distribution()
    state, best = output / phase.state, output / phase.best
    history, progress = _begin(trainer, phase, state, best)
    if not _is_over(trainer, phase, history):
        trainer.prepare()  # here, Ctrl-C still ends at once
    # With several processes, Ctrl-C ends at once and loses the epoch, because a process that stops
    # after a step would leave the others waiting.
    with interrupt_set() if distribution.parts == 1 else nullcontext(Event()) as interrupted:
        while not _is_over(trainer, phase, history):
            epoch = _done(trainer, history)
            logger.info("%s %d of %d", phase.name, epoch + 1, phase.epochs)
            progress = trainer.train_epoch(epoch, progress, interrupted)
            if progress["batches"] < trainer.batches:
                save_state(state, trainer.model, [*history, progress])
                raise KeyboardInterrupt
            history.append(trainer.summary(progress) | trainer.validate())
            _check_finite(phase, epoch + 1, trainer.score(history[-1]), trainer.model)
            progress = {}
            logger.info("%s %d: %s", phase.name, epoch + 1, figures(history[-1]))
            if distribution.is_main:
                _keep(trainer, history, state, best)
            if after_epoch and distribution.parts == 1:
                after_epoch(phase.name, trainer.model, history)
            if interrupted.is_set():
                raise KeyboardInterrupt
    if _done(trainer, history) < phase.epochs:
        logger.info("no better validation in %s", counted(phase.patience or 0, "epoch"))
    distribution.agree("their history", json.dumps(history))  # also waits for the best weights
    return history


def _begin(trainer: Trainer, phase: Phase, state: Path, best: Path) -> tuple[History, Progress]:
    """Restores the state if there is one, and begins the phase otherwise.

    Returns:
        The history, and how far the next epoch has come.
    """
    history = restore_state(state, trainer.model)
    progress = history.pop() if history and "batches" in history[-1] else {}
    if history or progress:
        done = _done(trainer, history), progress.get("batches", 0)
        logger.info("going on after %s %d, batch %d", phase.name, *done)
        return history, progress
    trainer.begin()
    if trainer.judged_before:
        save_weights(best, trainer.model)
        history = [trainer.validate()]
        logger.info("before the first %s: %s", phase.name, figures(history[-1]))
    return history, {}


def _done(trainer: Trainer, history: History) -> int:
    """The number of finished epochs. The history of some trainers begins before the first one."""
    return len(history) - int(trainer.judged_before)


def _is_over(trainer: Trainer, phase: Phase, history: History) -> bool:
    scores = [trainer.score(h) for h in history]
    return _done(trainer, history) >= phase.epochs or _patience_is_over(scores, phase.patience)


def figures(entry: Mapping[str, float]) -> str:
    """An entry of a history as text for people, with four digits."""
    return ", ".join(f"{name} {value:.4g}" for name, value in entry.items())


@contextmanager
def interrupt_set() -> Iterator[Event]:
    """An event that the first Ctrl-C or SIGTERM sets. The second one interrupts at once."""
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


def _check_finite(phase: Phase, epoch: int, score: float, model: Model) -> None:
    """Ends the run with a reason, because no weights could be told to be the best. Captions have a
    score even if the weights are no numbers, so these are looked at, too."""
    finite = np.isfinite(score) and all(np.isfinite(np.asarray(v)).all() for v in model.weights)
    if not finite:
        raise StateError(
            f"after {phase.name} {epoch} the validation score or a weight is not a number, so the "
            "training has diverged. Begin anew with a lower learning rate and another --output."
        )


def _keep(trainer: Trainer, history: History, state: Path, best: Path) -> None:
    """Saves the epoch."""
    scores = [trainer.score(h) for h in history]
    if scores[-1] >= max(scores):
        save_weights(best, trainer.model)
    # The state comes last, because it says that the epoch is done. A run that is killed before this
    # repeats the epoch.
    save_state(state, trainer.model, history)


def _patience_is_over(scores: list[float], patience: int | None) -> bool:
    if not scores or patience is None:
        return False
    return len(scores) - 1 - int(np.argmax(scores)) >= patience
