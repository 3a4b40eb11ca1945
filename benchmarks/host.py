"""How fast could a GPU be fed? The time that Python needs for the batches of training.

    python benchmarks/host.py

The program uses JAX on the CPU. It trains on as many images as Flickr8k has, with made-up captions,
tiny features, and a decoder of 4 units that knows 40 words, so that there is next to nothing to
compute. What remains is what Python does for each batch: it puts captions together, starts the
compiled programs, and computes rewards. The program prints how many captions or images that allows
in a second of processor time. JAX computes a part of these tiny steps in Python's thread, so that
the rates are lower bounds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}

import checkout  # noqa: F401 - finds the package
import keras
import numpy as np

from captioner.config import BackboneConfig, CaptionerConfig, ModelConfig, TrainingConfig
from captioner.data.records import Record
from captioner.data.vocabulary import Vocabulary
from captioner.model.backbones import DEFAULT
from captioner.model.caption_model import CaptionModel
from captioner.training.batches import CaptionBatches
from captioner.training.cross_entropy import RunContext, make_optimizer
from captioner.training.device_steps import DeviceSteps, calls
from captioner.training.finetuning import PhotoBatches
from captioner.training.recipes import RECIPES
from captioner.training.self_critical import SelfCriticalTrainer

WORDS = [f"word{number}" for number in range(40)]


class NoFeatures:
    """Takes the place of a feature cache, and gives two numbers for each image."""

    def __contains__(self, image_id: str) -> bool:
        return True

    def gather(self, image_ids: Sequence[str]) -> np.ndarray:
        """float16 (images, 2, 1)."""
        return np.zeros((len(image_ids), 2, 1), np.float16)


def made_up(count: int) -> list[Record]:
    """Records without photos, each with five captions that are as long as those of Flickr8k."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.normal(10.8, 3.8, (count, 5)).round(), 4, 30).astype(int)
    return [
        Record(str(i), Path(), tuple(" ".join(random.choice(WORDS, n)) for n in row), "train")
        for i, row in enumerate(lengths)
    ]


def context_for(records: list[Record], batch_size: int, output: Path) -> RunContext:
    """What the phases need, with the options of the recipe "best" and tiny sizes."""
    vocabulary = Vocabulary.build((c for r in records for c in r.captions), 100, 1)
    sizes = {name: 4 for name in ("embedding_dim", "units", "attention_units")}
    config = CaptionerConfig(
        ModelConfig(len(vocabulary), rows=1, columns=2, channels=1, **sizes),
        BackboneConfig(DEFAULT, 299),
        replace(TrainingConfig(**RECIPES["best"].training), batch_size=batch_size, mirror=False),
    )
    return RunContext(config, vocabulary, NoFeatures(), records, records[:100], output)


def prepare(batches: CaptionBatches) -> None:
    """Prepares the batches as for training, and does not train."""
    for _ in calls(batches):
        pass


def python_seconds(work: Callable[[], object]) -> float:
    """The processor time of Python's main thread during `work()`. Waiting does not count."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def measure(context: RunContext) -> dict[str, float]:
    """Seconds that an epoch takes, by part."""
    found = {}
    for name, kind in {"cross-entropy": CaptionBatches, "fine-tuning": PhotoBatches}.items():
        batches = context.batches(1, kind=kind)
        start = time.process_time()
        prepare(batches)
        found[f"{name}: preparing batches, all threads"] = time.process_time() - start
    model = CaptionModel(context.config.model)
    model.compile(make_optimizer(context.config.training, 1000), jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    steps = DeviceSteps(model)
    train = partial(steps.train, stop=lambda: False)
    train(context.batches(0))  # compiles
    seconds = python_seconds(lambda: train(context.batches(1)))
    found["cross-entropy: the thread that starts the steps"] = seconds

    model.compile(keras.optimizers.Adam(1e-5), jit_compile=True)
    trainer = SelfCriticalTrainer(model, context)
    stop = Event()
    stop.set()
    trainer.train_epoch(0, {}, stop)  # compiles, and stops after one batch
    seconds = python_seconds(lambda: trainer.train_epoch(1, {}, Event()))
    found["self-critical training: rewards, and starting the steps"] = seconds
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    records = made_up(options.images)
    with tempfile.TemporaryDirectory() as output:
        found = measure(context_for(records, options.batch_size, Path(output)))
    print("| what Python does | seconds per epoch | per second |\n| --- | --- | --- |")
    for part, seconds in found.items():
        captions = part.startswith("cross-entropy")
        rate = options.images * (5 if captions else 1) / seconds
        unit = "captions" if captions else "images"
        print(f"| {part} | {seconds:.2f} | {rate:,.0f} {unit} |")


if __name__ == "__main__":
    main()
