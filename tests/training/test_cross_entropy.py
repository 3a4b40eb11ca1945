"""The phases of training on a tiny model and made-up features, within one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig, TrainingConfig
from captioner.data.datasets import Record
from captioner.data.vocabulary import Vocabulary
from captioner.model.backend import compiles_whole_steps, set_random_seed
from captioner.model.caption_model import CaptionModel
from captioner.model.decoding import DecodingLoop, chooser_for
from captioner.training.cross_entropy import (
    BEST,
    STATE,
    RunContext,
    fit_cross_entropy,
    make_optimizer,
)
from captioner.training.rewards import CiderD
from captioner.training.self_critical import (
    GREEDY,
    SelfCriticalTrainer,
    fit_cider,
    judge,
    make_reward,
)
from captioner.training.self_critical import STATE as CIDER_STATE
from captioner.training.training_state import StateError, restore_state

THINGS = ("dog", "cat", "car", "boat")


class Features:
    """Stands for a feature cache: image n shows thing n % 4, and says so in one channel."""

    def gather(self, image_ids):
        features = np.random.default_rng(0).normal(size=(len(image_ids), 4, 8)) * 0.1
        for row, image_id in enumerate(image_ids):
            features[row, :, int(image_id) % 4] += 1
        return features.astype(np.float16)


def context(output: Path, **training) -> RunContext:
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
        BackboneConfig("inception_v3", 299),
        TrainingConfig(**(defaults | {"epochs": 6} | training)),
    )
    output.mkdir(exist_ok=True)
    return RunContext(config, vocabulary, Features(), train, val, output)


def fresh(of: RunContext) -> CaptionModel:
    set_random_seed(of.config.training.seed)
    return CaptionModel(of.config.model, of.config.training.label_smoothing)


def weights(model: CaptionModel) -> dict[str, np.ndarray]:
    return {v.path: np.array(v) for v in model.weights}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    of = context(tmp_path_factory.mktemp("trained"))
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
    of = context(tmp_path, epochs=40, patience=2, learning_rate=0.5, clip_norm=100.0)
    history = fit_cross_entropy(fresh(of), of)
    losses = [h["val_nll"] for h in history]
    assert len(history) < 40
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


def test_a_truncated_state_is_named_and_its_remedy_works(trained, tmp_path):
    of = context(tmp_path)
    good = (trained[0].output / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(good[: len(good) // 2])
    with pytest.raises(StateError, match=rf"{STATE} is damaged.*Move it"):
        fit_cross_entropy(fresh(of), of)
    (tmp_path / STATE).unlink()
    assert fit_cross_entropy(fresh(of), of)[0] == pytest.approx(trained[2][0])


@pytest.mark.parametrize("name", [STATE, BEST])
def test_a_flipped_bit_is_found_wherever_it_is(trained, tmp_path, name):
    of = context(tmp_path)
    for kept in (STATE, BEST):
        shutil.copy(trained[0].output / kept, tmp_path / kept)
    good = (tmp_path / name).read_bytes()
    for place in (9, len(good) // 2, len(good) - 1):  # in the header, in arrays
        data = bytearray(good)
        data[place] ^= 4
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StateError, match=rf"{name} is damaged .*ove it"):
            fit_cross_entropy(fresh(of), of)


def test_a_state_of_an_earlier_version_has_no_checksum(trained, tmp_path):
    of = context(tmp_path)
    shutil.copy(trained[0].output / BEST, tmp_path / BEST)
    with safe_open(trained[0].output / STATE, framework="numpy") as file:
        told = {"history": file.metadata()["history"]}
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    save_file(arrays, tmp_path / STATE, metadata=told)
    assert fit_cross_entropy(fresh(of), of) == trained[2]


def test_the_state_of_another_model_is_refused(trained, tmp_path):
    of = context(tmp_path)
    other = CaptionModel(ModelConfig(9, rows=2, columns=2, channels=8, units=7))
    other.compile(optimizer="adam")
    with pytest.raises(StateError, match="damaged"):
        restore_state(trained[0].output / STATE, other)
    assert of.output.is_dir()


def train_on_cider(trained, folder: Path, epochs: int):
    """Self-critical training from the weights of `trained`: its history, and the weights."""
    return continued(trained, context(folder, cider_epochs=epochs, cider_learning_rate=1e-3))


def continued(trained, of: RunContext):
    model = fresh(of)
    for ours, theirs in zip(model.weights, trained[1].weights, strict=True):
        ours.assign(theirs)
    return fit_cider(model, of), weights(model)


@pytest.fixture(scope="module")
def cider_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cider")


@pytest.fixture(scope="module")
def trained_on_cider(trained, cider_folder):
    return train_on_cider(trained, cider_folder, 4)


def assert_same(one, other) -> None:
    assert json.dumps(one[0]) == json.dumps(other[0])
    for name in one[1]:
        np.testing.assert_array_equal(one[1][name], other[1][name], err_msg=name)


def greedy(model: CaptionModel) -> DecodingLoop:
    return DecodingLoop(model, chooser_for(GREEDY), GREEDY.rows)


@pytest.mark.skipif(
    compiles_whole_steps(), reason="so few samples tell it from chance with TensorFlow's seed only"
)
def test_self_critical_training_raises_its_reward(trained_on_cider):
    rewards = [h["reward"] for h in trained_on_cider[0][1:]]
    assert len(rewards) == 4 and rewards[-1] > rewards[0]


def test_self_critical_training_resumes_and_ctrl_c_in_an_epoch_loses_no_step(
    trained, trained_on_cider, tmp_path, monkeypatch
):
    assert len(train_on_cider(trained, tmp_path, 2)[0]) == 1 + 2
    scores, calls = CiderD.scores, []

    def score_and_interrupt(self, image_ids, words):
        calls.append(image_ids)
        if len(calls) == 3:  # the third batch of the third epoch
            os.kill(os.getpid(), signal.SIGINT)
        return scores(self, image_ids, words)

    with monkeypatch.context() as patched:
        patched.setattr(CiderD, "scores", score_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_on_cider(trained, tmp_path, 4)
    assert len(calls) == 3  # no step was taken after it
    assert_same(train_on_cider(trained, tmp_path, 4), trained_on_cider)


def test_self_critical_training_keeps_the_best_epoch(trained, tmp_path):
    # Too high a learning rate: it gets worse.
    of = context(tmp_path, cider_epochs=2, cider_learning_rate=0.05, cider_blend=1.0)
    model = fresh(of)
    for ours, theirs in zip(model.weights, trained[1].weights, strict=True):
        ours.assign(theirs)
    history = fit_cider(model, of)
    scores = [h["val_cider"] for h in history]
    assert scores[-1] < max(scores)
    reward = make_reward(of.val, of.vocabulary)
    assert judge(greedy(model), of, reward)["val_cider"] == pytest.approx(max(scores))


@pytest.mark.parametrize("when", ["at its end", "before a step of it"])
def test_weights_that_are_no_numbers_are_not_kept(when, tmp_path, monkeypatch):
    """Their captions have a score nevertheless."""
    of = context(tmp_path, cider_epochs=2)
    model = fresh(of)

    def diverge(trainer, *_):
        for variable in trainer.model.trainable_variables:
            variable.assign(np.full(variable.shape, np.nan))
        return {"batches": trainer.batches, "rewards": 1.0}

    if when == "at its end":
        monkeypatch.setattr(SelfCriticalTrainer, "train_epoch", diverge)
    else:  # the samples then have no words
        monkeypatch.setattr(SelfCriticalTrainer, "begin", diverge)
    with pytest.raises(StateError, match="CIDEr epoch 1 the validation score or a weight is not a"):
        fit_cider(model, of)
    assert not (tmp_path / CIDER_STATE).exists()


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


def test_the_blend_lies_between_the_weights_before_and_after(
    trained, trained_on_cider, cider_folder
):
    after = {}
    for blend in (0.0, 0.25, 1.0):  # of the training that is done
        of = context(cider_folder, cider_epochs=4, cider_learning_rate=1e-3, cider_blend=blend)
        history, after[blend] = continued(trained, of)
        assert history == trained_on_cider[0]
    changed = 0
    for name, start in after[0.0].items():
        np.testing.assert_array_equal(start, weights(trained[1])[name])
        wanted = start + 0.25 * (after[1.0][name] - start)
        np.testing.assert_allclose(after[0.25][name], wanted, rtol=1e-6, atol=1e-7)
        changed += int(np.abs(after[1.0][name] - start).max() > 1e-5)
    assert changed > 5
