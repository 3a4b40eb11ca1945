"""What training takes on this machine, part by part: made for a GPU, and runs without one.

    python benchmarks/gpu.py [--data-dir FLICKR8K] --backbone-weights FILE [--json FILE]

Under JAX it measures extraction, cross-entropy, self-critical training and fine-tuning, each after
a first round that compiles, and then a whole run from photos to a checkpoint. Without a data set
the photos are made up. Beside the rates stand the share of the chip's peak in bfloat16, where that
is known, and what the well-known TensorFlow tutorial reports for its GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

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
from captioner.model.backbone import build_backbone, copy_of
from captioner.model.backbones import BACKBONES, DEFAULT
from captioner.model.caption_model import CaptionModel, EndToEndModel
from captioner.model.features import FeatureExtractor, extract
from captioner.training import finetuning, run
from captioner.training.cross_entropy import RunContext, make_optimizer
from captioner.training.device_steps import DeviceSteps
from captioner.training.recipes import RECIPES
from captioner.training.self_critical import SelfCriticalTrainer

TUTORIAL = 24_009 / 36.2  # captions per second: its report of an epoch
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}  # FLOP/s, bfloat16, dense


@dataclass(frozen=True)
class Measured:
    part: str
    amount: float
    unit: str
    flop: float  # of one of `unit`'s things; 0 where products are not what it is about


def made_up(folder: Path, count: int) -> list[Record]:
    """Photos of smooth colours, each with five captions of common words."""
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


def network_flop(network: keras.Model) -> float:
    """Operations of the convolutions, per photo."""
    convolutions = [x for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    return sum(2.0 * np.prod(x.output.shape[1:3]) * np.prod(x.kernel.shape) for x in convolutions)


def caption_flop(config: ModelConfig, words: float, captions: float) -> float:
    """Operations of training on one caption of `words` words: three times those of computing it,
    with its share in what is computed once per image."""
    dim, units, attention, places = (
        config.embedding_dim, config.units, config.attention_units, config.locations,
    )  # fmt: skip
    image = places * dim * (config.channels + attention)
    word = units * attention + places * (attention + dim) + 3 * units * (2 * dim + units)
    word += (units + 2 * dim) * config.output_dim + config.output_dim * config.vocabulary_size
    return 3 * 2.0 * (image / captions + words * word)


def measure(options: argparse.Namespace, records: list[Record], work: Path) -> list[Measured]:
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
    found.append(whole_run(options, records, training, sizes, work / "output"))
    return found


def bare_extraction(extractor: FeatureExtractor, rounds: int) -> Measured:
    size = extractor.image_size
    photos = np.random.default_rng(0).integers(
        0, 256, (extractor.batch_size, size, size, 3), dtype=np.uint8
    )
    extractor(photos)
    start = time.perf_counter()
    for _ in range(rounds):
        extractor(photos)
    rate = rounds * len(photos) / (time.perf_counter() - start)
    flop = network_flop(extractor.backbone)
    name = "extraction in " + ("bfloat16" if extractor.mixed_precision else "float32")
    return Measured(f"{name}, photos at hand", rate, "images/s", flop)


def cross_entropy(model: CaptionModel, context: RunContext) -> Measured:
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
    words, each = float(np.mean(lengths)), captions / len(context.train)
    flop = caption_flop(context.config.model, words, each)
    return Measured("cross-entropy", captions / seconds, "captions/s", flop)


def self_critical(model: CaptionModel, context: RunContext) -> Measured:
    model.compile(keras.optimizers.Adam(1e-5), jit_compile=True)
    critic = SelfCriticalTrainer(model, context)
    some = Event()
    some.set()
    critic.train_epoch(0, {}, some)  # one batch, to compile
    start = time.perf_counter()
    critic.train_epoch(1, {}, Event())
    images = critic.batches * context.config.training.batch_size
    rate = images / (time.perf_counter() - start)
    return Measured("self-critical training", rate, "images/s", 0)


def fine_tuning(
    model: CaptionModel, backbone: keras.Model, context: RunContext, options: argparse.Namespace
) -> Measured:
    student = copy_of(backbone, options.image_size, mixed_precision=True)
    first = BACKBONES[DEFAULT].first_layer(student, options.finetune_from)
    finetuning.thaw(student, first)
    both = EndToEndModel(student, model)
    both.compile(make_optimizer(context.config.training, 1000), jit_compile=True)
    both.optimizer.build(both.trainable_variables)
    steps = DeviceSteps(both)
    few = replace(context, train=context.train[: options.rounds * options.batch_size])
    few = finetuning.with_photos(few)
    steps.train(few.batches(0, kind=finetuning.PhotoBatches), lambda: False)
    start = time.perf_counter()
    steps.train(few.batches(1, kind=finetuning.PhotoBatches), lambda: False)
    rate = len(few.train) / (time.perf_counter() - start)
    name = f"fine-tuning from {options.finetune_from}"
    return Measured(name, rate, "images/s", 3 * network_flop(backbone))


def whole_run(
    options: argparse.Namespace,
    records: list[Record],
    training: TrainingConfig,
    sizes: dict,
    output: Path,
) -> Measured:
    start = time.perf_counter()
    settings = replace(training, epochs=options.epochs, cider_epochs=1, finetune_from="")
    given = run.RunOptions(
        "folder", output, options.backbone_weights, training=settings, model=sizes
    )
    run.run_training(records, given)
    name = f"from photos to a checkpoint, {options.epochs} + 1 epochs of {len(records)} photos"
    return Measured(name, time.perf_counter() - start, "s", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="Flickr8k (default: made-up photos)")
    parser.add_argument("--backbone-weights", default="imagenet")
    parser.add_argument("--photos", type=int, default=4000, help="how many, at most")
    parser.add_argument("--image-size", type=int, default=299)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5, help="of the whole run")
    parser.add_argument("--rounds", type=int, default=20, help="batches of the bare network")
    parser.add_argument("--finetune-from", default="mixed0")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args()
    if backend.name() != "jax":
        parser.error("this measures JAX: leave KERAS_BACKEND out, or set it to jax")
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
    """The table, and the JSON file."""
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
        print(f"\nMemory of the device: {memory / 1e9:.1f} GB at most.")
    print(f"All of it took {seconds:.0f} s.")
    if options.json:
        content = {"device": device.device_kind, "peak_flop_per_s": peak, "seconds": seconds}
        content |= {"peak_memory_bytes": memory, "tutorial_captions_per_s": TUTORIAL}
        content["measured"] = [asdict(m) for m in measured]
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
