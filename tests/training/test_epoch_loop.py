"""The loop over epochs, with a trainer that computes nothing."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from captioner.config import ModelConfig
from captioner.model.caption_model import CaptionModel
from captioner.training.epoch_loop import Phase, Progress, run_epochs
from captioner.training.training_state import StateError


class Diverging:
    """Its validation loss is not a number from the second epoch on."""

    judged_before = False
    batches = 1

    def __init__(self) -> None:
        self.model = CaptionModel(ModelConfig(5, 1, 1, 2, 2, 2, 2))
        self.model.compile("sgd")
        self.model.optimizer.build(self.model.trainable_variables)
        self.epochs = self.prepared = 0

    def begin(self) -> None:
        pass

    def prepare(self) -> None:
        self.prepared += 1

    def train_epoch(self, epoch: int, progress: Progress, interrupted: Event) -> Progress:
        self.epochs += 1
        return {"batches": 1}

    def summary(self, progress: Progress) -> dict[str, float]:
        return {"nll": 1.0}

    def validate(self) -> dict[str, float]:
        return {"val_nll": 1.0 if self.epochs == 1 else float("nan")}

    def score(self, epoch: dict[str, float]) -> float:
        return -epoch["val_nll"]


def test_a_run_that_diverges_ends_with_the_reason(tmp_path: Path) -> None:
    trainer = Diverging()
    phase = Phase("epoch", "state.safetensors", "best.safetensors", epochs=5)
    with pytest.raises(StateError, match=r"after epoch 2 .* not a number.* lower learning rate"):
        run_epochs(trainer, phase, tmp_path)
    assert trainer.epochs == 2
    assert {path.name for path in tmp_path.iterdir()} == {"state.safetensors", "best.safetensors"}


class Converging(Diverging):
    """Its validation loss is best after the first epoch."""

    def validate(self) -> dict[str, float]:
        return {"val_nll": float(self.epochs)}


@pytest.mark.parametrize(("epochs", "patience", "taken"), [(2, None, 2), (9, 1, 2)])
def test_nothing_is_prepared_for_a_phase_that_is_over(epochs, patience, taken, tmp_path) -> None:
    phase = Phase("epoch", "state.safetensors", "best.safetensors", epochs, patience)
    for left in (taken, 0):
        trainer = Converging()
        history = run_epochs(trainer, phase, tmp_path)
        assert len(history) == taken
        assert (trainer.epochs, trainer.prepared) == (left, int(left > 0))
