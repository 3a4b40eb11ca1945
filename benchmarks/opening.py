"""How long does a feature cache take to open: hashed by one thread, by all, and not hashed?

    python benchmarks/opening.py --features CACHE

The program measures both a cache that the system must read from the disk ("cold") and one that is
in memory. It changes nothing in CACHE except `verified.jsonl`, which it writes again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checkout  # noqa: F401 - finds the package
import numpy as np

from captioner.model.feature_cache import VERIFIED, FeatureCache, Stamp


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    folder = options.features
    stamp = Stamp(**json.loads((folder / "stamp.json").read_text()))

    def one_thread() -> None:
        for path in folder.glob("shard-*.npy"):
            hashlib.sha256(np.ascontiguousarray(np.load(path, mmap_mode="r")).data).hexdigest()

    def first_time() -> None:
        (folder / VERIFIED).unlink(missing_ok=True)
        FeatureCache(folder, stamp)

    def again() -> None:
        FeatureCache(folder, stamp)

    rows: dict[str, Callable[[], None]] = {
        "one thread, at every opening (before)": one_thread,
        f"{os.cpu_count()} threads, the first time": first_time,
        "every further time": again,
    }
    print("| hashed by | cold, s | in memory, s |\n| --- | --- | --- |")
    for name, call in rows.items():
        cold = [timed(call, evict, folder) for _ in range(options.rounds)]
        warm = [timed(call, lambda _: None, folder) for _ in range(options.rounds)]
        cells = (" - ".join(f"{t:.2f}" for t in (min(ts), max(ts))) for ts in (cold, warm))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def timed(call: Callable[[], None], before: Callable[[Path], None], folder: Path) -> float:
    before(folder)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def evict(folder: Path) -> None:
    """Asks the system to drop the shards from memory, unless another program uses them."""
    for path in folder.glob("shard-*.npy"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


if __name__ == "__main__":
    main()
