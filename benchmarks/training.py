"""How fast are training and captioning, compared with the tutorial this architecture comes from?

    python benchmarks/training.py --data-dir FLICKR8K --features CACHE

CACHE is a feature cache of the data set that `train.py` made (`OUTPUT/features`). All contenders
use the same features and captions of the same images. They take turns, each in a process of its
own, and each turn trains on the same number of captions. The program prints its tables.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checkout  # noqa: F401 - finds the package
import numpy as np

from captioner.allocator import keep_freed_memory

CAPTIONS = 1600  # captions per turn: 25 batches of the tutorial, 10 of ours
TUTORIALS = {
    "tutorial": {},
    "+ keys once": {"keys_once": True},
    "+ one output product": {"keys_once": True, "project_once": True},
    "+ padding to the batch": {"keys_once": True, "project_once": True, "fit_padding": True},
    "+ freed memory kept": {"keys_once": True, "project_once": True, "fit_padding": True},
}
OURS = "ours (+ encoder shared, captions packed, words' input once, one loop)"
BEST = "ours, sizes and vocabulary of the recipe `best`"
JAX = "... the same under JAX"
CONTENDERS = (*TUTORIALS, OURS, BEST, JAX)
KEEPING = ("+ freed memory kept", OURS, BEST, JAX)


def load(data_dir: Path, features: Path):
    from captioner.data.datasets import read_dataset
    from captioner.data.vocabulary import Vocabulary
    from captioner.model.feature_cache import FeatureCache, Stamp

    stamp = Stamp(**json.loads((features / "stamp.json").read_text()))
    cache = FeatureCache(features, stamp)
    records = [r for r in read_dataset("flickr8k", data_dir) if r.split == "train"]
    captions = [c for r in records for c in r.captions]
    vocabularies = [Vocabulary.build(captions, 5000, least) for least in (1, best_recipe()[1])]
    return cache, [r for r in records if r.image_id in cache], *vocabularies


def best_recipe() -> tuple[dict, int]:
    """The fields of `ModelConfig` in the recipe `best`, and how often a word must occur in it."""
    from captioner.training.recipes import RECIPES

    recipe = RECIPES["best"]
    return recipe.model, recipe.training["min_count"]


def grid() -> dict[str, int]:
    """The sizes of the features, as fields of `ModelConfig`."""
    from captioner.model.backbones import BACKBONES, DEFAULT, model_sizes

    return model_sizes(BACKBONES[DEFAULT].shape)


def gflop(vocabulary: int, steps: float, mended: dict, shared: int = 1, **sizes: int) -> float:
    """The operations of a training step's matrix products per caption, in billions.

    Each multiplication counts as two operations, and the gradients as two forward passes.
    """
    attention = sizes.get("attention_units", 512)
    # The widths of the layer below the logits, at its input and its output.
    wide, narrow = (512 + 2 * 256, 256) if sizes.get("deep_output") else (512, 512)
    encoder = 64 * 2048 * 256 / shared
    keys = 64 * 256 * attention / shared * (1 if mended.get("keys_once") else steps)
    word = 512 * attention + (512 + 512) * 3 * 512 + (wide + vocabulary) * narrow
    return 6 * (encoder + keys + steps * word) / 1e9


def tutorial_turns(name: str, records, longest: int, cache, vocabulary, folder: Path):
    """Yields captions per second, after training on CAPTIONS captions each time."""
    import tensorflow as tf

    from benchmarks.tutorial import Tutorial, Variant, batches, train_step
    from captioner.data.vocabulary import END, START

    variant = Variant(**TUTORIALS[name])
    pairs = []
    for r in records:
        path = folder / f"{r.image_id}.npy"
        if not path.exists():
            np.save(path, cache.gather([r.image_id])[0].astype(np.float32))
        pairs += [(path, [START, *vocabulary.encode(c), END]) for c in r.captions]
    model = Tutorial(len(vocabulary), variant)
    step = train_step(model)
    while True:
        data, done, start = batches(pairs, variant, longest), 0, time.perf_counter()
        for features, captions in data:
            loss = step(features, captions)
            done += len(captions)
            if done >= CAPTIONS:
                break
        float(tf.convert_to_tensor(loss))
        yield done / (time.perf_counter() - start)


def our_turns(records, cache, vocabulary, sizes: dict):
    from captioner.config import ModelConfig, TrainingConfig
    from captioner.model.backend import compiles_whole_steps
    from captioner.model.caption_model import CaptionModel
    from captioner.training.batches import CaptionBatches
    from captioner.training.cross_entropy import make_optimizer

    training = TrainingConfig()
    model = CaptionModel(ModelConfig(len(vocabulary), **grid(), **sizes))
    model.compile(optimizer=make_optimizer(training, 100), jit_compile=compiles_whole_steps())
    count = CAPTIONS // training.captions_per_image
    while True:  # the same epoch each time, because batches of other shapes would be compiled
        data = CaptionBatches(records[:count], cache, vocabulary, training, epoch=0)
        start = time.perf_counter()
        model.fit(data, epochs=1, shuffle=False, verbose=0)
        yield CAPTIONS / (time.perf_counter() - start)


def padded_steps(records, cache, vocabulary) -> float:
    """The words per caption in our batches, including padding."""
    from captioner.config import TrainingConfig
    from captioner.training.batches import CaptionBatches

    data = CaptionBatches(records, cache, vocabulary, TrainingConfig(), epoch=0)
    return sum(data[i][1].size for i in range(len(data))) / sum(len(r.captions) for r in records)


def waiting_share(records, cache, vocabulary) -> float:
    """The seconds to read a batch from the cache, which a thread does during the step before.

    A training step waits at most as long as this.
    """
    from captioner.config import TrainingConfig
    from captioner.training.batches import CaptionBatches

    data = CaptionBatches(records, cache, vocabulary, TrainingConfig(), epoch=1)
    _ = data.order  # made once per epoch, not for each batch
    start = time.perf_counter()
    for i in range(min(10, len(data))):
        data[i]
    return (time.perf_counter() - start) / min(10, len(data))


def generation(records, cache, vocabulary, rounds: int) -> dict[str, list[float]]:
    """The seconds for 10 samples of 20 words of one image, from its features."""
    from benchmarks.tutorial import Tutorial, Variant, generate
    from captioner import DecodingOptions
    from captioner.config import ModelConfig
    from captioner.data.vocabulary import START
    from captioner.model.caption_model import CaptionModel
    from captioner.model.decoding import DecodingLoop, chooser_for, decode

    features = cache.gather([records[0].image_id])
    tutorial = Tutorial(len(vocabulary), Variant())
    options = DecodingOptions("sample", num_captions=10, temperature=1.0, max_words=20)
    model = CaptionModel(ModelConfig(len(vocabulary), **grid()))
    loop = DecodingLoop(model, chooser_for(options), options.rows)
    decode(loop, features, options)
    seconds: dict[str, list[float]] = {"tutorial": [], "ours": []}
    for _ in range(rounds):
        start = time.perf_counter()
        generate(tutorial, features[0].astype(np.float32), 10, START, 20)
        seconds["tutorial"].append(time.perf_counter() - start)
        start = time.perf_counter()
        decode(loop, features, options)
        seconds["ours"].append(time.perf_counter() - start)
    return seconds


class Contender:
    """A process that trains for a turn whenever it is asked to."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--data-dir", options.data_dir, "--features"]
        command += [options.features, "--contender", name]
        backend = {"KERAS_BACKEND": "jax"} if name == JAX else {}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=os.environ | backend
        )
        self.turn()  # compiles

    def turn(self) -> float:
        """Trains for a turn. Returns captions per second."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> float:
        """Ends the process. Returns its peak memory in MB."""
        peak, _ = self.process.communicate()
        return float(peak)


def take_turns(turns: Iterator[float]) -> None:
    """Runs the process of a `Contender`.

    The pages of mapped files, here of the cache, do not count as memory, because the system can
    take them back.
    """
    peak, done = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(0.01):
            status = Path("/proc/self/status").read_text()
            peak = max(peak, int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]))

    thread = threading.Thread(target=look)
    thread.start()
    for _ in sys.stdin:
        print(next(turns), flush=True)
    done.set()
    thread.join()
    print(peak / 1000)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="only compare the tutorial and the recipe"
    )
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


def contend(name: str, records, longest: int, cache, vocabulary, smaller) -> None:
    """Takes the turns of one contender, in a process of its own."""
    if name in KEEPING:
        keep_freed_memory()
    if name in TUTORIALS:
        with tempfile.TemporaryDirectory() as folder:
            take_turns(tutorial_turns(name, records, longest, cache, vocabulary, Path(folder)))
    elif name == OURS:
        plain = {"initial_state": "zeros", "gate": False, "deep_output": False, "dropout": 0.0}
        take_turns(our_turns(records, cache, vocabulary, plain))
    else:
        take_turns(our_turns(records, cache, smaller, best_recipe()[0]))


def race(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The captions per second of each turn, and the peak memory in MB, of each contender."""
    names = ("tutorial", BEST) if options.quick else CONTENDERS
    contenders = {name: Contender(name, options) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            rates[name].append(contender.turn())
    return rates, {name: contender.end() for name, contender in contenders.items()}


def operations(records, longest: int, cache, vocabulary, smaller) -> dict[str, float]:
    """GFLOP per caption of each contender."""
    lengths = [len(vocabulary.encode(c)) + 1 for r in records for c in r.captions]
    words = longest - 1  # steps of the longest caption, to which all others are padded
    own, ours = float(np.mean(lengths)), padded_steps(records, cache, vocabulary)
    flop = {
        name: gflop(len(vocabulary), own if mended.get("fit_padding") else words, mended)
        for name, mended in TUTORIALS.items()
    }
    flop[OURS] = gflop(len(vocabulary), ours, {"keys_once": True}, 5)
    flop[BEST] = flop[JAX] = gflop(
        len(smaller), ours, {"keys_once": True}, 5, deep_output=True, **best_recipe()[0]
    )
    return flop


def print_table(
    rates: dict[str, list[float]], peaks: dict[str, float], flop: dict[str, float]
) -> None:
    heads = ("training", "captions/s, median", "min - max", "ratio", "peak memory, MB", "ratio")
    heads += ("GFLOP per caption", "ratio")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    first = "tutorial"
    slowest = statistics.median(rates[first])
    for name, r in rates.items():
        median = statistics.median(r)
        print(
            f"| {name} | {median:.0f} | {min(r):.0f} - {max(r):.0f} | {median / slowest:.1f} "
            f"| {peaks[name]:,.0f} | {peaks[name] / peaks[first]:.2f} "
            f"| {flop[name]:.2f} | {flop[first] / flop[name]:.1f} |"
        )


def main() -> None:
    options = parse()
    cache, records, vocabulary, smaller = load(options.data_dir, options.features)
    longest = 2 + max(len(vocabulary.encode(c)) for r in records for c in r.captions)
    records = records[: CAPTIONS // 5]
    if options.contender:
        contend(options.contender, records, longest, cache, vocabulary, smaller)
        return
    rates, peaks = race(options)
    print_table(rates, peaks, operations(records, longest, cache, vocabulary, smaller))
    keep_freed_memory()
    batch = 160 / statistics.median(rates[BEST])
    print(f"\nReading a batch: {waiting_share(records, cache, vocabulary) / batch:.1%} of a step.")
    seconds = generation(records, cache, vocabulary, options.rounds)
    slow, fast = (statistics.median(seconds[k]) for k in ("tutorial", "ours"))
    print(
        f"10 samples of an image: tutorial {slow:.3f} s, ours {fast:.4f} s, ratio {slow / fast:.0f}"
    )
    print(f"Disk per image: tutorial {64 * 2048 * 4 + 128} bytes, ours {64 * 2048 * 2} bytes")


if __name__ == "__main__":
    main()
