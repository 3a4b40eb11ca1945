"""How long do the rewards of a batch take, with n-grams as whole numbers or as tuples?

    python benchmarks/rewards.py --data-dir FLICKR8K

The batches are like those of self-critical training. Each has five captions of 32 training photos
of Flickr8k; here they are the photo's references, each with its end replaced by that of another
photo's caption. The two ways take turns, and their rewards must agree to 1e-9. The times are
processor times, so other programs do not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import checkout  # noqa: F401 - finds the package
import dictionary_rewards as plain
import numpy as np

from captioner.data.datasets import read_dataset
from captioner.data.vocabulary import END, PAD, Vocabulary
from captioner.training.rewards import CiderD, Overuse, padded

OVERUSE = 0.2  # its weight in the recipe "best"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=40)
    options = parser.parse_args()
    records = [r for r in read_dataset("flickr8k", options.data_dir) if r.split == "train"]
    vocabulary = Vocabulary.build((c for r in records for c in r.captions), min_count=5)
    references = {r.image_id: [[*vocabulary.encode(c), END] for c in r.captions] for r in records}

    start = time.thread_time()
    reward = CiderD(references)
    overuse = Overuse(reward.ngrams)
    print(f"references, once: {time.thread_time() - start:.1f} s as whole numbers,", end=" ")
    start = time.thread_time()
    plain_reward, plain_overuse = plain.CiderD(references), plain.Overuse(references)
    print(f"{time.thread_time() - start:.1f} s as tuples")

    def by_numbers(ids: list[str], words: np.ndarray) -> np.ndarray:
        return reward.scores(ids, words) - OVERUSE * overuse.penalties(words)

    def by_tuples(ids: list[str], words: np.ndarray) -> np.ndarray:
        spoken = [[[int(i) for i in row if i != PAD] for row in some] for some in words]
        scores = [plain_reward.scores(i, s) for i, s in zip(ids, spoken, strict=True)]
        return np.stack(scores) - OVERUSE * plain_overuse.penalties(spoken)

    rng, seconds, ratios = np.random.default_rng(0), {"numbers": [], "tuples": []}, []
    for _ in range(options.batches):
        ids, words = batch(references, options.batch_size, rng)
        found = []
        for name, rewards in (("numbers", by_numbers), ("tuples", by_tuples)):
            start = time.thread_time()
            found.append(rewards(ids, words))
            seconds[name].append(time.thread_time() - start)
        np.testing.assert_allclose(*found, atol=1e-9)
        ratios.append(seconds["tuples"][-1] / seconds["numbers"][-1])
    print("| n-grams as | ms of a processor per batch, median | min - max |\n| --- | --- | --- |")
    for name, times in seconds.items():
        low, high = 1000 * min(times), 1000 * max(times)
        print(f"| {name} | {1000 * statistics.median(times):.1f} | {low:.1f} - {high:.1f} |")
    print(f"ratio, median of {len(ratios)} batches: {statistics.median(ratios):.0f}")


def batch(
    references: dict[str, list[list[int]]], size: int, rng: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """A batch: photos, and five captions of each, (size, 5, steps)."""
    ids = rng.choice(list(references), size, replace=False).tolist()
    captions = []
    for image_id, other in zip(ids, reversed(ids), strict=True):
        for mine, theirs in zip(references[image_id][:5], references[other][:5], strict=True):
            at = int(rng.integers(len(mine)))
            captions.append([*mine[:at], *theirs[at:]])
    return ids, padded(captions).reshape(size, 5, -1)


if __name__ == "__main__":
    main()
