"""Compiled loops of steps under JAX: the steps of Keras's own loop, wherever the features lie."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from threading import Event

import numpy as np
import pytest
from PIL import Image
from test_cross_entropy import context, fresh

from captioner.model import backend
from captioner.training import device_steps
from captioner.training.cross_entropy import CrossEntropyTrainer, RunContext, make_optimizer
from captioner.training.device_steps import DeviceSteps
from captioner.training.epoch_loop import Phase, run_epochs
from captioner.training.finetuning import PhotoBatches, with_photos
from captioner.training.resident import RowNumbers
from captioner.training.self_critical import SelfCriticalTrainer

pytestmark = pytest.mark.skipif(backend.name() != "jax", reason="these loops are JAX's")


class Features:
    """Stands for a feature cache: random features of each image, wherever in a batch it is."""

    def __contains__(self, image_id):
        return True

    def gather(self, image_ids):
        rows = [np.random.default_rng(int(i)).normal(size=(4, 8)) for i in image_ids]
        return np.stack(rows).astype(np.float16)


def compiled(of):
    model = fresh(of)
    model.compile(make_optimizer(of.config.training, 6), jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    return model


def trained(of, stop_after: int = 99) -> tuple[list[np.ndarray], float]:
    """The variables after an epoch that was stopped so early, and gone on with; its loss."""
    model, losses = compiled(of), []
    steps, done = DeviceSteps(model), 0
    while done < len(of.batches(0)):
        calls = []
        done += steps.train(of.batches(0, done), lambda c=calls: c.append(1) or len(c) > stop_after)
        losses.append(float(model.nll.total))
    return [np.array(v) for v in (*model.variables, *model.optimizer.variables)], sum(losses)


def self_critical_step(of) -> list[float]:
    """The mean reward of a batch of self-critical training, and the weights' sums after it."""
    model, interrupted = compiled(of), Event()
    interrupted.set()
    progress = SelfCriticalTrainer(model, of).train_epoch(0, {}, interrupted)
    assert progress["batches"] == 1
    return [progress["rewards"], *(float(np.sum(v)) for v in model.weights)]


def test_they_are_the_steps_of_keras(tmp_path):
    of = context(tmp_path)
    model = compiled(of)
    model.fit(of.batches(0), shuffle=False, verbose=0)
    wanted = [np.array(v) for v in (*model.variables, *model.optimizer.variables)]
    found, loss = trained(of)
    assert loss == pytest.approx(float(model.nll.total), rel=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    nll = model.evaluate(of.batches(None), verbose=0, return_dict=True)["nll"]
    assert DeviceSteps(model).evaluate(of.batches(None)) == pytest.approx(nll, rel=1e-5)


def test_stopping_changes_no_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(device_steps, "STEPS", 2)
    of = context(tmp_path)
    whole, _ = trained(of)
    for ours, theirs in zip(trained(of, stop_after=0)[0], whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_features_on_the_device_are_the_same_features(tmp_path, monkeypatch):
    of = replace(context(tmp_path), cache=Features())
    assert of.on_device().resident is None, "on a CPU they stay where they are"
    monkeypatch.setattr(backend, "free_device_memory", lambda: 10**6)
    there = of.on_device()
    assert isinstance(there.batches(0).cache, RowNumbers)
    for ours, theirs in zip(trained(there)[0], trained(of)[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rewards = [self_critical_step(where) for where in (there, of)]
    assert rewards[0] == rewards[1]
    monkeypatch.setattr(backend, "free_device_memory", lambda: 100)
    assert of.on_device().resident is None, "they do not fit"


def test_a_phase_that_is_over_decodes_no_photo(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "free_device_memory", lambda: 10**9)
    monkeypatch.setattr("captioner.training.finetuning.load_image", lambda path: 1 / 0)
    of = with_photos(context(tmp_path))
    batches = partial(RunContext.batches, kind=PhotoBatches)
    rate = partial(make_optimizer, of.config.training)
    trainer = CrossEntropyTrainer(fresh(of), of, rate, batches)
    assert trainer.batches == len(context(tmp_path).batches(0))
    assert run_epochs(trainer, Phase("epoch", "state", "best", epochs=0), tmp_path) == []
    with pytest.raises(ZeroDivisionError):
        trainer.prepare()


def test_photos_leave_the_network_more_of_the_device_than_features_do(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "captioner.training.finetuning.load_image", lambda path: Image.new("RGB", (8, 8))
    )
    of = context(tmp_path)
    size = len([*of.train, *of.val]) * 3 * of.config.training.finetune_image_size**2
    for share, fits in ((0.2, True), (0.5, False)):
        monkeypatch.setattr(backend, "free_device_memory", lambda s=share: size / s)
        assert (with_photos(of).resident is not None) == fits
