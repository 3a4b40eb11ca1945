"""What would larger data sets take? The times are computed from measured rates.

    python benchmarks/on_paper.py [--extract 28.6] [--train 318] ...

Every rate is an option, whose default is the value in `docs/performance.md`. After new
measurements, give the new rates. `--data-dir FLICKR8K` measures the few rates that no other program
prints. The program prints the tables of the section "On paper".
"""

from __future__ import annotations

import argparse
import math
import os
import time
import tracemalloc
from dataclasses import dataclass, fields
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checkout  # noqa: F401 - finds the package

COCO_IMAGES, COCO_ARCHIVE = 82_783, 13e9  # train2014.zip, which has these photos, in bytes


@dataclass(frozen=True)
class Rates:
    """The rates. All of them are measured, except the last two, which are assumed."""

    extract: float = 28.6  # images/s, two cores ("Feature extraction")
    train: float = 317.0  # captions/s, two cores, five captions per image ("Training, beside ...")
    hash: float = 1650.0  # MB/s, a cache read from disk and hashed by two cores
    decode: float = 404.0  # photos/s of 224 x 224 to network input, one core (--data-dir)
    memory: float = 2277.0  # bytes per image with its captions, as records and ids (--data-dir)
    words: float = 11.8  # per caption, including its end (--data-dir)
    peak: float = 989e12  # FLOP/s of an accelerator: an H100's data sheet, bfloat16, dense
    share: float = 0.1  # the share of that peak which is reached: a low guess, not measured


@dataclass(frozen=True)
class Plan:
    name: str
    images: int
    captions: int  # per image
    passes: int


PLANS = (
    Plan("COCO", 118_287, 5, 15),  # passes: all of the decoder, `recipes.RECIPES["best"]`
    Plan("100 million pairs", 100_000_000, 1, 1),
)


def convolution_flop() -> float:
    """Operations of InceptionV3 on one photo; a multiplication and an addition count as two."""
    import keras
    import numpy as np

    network = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(299, 299, 3)
    )
    layers = [x for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    return float(sum(2 * np.prod(x.kernel.shape) * np.prod(x.output.shape[1:3]) for x in layers))


def training_flop(words: float) -> tuple[float, float]:
    """The operations for an image and for each caption, with twice as many backward as forward."""
    from captioner.config import ModelConfig
    from captioner.model.backbones import BACKBONES, DEFAULT, model_sizes

    c = ModelConfig(5004, **model_sizes(BACKBONES[DEFAULT].shape))
    image = c.locations * c.embedding_dim * (c.channels + c.attention_units)
    gru = 3 * c.units * (2 * c.embedding_dim + c.units)
    attention = c.units * c.attention_units + c.locations * (c.attention_units + c.embedding_dim)
    output = (c.units + 2 * c.embedding_dim + c.vocabulary_size) * c.output_dim
    return 3 * 2.0 * image, 3 * 2.0 * words * (gru + attention + output)


def measure(data_dir: Path) -> dict[str, float]:
    from captioner.config import TrainingConfig
    from captioner.data.datasets import read_flickr8k
    from captioner.data.images import load_image, to_network_input
    from captioner.data.vocabulary import Vocabulary
    from captioner.training.batches import CaptionBatches

    tracemalloc.start()
    records = [r for r in read_flickr8k(data_dir) if r.split == "train"]
    vocabulary = Vocabulary.build(c for r in records for c in r.captions)
    batches = CaptionBatches(records, None, vocabulary, TrainingConfig(), epoch=0)
    memory = tracemalloc.get_traced_memory()[0] / len(records)
    tracemalloc.stop()
    lengths = [len(ids) for captions in batches.captions for ids in captions]
    start = time.perf_counter()
    for record in records[:200]:
        to_network_input(load_image(record.path), 299)
    decode = 200 / (time.perf_counter() - start)
    return {"decode": decode, "memory": memory, "words": sum(lengths) / len(lengths)}


def size(number: float) -> str:
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(len(units) - 1, int(math.log10(max(1.0, number)) // 3))
    return f"{number / 1000**power:.3g} {units[power]}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 3 * 86400 else f"{seconds / 86400:.3g} days"


def rows(plan: Plan, rates: Rates, conv: float) -> list[tuple[str, str, str]]:
    """The lines of a table: what is computed, how, and the result. `conv` is the FLOP per photo."""
    from captioner.config import ModelConfig
    from captioner.model.backbones import BACKBONES, DEFAULT, model_sizes

    c = ModelConfig(5004, **model_sizes(BACKBONES[DEFAULT].shape))
    feature = 2 * c.locations * c.channels  # bytes, float16
    photo = COCO_ARCHIVE / COCO_IMAGES
    features, trained = plan.images * feature, plan.images * plan.passes
    of_image, of_caption = training_flop(rates.words)
    flop = of_image + plan.captions * of_caption
    chip = rates.peak * rates.share
    lines = [
        ("images x captions x passes", "", f"{plan.images:,} x {plan.captions} x {plan.passes}"),
        ("photos: storage, and network once", f"images x {size(photo)}", size(plan.images * photo)),
        ("features: storage", f"images x {size(feature)}", size(features)),
        ("features: network, if not stored here", "... x passes", size(features * plan.passes)),
        ("opening the cache, the first time", "features / hash", features / rates.hash / 1e6),
        ("memory for records and ids", "images x memory", size(plan.images * rates.memory)),
        ("decoding photos, one core", "images / decode", plan.images / rates.decode),
        ("extraction, two cores", "images / extract", plan.images / rates.extract),
        ("training, two cores, at most", "images x passes x 5 / train", trained * 5 / rates.train),
        (
            "extraction, an accelerator",
            f"images x {conv / 1e9:.3g} GFLOP / (peak x share)",
            plan.images * conv / chip,
        ),
        (
            "GFLOP of a training step, per image",
            "encoder + captions x decoder",
            f"{flop / 1e9:.3g}",
        ),
        (
            "training, an accelerator",
            "images x passes x GFLOP / (peak x share)",
            trained * flop / chip,
        ),
        (
            "... which reads features at",
            f"peak x share / GFLOP x {size(feature)}",
            f"{size(chip / flop * feature)}/s",
        ),
    ]
    return [(a, b, r if isinstance(r, str) else duration(r)) for a, b, r in lines]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="measure decode, memory and words there")
    for field in fields(Rates):
        parser.add_argument(f"--{field.name}", type=float, default=field.default)
    options = vars(parser.parse_args())
    data_dir = options.pop("data_dir")
    rates = Rates(**options | (measure(data_dir) if data_dir else {}))
    print("| rate | |\n| --- | --- |")
    for field in fields(Rates):
        print(f"| {field.name} | {getattr(rates, field.name):,.4g} |")
    conv = convolution_flop()
    tables = [rows(plan, rates, conv) for plan in PLANS]
    print("\n| | computed | " + " | ".join(plan.name for plan in PLANS) + " |")
    print("| --- | --- |" + " --- |" * len(PLANS))
    for lines in zip(*tables, strict=True):
        print("| " + " | ".join([*lines[0][:2], *(line[2] for line in lines)]) + " |")


if __name__ == "__main__":
    main()
