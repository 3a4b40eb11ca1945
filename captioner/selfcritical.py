"""Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563) on CIDEr-D.

After cross-entropy has taught the model to speak, it speaks for itself: several captions of each
image are sampled, and words of captions that score above the image's others are made more probable.
The baseline is the mean of an image's other samples (Luo 2020, arXiv 2003.09971), so no second
decoding is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from tqdm import tqdm

from captioner.config import TrainingConfig
from captioner.datasets import Record
from captioner.decoding import DecodingOptions, Generator, choosers, decode
from captioner.features import FeatureCache
from captioner.model import CaptionModel
from captioner.rewards import CiderD
from captioner.vocabulary import END, PAD, START, Vocabulary


def make_reward(records: Sequence[Record], vocabulary: Vocabulary) -> CiderD:
    """CIDEr-D against the captions of `records`, the end of a caption counted as a word."""
    return CiderD({r.image_id: [[*vocabulary.encode(c), END] for c in r.captions] for r in records})


class SelfCritic:
    """Trains `model`, which should have no dropout: what is sampled is then what is trained."""

    def __init__(
        self,
        model: CaptionModel,
        records: Sequence[Record],
        cache: FeatureCache,
        vocabulary: Vocabulary,
        training: TrainingConfig,
    ) -> None:
        self.model = model
        self.ids = [r.image_id for r in records]
        self.cache = cache
        self.training = training
        self.reward = make_reward(records, vocabulary)
        self.options = DecodingOptions(
            "sample", num_captions=training.captions_per_image, temperature=1.0
        )
        self.generator = Generator(model, choosers(self.options), self.options.rows)

    def train_epoch(self, epoch: int) -> float:
        """One pass over the images, in an order and with samples that depend on seed and epoch
        alone. Returns the mean reward of the samples."""
        size = self.training.batch_size
        rng = np.random.default_rng([self.training.seed, epoch, 1])
        order = rng.permutation(len(self.ids))
        # The last, smaller batch is left out: another epoch brings its images again.
        batches = [order[i : i + size] for i in range(0, len(order) - size + 1, size)] or [order]
        rewards = []
        for rows in tqdm(batches, unit="batch", desc=f"CIDEr epoch {epoch + 1}", disable=None):
            ids = [self.ids[row] for row in rows]
            features = self.cache.gather(ids)
            seed = int(rng.integers(2**31))
            words = decode(self.generator, features, self.options, seed=seed).words
            reward = np.stack(
                [self.reward.scores(i, _spoken(w)) for i, w in zip(ids, words, strict=True)]
            )
            rewards.append(reward.mean())
            samples = reward.shape[1]
            advantage = (reward - reward.mean(axis=1, keepdims=True)) * samples / (samples - 1)
            self._step(features, words, advantage.astype(np.float32))
        return float(np.mean(rewards))

    def _step(self, features: np.ndarray, words: np.ndarray, advantage: np.ndarray) -> None:
        longest = int((words != PAD).sum(axis=-1).max())
        if keras.backend.backend() == "jax":
            longest = words.shape[-1]  # every new shape is compiled: have one
        targets = words[:, :, :longest]  # (batch, captions, steps)
        start = np.full_like(targets[:, :, :1], START)
        inputs = np.concatenate([start, targets[:, :, :-1]], axis=-1)
        x = {"features": features, "words": inputs}
        self.model.train_on_batch(x, targets, sample_weight=advantage)


def mean_cider(
    model: CaptionModel,
    records: Sequence[Record],
    cache: FeatureCache,
    reward: CiderD,
    batch_size: int = 32,
) -> float:
    """Mean CIDEr-D of greedy captions, in percent: for choosing the best epoch, without Java."""
    options = DecodingOptions("greedy")
    generator = Generator(model, choosers(options), options.rows)
    scores: list[float] = []
    for start in range(0, len(records), batch_size):
        ids = [r.image_id for r in records[start : start + batch_size]]
        words = decode(generator, cache.gather(ids), options).words
        scores += [reward.scores(i, _spoken(w))[0] for i, w in zip(ids, words, strict=True)]
    return 100 * float(np.mean(scores))


def _spoken(words: np.ndarray) -> list[list[int]]:
    """The ids of each row up to the end, which is included."""
    return [[int(i) for i in row if i != PAD] for row in words]
