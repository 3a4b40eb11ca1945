"""The training run: features, vocabulary, fit, validate, export.

`run` can be killed at any moment: whatever it has finished (images, shards of features, epochs) is
on disk, and the same call in the same output folder goes on from there. The order of the images is
a function of seed and epoch, and the optimizer, the schedule and the dropout generators are saved
with the weights, so a resumed run takes the steps that an uninterrupted one would have taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout

from captioner.backbone import IMAGENET, build_backbone
from captioner.batches import CaptionBatches
from captioner.captioner import Captioner
from captioner.card import loss_plot, model_card
from captioner.checkpoint import Checkpoint, read_json, write_checkpoint, write_json
from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig, TrainingConfig
from captioner.datasets import Record, check_no_leak
from captioner.evaluation import MetricsUnavailable, evaluate, require_metrics
from captioner.features import SHARD_IMAGES, FeatureCache, FeatureExtractor, extract
from captioner.model import CaptionModel
from captioner.selfcritical import SelfCritic, make_reward, mean_cider
from captioner.state import (
    History,
    StateError,
    load_weights,
    restore_state,
    save_state,
    save_weights,
)
from captioner.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

STATE, BEST, RUN, LOCK = "state.safetensors", "best.safetensors", "run.json", "run.lock"
CIDER_STATE, CIDER_BEST = "cider_state.safetensors", "cider_best.safetensors"
# These may change: they only add to what the folder already holds.
EXTENDABLE = ("cider_epochs", "cider_learning_rate")


class TrainingError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class RunOptions:
    """What `run` needs besides the records."""

    dataset: str
    output: Path
    backbone_weights: str = IMAGENET
    features: Path | None = None  # default: a folder of the output
    shard_images: int = SHARD_IMAGES
    training: TrainingConfig = field(default_factory=TrainingConfig)
    model: dict[str, Any] = field(default_factory=dict)  # ModelConfig's fields, where not default


def run(records: Sequence[Record], options: RunOptions) -> Path:
    """Trains on `records` (splits "train" and "val") and returns the checkpoint directory.

    Raises `TrainingError`, and the `DatasetError` and `FeatureError` of what it calls.
    """
    output = options.output
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(
            f"another run is writing to {output}. Wait for it, or give another --output."
        ) from None
    except OSError as error:
        raise TrainingError(f"{output} cannot be written to ({error}).") from error
    with lock:
        try:
            return _run(records, options)
        except StateError as error:
            raise TrainingError(str(error)) from error


def _run(records: Sequence[Record], options: RunOptions) -> Path:
    training, output = options.training, options.output
    check_no_leak(records)
    train = [r for r in records if r.split == "train"]
    val = [r for r in records if r.split == "val"]
    if not train or not val:
        raise TrainingError(
            f"{len(train)} training and {len(val)} validation images: both are needed."
        )
    keras.utils.set_random_seed(training.seed)
    if training.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    extractor = FeatureExtractor(build_backbone(options.backbone_weights))
    features = options.features or output / "features"
    cache = extract([*train, *val], extractor, features, options.shard_images)
    vocabulary = Vocabulary.build(
        (caption for r in train for caption in r.captions), training.vocabulary_limit
    )
    own = options.backbone_weights != IMAGENET
    config = CaptionerConfig(
        model=ModelConfig(vocabulary_size=len(vocabulary), **options.model),
        backbone=BackboneConfig(
            image_size=extractor.image_size,
            weights="bundled" if own else IMAGENET,
            fingerprint=extractor.stamp().fingerprint,
        ),
        training=training,
        dataset=options.dataset,
    )
    _check_same_run(output / RUN, config, records)
    model = CaptionModel(config.model, training.label_smoothing)
    history = _fit(model, config, vocabulary, cache, train, val, output)
    cider_history: History = []
    if training.cider_epochs:
        cider_history = _fit_cider(model, config, vocabulary, cache, train, val, output)
    checkpoint = Checkpoint(config, vocabulary, model, extractor.backbone)
    metrics = {
        "history": history,
        "cider_history": cider_history,
        "scores": _scores(checkpoint, val, cache),
    }
    extra = {
        "loss.png": loss_plot(history),
        "README.md": model_card(config, metrics).encode(),
    }
    folder = output / "checkpoint"
    write_checkpoint(folder, checkpoint, metrics, extra)
    return folder


def _fit(
    model: CaptionModel,
    config: CaptionerConfig,
    vocabulary: Vocabulary,
    cache: FeatureCache,
    train: Sequence[Record],
    val: Sequence[Record],
    output: Path,
) -> History:
    """Epochs of cross-entropy; leaves the weights of the best in `model`."""
    training = config.training
    steps = CaptionBatches(train, cache, vocabulary, training, epoch=0).num_batches
    model.compile(optimizer=make_optimizer(training, steps), jit_compile=uses_jit())
    model.optimizer.build(model.trainable_variables)
    history = restore_state(output / STATE, model)
    if history:
        logger.info("going on after epoch %d", len(history))
    else:
        model.encoder.standardize(*_mean_and_std(cache, train))
    for epoch in range(len(history), training.epochs):
        if _patience_is_over(history, training.patience):
            logger.info("no better validation loss in %d epochs: stopping", training.patience)
            break
        batches = CaptionBatches(train, cache, vocabulary, training, epoch=epoch)
        fitted = model.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=_verbosity()
        )
        val_batches = CaptionBatches(val, cache, vocabulary, training)
        val_nll = model.evaluate(val_batches, verbose=0, return_dict=True)["nll"]
        history.append({"nll": float(fitted.history["nll"][0]), "val_nll": float(val_nll)})
        logger.info("epoch %d: %s", epoch + 1, json.dumps(history[-1]))
        if val_nll <= min(h["val_nll"] for h in history):
            save_weights(output / BEST, model)
        # Last, for this is what says that the epoch is done: killed before, it is done again.
        save_state(output / STATE, model, history)
    load_weights(output / BEST, model)
    return history


def _fit_cider(
    model: CaptionModel,
    config: CaptionerConfig,
    vocabulary: Vocabulary,
    cache: FeatureCache,
    train: Sequence[Record],
    val: Sequence[Record],
    output: Path,
) -> History:
    """Self-critical epochs, from the weights in `model`; leaves the best of them in it."""
    training = config.training
    # Without dropout, what is sampled is what is trained.
    talker = CaptionModel(replace(config.model, dropout=0.0))
    for ours, theirs in zip(talker.weights, model.weights, strict=True):
        ours.assign(theirs)
    optimizer = keras.optimizers.Adam(
        training.cider_learning_rate, global_clipnorm=training.clip_norm
    )
    talker.compile(optimizer=optimizer, jit_compile=uses_jit())
    optimizer.build(talker.trainable_variables)
    history = restore_state(output / CIDER_STATE, talker)
    critic = SelfCritic(talker, train, cache, vocabulary, training)
    reward = make_reward(val, vocabulary)
    if not history:
        save_weights(output / CIDER_BEST, talker)
        history = [{"val_cider": mean_cider(talker, val, cache, reward)}]
        logger.info("before self-critical training: %s", json.dumps(history[-1]))
    for epoch in range(len(history) - 1, training.cider_epochs):
        sampled = critic.train_epoch(epoch)
        val_cider = mean_cider(talker, val, cache, reward)
        history.append({"reward": sampled, "val_cider": val_cider})
        logger.info("CIDEr epoch %d: %s", epoch + 1, json.dumps(history[-1]))
        if val_cider >= max(h["val_cider"] for h in history):
            save_weights(output / CIDER_BEST, talker)
        save_state(output / CIDER_STATE, talker, history)
    load_weights(output / CIDER_BEST, model)
    return history


def make_optimizer(training: TrainingConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), warmed up, then along a cosine."""
    total = training.epochs * steps_per_epoch
    warmup = min(training.warmup_steps, total // 4)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=training.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, total - warmup),
        alpha=0.02,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=training.weight_decay, global_clipnorm=training.clip_norm
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def uses_jit() -> bool:
    # TensorFlow's XLA cannot compile the gradient of a loop of unknown length.
    return keras.backend.backend() == "jax"


def _scores(
    checkpoint: Checkpoint, val: Sequence[Record], cache: FeatureCache
) -> list[dict[str, Any]]:
    try:
        require_metrics()
    except MetricsUnavailable as error:
        logger.warning("no caption scores: %s", error)
        return []
    captioner = Captioner(checkpoint)
    return [
        {"dataset": checkpoint.config.dataset, "split": "val", "strategy": strategy}
        | evaluate(captioner, val, strategy=strategy, cache=cache)
        for strategy in ("greedy", "beam")
    ]


def _check_same_run(path: Path, config: CaptionerConfig, records: Sequence[Record]) -> None:
    """A folder holds one run: another's options or data in it are refused."""
    digest = hashlib.sha256()
    for r in sorted(records, key=lambda r: r.image_id):
        digest.update(json.dumps([r.image_id, r.split, r.captions]).encode())
    now = asdict(config) | {"records": digest.hexdigest(), "backend": keras.backend.backend()}
    if not path.exists():
        write_json(path, now)
        return
    before = read_json(path)
    for section, value in now.items():
        if before.get(section) == value:
            continue
        detail = section
        if isinstance(value, dict):
            old = before.get(section) or {}
            detail = ", ".join(
                f"{section}.{k} was {old.get(k)!r}, now {v!r}"
                for k, v in value.items()
                if k not in EXTENDABLE and old.get(k) != v
            )
            if not detail:
                continue
        raise TrainingError(
            f"{path.parent} holds another run ({detail}). Give the options of that run to go on "
            "with it, or another --output."
        )


def _mean_and_std(cache: FeatureCache, train: Sequence[Record]) -> tuple[float, float]:
    """Of all features, estimated from up to 512 training images."""
    sample = cache.gather([r.image_id for r in train[:512]]).astype(np.float32)
    return float(sample.mean()), float(sample.std())


def _patience_is_over(history: Sequence[dict[str, float]], patience: int) -> bool:
    losses = [h["val_nll"] for h in history]
    return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience


def _verbosity() -> int:
    return 1 if sys.stdout.isatty() else 2  # a bar, or a line an epoch for log files
