"""Does the network have to wait for photos to be decoded?

    python benchmarks/extraction.py --images DIR --backbone-weights FILE

The program compares three things, which take turns in one process, and prints a table: `extract` of
`captioner.model.features` (read, hash, decode, resize, network, shards on disk); the bare network
on batches that are ready in memory; and the network as published, without its normalisations folded
into its convolutions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from captioner.data.datasets import Record
from captioner.model.backbone import build_backbone
from captioner.model.features import FeatureExtractor, extract

BARE = "bare network"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--backbone-weights", default="imagenet")
    parser.add_argument("--count", type=int, default=256, help="photos per round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    extractor = FeatureExtractor(build_backbone(options.backbone_weights))
    paths = sorted(options.images.glob("*.jpg"))[: options.count]
    records = [Record(p.stem, p, (), "train") for p in paths]
    size = extractor.image_size
    ready = np.random.default_rng(0).uniform(-1, 1, (extractor.batch_size, size, size, 3))
    ready = ready.astype(np.float32)
    networks = {BARE: extractor.network, "as published": extractor.backbone}
    for network in networks.values():
        network.predict_on_batch(ready)  # compiles
    rates: dict[str, list[float]] = {name: [] for name in (*networks, "extract")}
    for _ in range(options.rounds):
        batches = max(1, len(paths) // extractor.batch_size)
        for name, network in networks.items():
            start = time.perf_counter()
            for _ in range(batches):
                network.predict_on_batch(ready)
            seconds = time.perf_counter() - start
            rates[name].append(batches * extractor.batch_size / seconds)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            extract(records, extractor, Path(folder))
            rates["extract"].append(len(records) / (time.perf_counter() - start))

    print("| | images/s, median | min | max |\n| --- | --- | --- | --- |")
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.1f} | {min(values):.1f} | {max(values):.1f} |")
    pairs = zip(rates["extract"], rates[BARE], strict=True)
    ratios = [a / b for a, b in pairs]
    print(
        f"\nextract / bare network, median of {len(ratios)} rounds: {statistics.median(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
