"""Does the network have to wait for photos to be decoded?

    python benchmarks/extraction.py --images DIR --backbone-weights FILE

The program compares three things, which take turns in one process, and prints a table: `extract` of
`captioner.model.features` (read, hash, decode, resize, network, shards on disk); the bare network
on batches that are ready in memory; and the network as published, without its normalisations folded
into its convolutions.

With `--deviation` it prints instead how far features are from those in float32 when convolutions
multiply in bfloat16 (`training.mixed_extraction`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import checkout  # noqa: F401 - finds the package
import keras
import numpy as np

from captioner.data.datasets import Record
from captioner.data.images import load_image, to_square
from captioner.model.backbone import build_backbone
from captioner.model.features import FeatureExtractor, extract

BARE = "bare network"


def deviation(backbone: keras.Model, photos: np.ndarray, batch_size: int = 8) -> str:
    """How far features in bfloat16 are from those in float32, in a sentence."""
    exact, mixed = (
        np.concatenate(
            [
                extractor.padded(photos[i : i + batch_size])
                for i in range(0, len(photos), batch_size)
            ]
        ).astype(np.float64)
        for extractor in (
            FeatureExtractor(backbone, batch_size, mixed_precision=m) for m in (False, True)
        )
    )
    apart = np.abs(mixed - exact)
    lengths = np.linalg.norm(exact, axis=-1) * np.linalg.norm(mixed, axis=-1)
    cosines = (exact * mixed).sum(axis=-1) / lengths
    return (
        f"{len(photos)} photos: bfloat16 features are {apart.mean() / exact.mean():.2%} of their "
        f"mean away from those in float32, at most {apart.max() / exact.max():.2%} of the largest. "
        f"The cosine of a place's two vectors is {cosines.mean():.5f} in the mean, at least "
        f"{cosines.min():.5f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--backbone-weights", default="imagenet")
    parser.add_argument("--count", type=int, default=256, help="photos per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deviation", action="store_true", help="of features in bfloat16")
    options = parser.parse_args()

    backbone = build_backbone(options.backbone_weights)
    paths = sorted(options.images.glob("*.jpg"))[: options.count]
    if options.deviation:
        photos = np.stack([to_square(load_image(p), backbone.input_shape[1]) for p in paths])
        print(deviation(backbone, photos))
        return
    extractor = FeatureExtractor(backbone)
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
