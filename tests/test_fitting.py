"""The phases of training on a tiny model and made-up features, within one process."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig, TrainingConfig
from captioner.datasets import Record
from captioner.fitting import STATE, Session, fit_cross_entropy, make_optimizer
from captioner.model import CaptionModel
from captioner.selfcritical import fit_cider, make_reward, mean_cider
from captioner.state import StateError, restore_state
from captioner.vocabulary import Vocabulary

THINGS = ("dog", "cat", "car", "boat")


class Features:
    """Stands for a feature cache: image n shows thing n % 4, and says so in one channel."""

    def gather(self, image_ids):
        features = np.random.default_rng(0).normal(size=(len(image_ids), 4, 8)) * 0.1
        for row, image_id in enumerate(image_ids):
            features[row, :, int(image_id) % 4] += 1
        return features.astype(np.float16)


def session(output: Path, **training) -> Session:
    records = [
        Record(
            str(i),
            Path(f"{i}.jpg"),
            (f"a {THINGS[i % 4]} is here", f"this is a {THINGS[i % 4]}"),
            "train" if i < 24 else "val",
        )
        for i in range(32)
    ]
    train, val = records[:24], records[24:]
    vocabulary = Vocabulary.build(c for r in train for c in r.captions)
    sizes = {"rows": 2, "columns": 2, "channels": 8, "embedding_dim": 8, "units": 16}
    defaults = {"batch_size": 4, "captions_per_image": 2, "warmup_steps": 2, "learning_rate": 0.02}
    config = CaptionerConfig(
        ModelConfig(len(vocabulary), attention_units=8, dropout=0.1, **sizes),
        BackboneConfig(),
        TrainingConfig(**(defaults | {"epochs": 6} | training)),
    )
    output.mkdir(exist_ok=True)
    return Session(config, vocabulary, Features(), train, val, output)


def fresh(of: Session) -> CaptionModel:
    keras.utils.set_random_seed(of.config.training.seed)
    return CaptionModel(of.config.model, of.config.training.label_smoothing)


def weights(model: CaptionModel) -> dict[str, np.ndarray]:
    return {v.path: np.array(v) for v in model.weights}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    of = session(tmp_path_factory.mktemp("trained"))
    model = fresh(of)
    return of, model, fit_cross_entropy(model, of)


def test_cross_entropy_learns(trained):
    _, _, history = trained
    assert len(history) == 6
    assert history[-1]["val_nll"] < 0.7 < 1.5 < history[0]["val_nll"]


def test_the_weights_of_the_best_epoch_are_kept(trained):
    of, model, history = trained
    nll = model.evaluate(of.batches(None), verbose=0, return_dict=True)["nll"]
    assert nll == pytest.approx(min(h["val_nll"] for h in history), rel=1e-5)


def test_a_finished_run_is_not_trained_again(trained):
    of, model, history = trained
    state = (of.output / STATE).read_bytes()
    again = fresh(of)
    assert fit_cross_entropy(again, of) == history
    assert (of.output / STATE).read_bytes() == state
    for name, value in weights(model).items():
        np.testing.assert_array_equal(weights(again)[name], value)


def test_it_stops_when_validation_does_not_improve(tmp_path):
    of = session(tmp_path, epochs=40, patience=2, learning_rate=0.5, clip_norm=100.0)
    history = fit_cross_entropy(fresh(of), of)
    losses = [h["val_nll"] for h in history]
    assert len(history) < 40
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


def test_a_truncated_state_is_named_and_its_remedy_works(trained, tmp_path):
    of = session(tmp_path)
    good = (trained[0].output / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(good[: len(good) // 2])
    with pytest.raises(StateError, match=rf"{STATE} is damaged.*Delete it"):
        fit_cross_entropy(fresh(of), of)
    (tmp_path / STATE).unlink()
    assert fit_cross_entropy(fresh(of), of)[0] == pytest.approx(trained[2][0])


def test_the_state_of_another_model_is_refused(trained, tmp_path):
    of = session(tmp_path)
    other = CaptionModel(ModelConfig(9, rows=2, columns=2, channels=8, units=7))
    other.compile(optimizer="adam")
    with pytest.raises(StateError, match="damaged"):
        restore_state(trained[0].output / STATE, other)
    assert of.output.is_dir()


def test_self_critical_training_raises_its_reward_and_resumes(trained, tmp_path):
    _, start, _ = trained
    before = weights(start)

    def train(folder: Path, epochs: int):
        of = session(folder, cider_epochs=epochs, cider_learning_rate=1e-3)
        model = fresh(of)
        for variable in model.weights:
            variable.assign(before[variable.path])
        return fit_cider(model, of), weights(model)

    history, at_once = train(tmp_path / "at once", 4)
    rewards = [h["reward"] for h in history[1:]]
    assert len(rewards) == 4 and rewards[-1] > rewards[0]

    train(tmp_path / "in two", 2)
    resumed, in_two = train(tmp_path / "in two", 4)
    assert json.dumps(resumed) == json.dumps(history)
    for name in at_once:
        np.testing.assert_array_equal(in_two[name], at_once[name], err_msg=name)


def test_self_critical_training_keeps_the_best_epoch(trained, tmp_path):
    of = session(tmp_path, cider_epochs=2, cider_learning_rate=0.05)  # too much: it gets worse
    model = fresh(of)
    for ours, theirs in zip(model.weights, trained[1].weights, strict=True):
        ours.assign(theirs)
    history = fit_cider(model, of)
    scores = [h["val_cider"] for h in history]
    assert scores[-1] < max(scores)
    reward = make_reward(of.val, of.vocabulary)
    assert mean_cider(model, of, reward) == pytest.approx(max(scores))


def test_the_schedule_of_the_learning_rate():
    cosine = make_optimizer(TrainingConfig(epochs=10, warmup_steps=20), steps_per_epoch=10)
    rates = []
    for step in (0, 10, 20, 100):
        cosine.iterations.assign(step)
        rates.append(float(cosine.learning_rate))
    assert rates == pytest.approx([0, 5e-4, 1e-3, 2e-5], rel=0.05, abs=1e-9)
    constant = make_optimizer(TrainingConfig(schedule="constant"), steps_per_epoch=10)
    constant.iterations.assign(500)
    assert float(constant.learning_rate) == pytest.approx(1e-3)
