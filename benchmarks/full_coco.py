"""Can a run on all of COCO start within a minute, and does it fit into memory?

    python benchmarks/full_coco.py [--images 118287] [--channels 16]

The program writes made-up features with few channels for all photos and their mirror images. Then
it opens both caches, orders an epoch and reads all its batches, as `train.py` does. It prints the
processor time of all threads in seconds, and the memory. With all 2048 channels, only the number of
bytes that are read would be larger.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json

import checkout  # noqa: F401 - finds the package
import numpy as np

from captioner.config import TrainingConfig
from captioner.data.datasets import Record
from captioner.data.vocabulary import Vocabulary
from captioner.model.feature_cache import FeatureCache, Stamp, write_shard
from captioner.model.features import SHARD_IMAGES
from captioner.training.batches import CaptionBatches
from captioner.training.views import ViewsInTurn

STAMP = Stamp("made up", "0" * 64, 299)
clock = time.process_time  # other programs on the machine do not count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    words = [f"word{i}" for i in range(9000)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folders = (Path(name), Path(name) / "mirrored")
        for folder in folders:
            write_cache(folder, options.images, options.channels, random)
        records = [
            Record(str(i), Path(f"{i}.jpg"), captions(random, words), "train")
            for i in range(options.images)
        ]
        start = clock()
        caches = [FeatureCache(folder, STAMP) for folder in folders]
        rows.append(("opening both caches, all of it hashed", clock() - start))
        start = clock()
        vocabulary = Vocabulary.build((c for r in records for c in r.captions), 5000, 5)
        rows.append(("the vocabulary", clock() - start))
        training, encoded = TrainingConfig(batch_size=options.batch_size), {}
        for epoch in (0, 1):
            start = clock()
            view = ViewsInTurn(caches, seed=0, epoch=epoch)
            batches = CaptionBatches(records, view, vocabulary, training, epoch, encoded=encoded)
            rows.append((f"epoch {epoch}: captions encoded", clock() - start))
            start = clock()
            _ = batches.order
            rows.append((f"epoch {epoch}: ordering it", clock() - start))
        start = clock()
        for number in range(len(batches)):
            _ = batches[number]
        seconds = clock() - start
    rows.append((f"reading its {len(batches):,} batches, by one thread", seconds))
    print("| what | seconds |\n| --- | --- |")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.1f} |")
    status = Path("/proc/self/status").read_text()
    peak, own = (int(re.search(rf"{n}:\s+(\d+)", status)[1]) / 1e6 for n in ("VmHWM", "RssAnon"))
    print(f"\nPeak memory {peak:.1f} GB with the caches' pages, {own:.1f} GB without.")


def write_cache(folder: Path, images: int, channels: int, random: np.random.Generator) -> None:
    """Writes a cache of random features."""
    folder.mkdir(exist_ok=True)
    (folder / "stamp.json").write_text(json.dumps(asdict(STAMP)))
    for start in range(0, images, SHARD_IMAGES):
        ids = range(start, min(start + SHARD_IMAGES, images))
        features = random.random((len(ids), 64, channels), np.float32).astype(np.float16)
        write_shard(folder, {str(i): None for i in ids}, features)


def captions(random: np.random.Generator, words: list[str]) -> tuple[str, ...]:
    chosen = (random.pareto(1.0, 60) * 20).astype(int) % len(words)
    ends = np.cumsum(random.integers(8, 14, 5))
    return tuple(" ".join(words[i] for i in part) for part in np.split(chosen, ends)[:5])


if __name__ == "__main__":
    main()
