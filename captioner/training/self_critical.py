"""Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563) on CIDEr-D.

This follows training with cross-entropy. The model draws several captions of each image, and the
words of captions with higher scores than the image's other captions are made more probable. The
baseline is the mean of the image's other samples (Luo 2020, arXiv 2003.09971), so that no second
decoding is needed. Phrases that the model uses more often than people do lower the reward.

Each batch is sampled from the weights that its step changes. If the next batch were sampled while
the rewards are computed, a GPU would be busy all the time, but the weights would be one step old.
The rewards take only a few milliseconds, so this is not worth it. Only features are fetched ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from captioner.data.datasets import Record
from captioner.data.mixture import rewarded_records
from captioner.data.vocabulary import END, PAD, START, Vocabulary
from captioner.model import backend
from captioner.model.backend import compiles_whole_steps, copy_weights, wants_few_shapes
from captioner.model.caption_model import CaptionModel
from captioner.model.decoding import DecodingLoop, chooser_for, decode
from captioner.model.decoding_options import DecodingOptions
from captioner.model.feature_cache import FeatureCache
from captioner.training.cross_entropy import RunContext
from captioner.training.epoch_loop import Phase, Progress, run_epochs
from captioner.training.rewards import CiderD, Overuse
from captioner.training.training_state import History, load_weights
from captioner.training.views import ViewsInTurn

GREEDY = DecodingOptions("greedy")
STATE, BEST = "cider_state.safetensors", "cider_best.safetensors"


def make_reward(records: Sequence[Record], vocabulary: Vocabulary) -> CiderD:
    """CIDEr-D with the captions of `records` as references. Their ends count as words."""
    return CiderD({r.image_id: [[*vocabulary.encode(c), END] for c in r.captions] for r in records})


def fit_cider(model: CaptionModel, context: RunContext) -> History:
    """Trains from the weights in `model`, or continues from the state in `context.output`.

    In the end, `model` has a weighted mean of the weights before this phase and those of the epoch
    with the highest CIDEr-D of greedy validation captions (Wortsman et al. 2022, arXiv 2109.01903).
    CIDEr-D rewards the few words that many captions share, and the weights before this phase use
    more words.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when the state has been saved.
    """
    training, output = context.config.training, context.output
    # There is no dropout, so that the model which draws the samples is the one that is trained.
    sampler = CaptionModel(
        replace(context.config.model, dropout=0.0), mixed_precision=training.mixed_precision
    )
    copy_weights(sampler, model)
    optimizer = keras.optimizers.Adam(
        training.cider_learning_rate, global_clipnorm=training.clip_norm
    )
    sampler.compile(optimizer=optimizer, jit_compile=compiles_whole_steps())
    optimizer.build(sampler.trainable_variables)
    trainer = SelfCriticalTrainer(sampler, context)
    phase = Phase("CIDEr epoch", STATE, BEST, training.cider_epochs)
    history = run_epochs(trainer, phase, output, after_epoch=context.after_epoch)
    before = [np.array(v) for v in model.weights]
    load_weights(output / BEST, model, output / STATE)
    for variable, start in zip(model.weights, before, strict=True):
        variable.assign(start + training.cider_blend * (np.asarray(variable) - start))
    return history


class SelfCriticalTrainer:
    """Trains `model`, which should have no dropout. The best epoch has the highest CIDEr-D of
    greedy validation captions."""

    judged_before = True

    def __init__(self, model: CaptionModel, context: RunContext) -> None:
        self.model = model
        train = [*rewarded_records(context.train, context.config.training.cider_captions)]
        self.ids = [r.image_id for r in train]
        self.context = context
        self.training = training = context.config.training
        self.reward = make_reward(train, context.vocabulary)
        self.overuse = Overuse(self.reward.ngrams)
        samples = max(2, training.captions_per_image)  # the baseline needs another sample
        self.options = DecodingOptions("sample", num_captions=samples, temperature=1.0)
        self.loop = DecodingLoop(model, chooser_for(self.options), self.options.rows)
        # What validation needs is made once for all epochs.
        self.val_rewards = {
            name: make_reward(part.val, context.vocabulary)
            for name, part in context.per_dataset().items()
        }
        self.greedy = DecodingLoop(model, chooser_for(GREEDY), GREEDY.rows)

    @property
    def batches(self) -> int:
        """The number of batches in an epoch. The last, smaller batch is left out; its images come
        in other epochs."""
        return max(1, len(self.ids) // self.training.batch_size)

    def begin(self) -> None:
        """Does nothing, because the weights are there already."""

    def prepare(self) -> None:
        """Copies the features to the device, if they are to be there."""
        _ = self.context.resident

    def train_epoch(self, epoch: int, progress: Progress, interrupted: Event) -> Progress:
        """See `epoch_loop.Trainer`. `progress` has the sum of the batches' mean rewards.

        The order of the images and the samples depend only on seed, epoch and batch.
        """
        size, seed = self.training.batch_size, [self.training.seed, epoch, 1]
        order = [self.ids[i] for i in np.random.default_rng(seed).permutation(len(self.ids))]
        rewards, first = progress.get("rewards", 0.0), int(progress.get("batches", 0))
        bar = tqdm(
            range(first, self.batches),
            initial=first,
            total=self.batches,
            unit="batch",
            leave=False,
            disable=None,
        )
        with ThreadPoolExecutor(1, "captioner features") as thread:
            # The features of the next batch are read and sent during this batch's step.
            features_of = partial(self._features, self.context.features(epoch))
            ahead = thread.submit(features_of, order[first * size :][:size])
            for batch in bar:
                features = ahead.result()
                if batch + 1 < self.batches:
                    ahead = thread.submit(features_of, order[(batch + 1) * size :][:size])
                rng = np.random.default_rng([*seed, batch])
                ids = order[batch * size :][:size]
                rewards += self._train_batch(ids, features, rng)
                if interrupted.is_set():
                    return {"batches": batch + 1, "rewards": rewards}
        return {"batches": self.batches, "rewards": rewards}

    def summary(self, progress: Progress) -> dict[str, float]:
        """The mean reward, without the penalty on overuse."""
        return {"reward": progress["rewards"] / progress["batches"]}

    def validate(self) -> dict[str, float]:
        """`judge` on each data set by itself, with its own document frequencies; the mean over the
        data sets comes first."""
        judged = {
            name: judge(self.greedy, part, self.val_rewards[name])
            for name, part in self.context.per_dataset().items()
        }
        means = {
            key: float(np.mean([found[key] for found in judged.values()]))
            for key in ("val_cider", "val_distinct")
        }
        each = {f"{key}/{name}": found[key] for name, found in judged.items() for key in means}
        return means | (each if len(judged) > 1 else {})

    def score(self, epoch: dict[str, float]) -> float:
        """The CIDEr-D of validation captions."""
        return epoch["val_cider"]

    def _features(self, cache: FeatureCache | ViewsInTurn, ids: Sequence[str]) -> Any:
        """The features of a batch, (batch, locations, channels). Under JAX they are on the device,
        because they are needed there twice: to sample and to train."""
        resident = self.context.resident
        if resident is not None:
            return resident.pool[resident.seen_by(cache).gather(ids)]
        features = cache.gather(ids)
        return backend.on_device(features) if compiles_whole_steps() else features

    def _train_batch(self, ids: Sequence[str], features: Any, rng: np.random.Generator) -> float:
        """Takes one step on the images. Returns the mean reward of their samples."""
        # Each image has its own random numbers: with shared ones, the samples would be correlated.
        shape = (len(ids), self.options.rows, self.options.max_words + 1)
        draws = rng.random(shape, np.float32)
        words = decode(self.loop, features, self.options, draws=draws).words
        scores = self.reward.scores(ids, words)
        reward = scores - self.training.cider_overuse * self.overuse.penalties(words)
        samples = reward.shape[1]
        advantage = (reward - reward.mean(axis=1, keepdims=True)) * samples / (samples - 1)
        self._step(features, words, advantage.astype(np.float32))
        return float(scores.mean())

    def _step(self, features: Any, words: np.ndarray, advantage: np.ndarray) -> None:
        # If the training has diverged, no sample has words. `run_epochs` says so after the epoch.
        longest = max(1, int((words != PAD).sum(axis=-1).max()))
        if wants_few_shapes():
            longest = words.shape[-1]
        targets = words[:, :, :longest]  # (batch, captions, steps)
        start = np.full_like(targets[:, :, :1], START)
        inputs = np.concatenate([start, targets[:, :, :-1]], axis=-1)
        x = {"features": features, "words": inputs}
        self.model.train_on_batch(x, targets, sample_weight=advantage)


def judge(
    loop: DecodingLoop, context: RunContext, reward: CiderD, batch_size: int = 32
) -> dict[str, float]:
    """The mean CIDEr-D of greedy validation captions, and the share of distinct captions, both in
    percent. This needs no Java. `loop` must decode with `GREEDY`."""
    records, cache = context.val, context.cache
    scores: list[float] = []
    distinct = set()
    for start in range(0, len(records), batch_size):
        ids = [r.image_id for r in records[start : start + batch_size]]
        features = cache.gather(ids)
        # The last, smaller batch is filled up, because another shape would have to be compiled.
        missing = [(0, batch_size - len(ids)), (0, 0), (0, 0)]
        words = decode(loop, np.pad(features, missing), GREEDY).words[: len(ids)]
        scores += reward.scores(ids, words)[:, 0].tolist()
        distinct |= {w.tobytes() for w in words}
    return {
        "val_cider": 100 * float(np.mean(scores)),
        "val_distinct": 100 * len(distinct) / len(records),
    }
