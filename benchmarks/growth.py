"""How does the cost of training grow with the number of images, and up to where is it linear?

    python benchmarks/growth.py --data-dir FLICKR8K --features CACHE [--images 6000]

CACHE is a feature cache of the data set that `train.py` made (`OUTPUT/features`). If more images
are needed, its shards are copied under other image ids. Each number of images is trained on in a
process of its own, for a few steps to compile and then for one whole epoch. The program prints the
table of `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checkout  # noqa: F401 - finds the package
import numpy as np

WARM_UP = 24  # batches, which have captions of all lengths


@dataclass(frozen=True)
class Cost:
    images: int
    captions: int
    opening: float  # seconds to open the cache, with all of it hashed
    preparing: float  # seconds until the epoch's first batch can be read
    epoch: float  # seconds
    peak: float  # MB at most, with the pages of the cache
    own: float  # MB at the end of the epoch, without these pages


def choose(data_dir: Path, features: Path, images: int) -> tuple[list, list[Path]]:
    """Training records, and the index files of the shards with their features."""
    from captioner.data.datasets import read_dataset

    train = {r.image_id: r for r in read_dataset("flickr8k", data_dir) if r.split == "train"}
    records, index_files = [], []
    for index_file in sorted(features.glob("shard-*.json")):
        found = [train[i] for i in json.loads(index_file.read_text())["ids"] if i in train]
        if found and len(records) < images:
            index_files.append(index_file)
            records += found[: images - len(records)]
    return records, index_files


def add_copy(number: int, index_files: list[Path], folder: Path) -> None:
    """Writes copies of shards for images called "ID~NUMBER"."""
    from captioner.model.feature_cache import write_shard

    for index_file in index_files:
        ids = json.loads(index_file.read_text())["ids"]
        array = np.load(index_file.with_suffix(".npy"), mmap_mode="r")
        write_shard(folder, {f"{i}~{number}": None for i in ids}, np.asarray(array))


def measure(records: list, features: Path, batch_size: int | None) -> Cost:
    from captioner.allocator import keep_freed_memory
    from captioner.config import ModelConfig, TrainingConfig
    from captioner.data.vocabulary import Vocabulary
    from captioner.model.backend import compiles_whole_steps
    from captioner.model.caption_model import CaptionModel
    from captioner.model.feature_cache import FeatureCache, Stamp
    from captioner.training.batches import CaptionBatches
    from captioner.training.cross_entropy import make_optimizer

    keep_freed_memory()
    training = TrainingConfig(**({"batch_size": batch_size} if batch_size else {}))
    start = time.perf_counter()
    cache = FeatureCache(features, Stamp(**json.loads((features / "stamp.json").read_text())))
    opening = time.perf_counter() - start
    vocabulary = Vocabulary.build((c for r in records for c in r.captions), 5000)
    _, locations, channels = cache.gather([records[0].image_id]).shape
    side = round(locations**0.5)
    sizes = {"rows": side, "columns": side, "channels": channels}
    model = CaptionModel(ModelConfig(len(vocabulary), **sizes))
    model.compile(optimizer=make_optimizer(training, 1000), jit_compile=compiles_whole_steps())
    few = records[: WARM_UP * training.batch_size]
    model.fit(CaptionBatches(few, cache, vocabulary, training, 0), shuffle=False, verbose=0)
    start = time.perf_counter()
    batches = CaptionBatches(records, cache, vocabulary, training, 1)
    _ = batches.order  # which would otherwise be made within the epoch
    preparing = time.perf_counter() - start
    start = time.perf_counter()
    model.fit(batches, shuffle=False, verbose=0)
    epoch = time.perf_counter() - start
    captions = sum(len(row) for _, packed in batches.order for rows in packed for row in rows)
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's
    peak, own = (
        int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1000 for name in ("VmHWM", "RssAnon")
    )
    return Cost(len(records), captions, opening, preparing, epoch, peak, own)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--images", type=int, default=6000, help="real ones, to train on")
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch-size", type=int, help="images; default: that of train.py")
    parser.add_argument("--work", type=Path, help="where the copies go (default: beside CACHE)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    real, index_files = choose(options.data_dir, options.features, options.images)
    if options.measure:
        records = [
            replace(r, image_id=f"{r.image_id}~{n}") for n in range(options.times) for r in real
        ]
        print(json.dumps(vars(measure(records, options.measure, options.batch_size))))
        return
    costs = []
    place = options.work or options.features.parent
    with tempfile.TemporaryDirectory(prefix="growth-", dir=place) as name:
        folder = Path(name)
        (folder / "stamp.json").write_bytes((options.features / "stamp.json").read_bytes())
        there = 0
        for multiple in sorted(options.multiples):
            for number in range(there, multiple):
                add_copy(number, index_files, folder)
            there = multiple
            command = [sys.executable, __file__, *sys.argv[1:]]
            command += ["--measure", str(folder), "--times", str(multiple)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            costs.append(Cost(**json.loads(done.stdout.splitlines()[-1])))
            print(costs[-1], file=sys.stderr, flush=True)
    print_table(costs)


def print_table(costs: list[Cost]) -> None:
    print(
        "| images | captions/s | an epoch, s | opening the cache, s | ordering an epoch, s "
        "| peak memory, MB | ... without the cache's pages, MB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for c in costs:
        print(
            f"| {c.images:,} | {c.captions / c.epoch:.0f} | {c.epoch:.0f} | {c.opening:.1f} "
            f"| {c.preparing:.1f} | {c.peak:,.0f} | {c.own:,.0f} |"
        )


if __name__ == "__main__":
    main()
