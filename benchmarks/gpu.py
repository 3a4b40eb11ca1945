"""How fast is each part of training on this machine? Made for a GPU, but it runs without one.

    python benchmarks/gpu.py [--data-dir FLICKR8K] --backbone-weights FILE [--json FILE]

The program uses JAX. It measures extraction, cross-entropy, self-critical training and fine-tuning,
each after a first round in which JAX compiles. Then it measures a whole run from photos to a
checkpoint. Without a data set, it makes artificial photos. The table has the rate of each part, the
share of the chip's peak performance in bfloat16 if that is known, and what the well-known
TensorFlow tutorial reports for its GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checkout  # noqa: F401 - finds the package
import keras
import numpy as np
from PIL import Image

from captioner.config import (
    BackboneConfig,
    CaptionerConfig,
    ModelConfig,
    TrainingConfig,
)
from captioner.data.datasets import Record, read_dataset
from captioner.data.vocabulary import Vocabulary
from captioner.model import backend
from captioner.model.backbone import build_backbone, convolution_flop, copy_of
from captioner.model.backbones import BACKBONES, DEFAULT
from captioner.model.caption_model import CaptionModel, EndToEndModel
from captioner.model.features import FeatureExtractor, extract
from captioner.training import finetuning, run
from captioner.training.cross_entropy import RunContext, make_optimizer
from captioner.training.device_steps import DeviceSteps
from captioner.training.recipes import RECIPES
from captioner.training.self_critical import SelfCriticalTrainer

TUTORIAL = 24_009 / 36.2  # captions per second: the captions and the seconds of its epoch
# Floating-point operations per second in bfloat16, without sparsity.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}


@dataclass(frozen=True)
class Measured:
    """The rate of a part of training, or the seconds that it took."""

    part: str
    amount: float
    unit: str
    flop: float  # floating-point operations per image or caption; 0 if they are not counted


def made_up(folder: Path, count: int) -> list[Record]:
    """Makes smooth pictures in `folder`, each with five captions of random words."""
    random, records = np.random.default_rng(0), []
    words = [f"word{i}" for i in range(1000)]
    for number in range(count):
        path = folder / f"{number}.jpg"
        colours = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        colours.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=85)
        captions = [" ".join(random.choice(words, random.integers(6, 16))) for _ in range(5)]
        split = "val" if number % 8 == 0 else "train"
        records.append(Record(str(number), path, tuple(captions), split))
    return records


def caption_flop(config: ModelConfig, words: float, captions: float) -> float:
    """The floating-point operations of training on one caption.

    The forward and the backward pass take three times as many as the forward pass alone.

    Args:
        config: The sizes of the model.
        words: The words of the caption.
        captions: The captions per image, which share the work that is done once per image.
    """
    dim, units, attention, places = (
        config.embedding_dim, config.units, config.attention_units, config.locations,
    )  # fmt: skip
    image = places * dim * (config.channels + attention)
    word = units * attention + places * (attention + dim) + 3 * units * (2 * dim + units)
    word += (units + 2 * dim) * config.output_dim + config.output_dim * config.vocabulary_size
    return 3 * 2.0 * (image / captions + words * word)


def measure(options: argparse.Namespace, records: list[Record], work: Path) -> list[Measured]:
    """Measures one part after the other, with the recipe "best"."""
    recipe = RECIPES["best"]
    training = replace(
        TrainingConfig(**recipe.training),
        batch_size=options.batch_size,
        mixed_precision=True,
        finetune_from=options.finetune_from,
        finetune_image_size=options.image_size,
        mirror=False,
    )
    start = time.perf_counter()
    backbone = build_backbone(options.backbone_weights, options.image_size)
    found = [Measured("building the network", time.perf_counter() - start, "s", 0)]
    extractor = FeatureExtractor(backbone, options.batch_size)
    mixed = FeatureExtractor(backbone, options.batch_size, mixed_precision=True)
    found.append(bare_extraction(extractor, options.rounds))
    found.append(bare_extraction(mixed, options.rounds))
    start = time.perf_counter()
    cache = extract(records, extractor, work / "features")
    seconds = time.perf_counter() - start
    found.append(Measured("extraction, from files", len(records) / seconds, "images/s", 0))

    train, val = ([r for r in records if r.split == split] for split in ("train", "val"))
    vocabulary = Vocabulary.build((c for r in train for c in r.captions), 5000, 1)
    sizes = dict(rows=backbone.output_shape[1], columns=backbone.output_shape[2])
    sizes |= {"channels": backbone.output_shape[3]} | recipe.model
    config = CaptionerConfig(
        ModelConfig(**{"vocabulary_size": len(vocabulary)} | sizes),
        BackboneConfig(DEFAULT, options.image_size),
        training,
    )
    context = RunContext(config, vocabulary, cache, train, val, work).on_device()
    model = CaptionModel(config.model, training.label_smoothing, mixed_precision=True)
    found.append(cross_entropy(model, context))
    found.append(self_critical(model, context))
    found.append(fine_tuning(model, backbone, context, options))
    found.append(whole_run(options, records, training, recipe.model, work / "output"))
    return found


def bare_extraction(extractor: FeatureExtractor, rounds: int) -> Measured:
    """Measures the network alone, on photos that are in memory. As in `extract`, a batch is begun
    before the features of the one before are fetched."""
    size = extractor.image_size
    photos = np.random.default_rng(0).integers(
        0, 256, (extractor.batch_size, size, size, 3), dtype=np.uint8
    )
    extractor.start(photos)()  # compiles
    start = time.perf_counter()
    wait = extractor.start(photos)
    for _ in range(rounds - 1):
        following = extractor.start(photos)
        wait()
        wait = following
    wait()
    rate = rounds * len(photos) / (time.perf_counter() - start)
    flop = convolution_flop(extractor.backbone.layers)
    name = "extraction in " + ("bfloat16" if extractor.mixed_precision else "float32")
    return Measured(f"{name}, photos in memory", rate, "images/s", flop)


def cross_entropy(model: CaptionModel, context: RunContext) -> Measured:
    """Measures an epoch of cross-entropy."""
    model.compile(make_optimizer(context.config.training, 1000), jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    steps = DeviceSteps(model)
    steps.train(context.batches(0), lambda: False)  # compiles
    batches = context.batches(1)
    start = time.perf_counter()
    steps.train(batches, lambda: False)
    seconds = time.perf_counter() - start
    captions = sum(len(row) for _, packed in batches.order for rows in packed for row in rows)
    lengths = [len(ids) for captions in batches.captions for ids in captions]
    per_image = captions / len(context.train)
    flop = caption_flop(context.config.model, float(np.mean(lengths)), per_image)
    return Measured("cross-entropy", captions / seconds, "captions/s", flop)


def self_critical(model: CaptionModel, context: RunContext) -> Measured:
    """Measures an epoch of self-critical training."""
    model.compile(keras.optimizers.Adam(1e-5), jit_compile=True)
    trainer = SelfCriticalTrainer(model, context)
    interrupted = Event()
    interrupted.set()
    trainer.train_epoch(0, {}, interrupted)  # compiles, and stops after one batch
    start = time.perf_counter()
    trainer.train_epoch(1, {}, Event())
    images = trainer.batches * context.config.training.batch_size
    rate = images / (time.perf_counter() - start)
    return Measured("self-critical training", rate, "images/s", 0)


def fine_tuning(
    model: CaptionModel, backbone: keras.Model, context: RunContext, options: argparse.Namespace
) -> Measured:
    """Measures an epoch of fine-tuning on a few photos."""
    student = copy_of(backbone, options.image_size, mixed_precision=True)
    first = BACKBONES[DEFAULT].first_layer(student, options.finetune_from)
    finetuning.thaw(student, first)
    both = EndToEndModel(student, model)
    both.compile(make_optimizer(context.config.training, 1000), jit_compile=True)
    both.optimizer.build(both.trainable_variables)
    steps = DeviceSteps(both)
    few = replace(context, train=context.train[: options.rounds * options.batch_size])
    few = finetuning.with_photos(few)
    steps.train(few.batches(0, kind=finetuning.PhotoBatches), lambda: False)  # compiles
    start = time.perf_counter()
    steps.train(few.batches(1, kind=finetuning.PhotoBatches), lambda: False)
    rate = len(few.train) / (time.perf_counter() - start)
    name = f"fine-tuning from {options.finetune_from}"
    # The backward pass takes twice as many, and ends at the first layer that is trained.
    flop = convolution_flop(student.layers) + 2 * convolution_flop(student.layers[first:])
    return Measured(name, rate, "images/s", flop)


def whole_run(
    options: argparse.Namespace,
    records: list[Record],
    training: TrainingConfig,
    sizes: dict,
    output: Path,
) -> Measured:
    """Measures a run with `--epochs` epochs of cross-entropy and one of self-critical training, on
    photos of the network's own size. Compiled programs that are kept from before make it faster."""
    start = time.perf_counter()
    settings = replace(training, epochs=options.epochs, cider_epochs=1, finetune_from="")
    given = run.RunOptions(
        "folder", output, options.backbone_weights, training=settings, model=sizes
    )
    run.run_training(records, given)
    name = f"from photos to a checkpoint, {options.epochs} + 1 epochs of {len(records)} photos"
    return Measured(name, time.perf_counter() - start, "s", 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, help="a folder with Flickr8k (default: artificial photos)"
    )
    parser.add_argument("--backbone-weights", default="imagenet", help="imagenet, or a file")
    parser.add_argument("--photos", type=int, default=4000, help="the most photos to use")
    parser.add_argument("--image-size", type=int, default=299)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5, help="of cross-entropy, in the whole run")
    parser.add_argument(
        "--rounds", type=int, default=20, help="batches for the network alone and for fine-tuning"
    )
    parser.add_argument("--finetune-from", default="mixed0")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args()
    if backend.name() != "jax":
        parser.error("this program measures JAX: unset KERAS_BACKEND, or set it to jax")
    import jax

    backend.keep_compiled()
    device = jax.devices()[0]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        records = made_up(work, options.photos) if options.data_dir is None else []
        if options.data_dir:
            found = read_dataset("flickr8k", options.data_dir)
            records = [r for r in found if r.split != "test"][-options.photos :]
        begin = time.perf_counter()
        measured = measure(options, records, work)
        seconds = time.perf_counter() - begin
    report(options, device, measured, seconds)


def report(
    options: argparse.Namespace, device: object, measured: list[Measured], seconds: float
) -> None:
    """Prints the table, and writes the JSON file."""
    peak = next((p for name, p in PEAK.items() if name in device.device_kind), None)
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    print(f"\n{device.device_kind}, {os.cpu_count()} CPU cores, batches of {options.batch_size}\n")
    print("| part | measured | TFLOP/s | share of the peak |\n| --- | --- | --- | --- |")
    for m in measured:
        rate = m.amount * m.flop
        share = f"{rate / peak:.1%}" if peak and rate else ""
        flops = f"{rate / 1e12:.2f}" if rate else ""
        print(f"| {m.part} | {m.amount:,.1f} {m.unit} | {flops} | {share} |")
    print(f"| the tutorial, as it reports for its GPU | {TUTORIAL:.0f} captions/s | | |")
    if memory:
        print(f"\nPeak memory of the device: {memory / 1e9:.1f} GB.")
    print(f"The measurements took {seconds:.0f} s.")
    if options.json:
        content = {"device": device.device_kind, "peak_flop_per_s": peak, "seconds": seconds}
        content |= {"peak_memory_bytes": memory, "tutorial_captions_per_s": TUTORIAL}
        content["measured"] = [asdict(m) for m in measured]
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
