"""What does each choice of the recipe `best` contribute? Each is changed by itself.

    python benchmarks/ablation.py --dataset KIND:FOLDER ... --features CACHE --output OUTPUT

For each row of the table, the program trains with cross-entropy on a part of the photos for a few
epochs, and scores the model on the validation photos of all data sets together. If it is stopped,
it prints the finished rows, and the same command continues from there. It needs Java, like all
caption scores.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import checkout  # noqa: F401 - finds the package

from captioner.config import TrainingConfig
from captioner.training.recipes import RECIPES

# Name of a row -> changed fields of the recipe's model, changed fields of its training.
CHANGES = {
    "the recipe": ({}, {}),
    "another seed": ({}, {"seed": 1}),
    "dropout of 0.5, not 0.3": ({"dropout": 0.5}, {}),
    "512 attention units, not 128": ({"attention_units": 512}, {}),
    "all words, not those seen 5 times": ({}, {"min_count": 1}),
    "random crops beside mirrored photos": ({}, {"crops": 1}),
    "no mirrored photos": ({}, {"mirror": False}),
    "no label smoothing": ({}, {"label_smoothing": 0.0}),
    "no dropout": ({"dropout": 0.0}, {}),
    "no context and embedding in the output layer": ({"deep_output": False}, {}),
    "no gate on the context": ({"gate": False}, {}),
    "initial state of zeros, not from the mean feature": ({"initial_state": "zeros"}, {}),
    "1,024 units in the GRU, not 512": ({"units": 1024}, {}),
}
RESULT = "result.json"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", action="append", required=True, metavar="KIND:FOLDER")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--backbone-weights", default="assets/checkpoint/backbone.safetensors", metavar="FILE"
    )
    parser.add_argument("--images", type=int, default=3000, help="of each data set, to train on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at once, which share the cores"
    )
    parser.add_argument("--row", choices=CHANGES, help="train this one alone, and print nothing")
    parser.add_argument("--cores", type=json.loads, help="for --row: a list of numbers")
    return parser.parse_args()


def folder_of(row: str, options: argparse.Namespace) -> Path:
    return options.output / "".join(c if c.isalnum() else "-" for c in row)


def train(row: str, options: argparse.Namespace) -> None:
    """Leaves the row's loss and scores in its folder."""
    from captioner import allocator
    from captioner.data import mixture
    from captioner.training import run

    allocator.keep_freed_memory()
    model, changed = CHANGES[row]
    recipe = RECIPES["best"]
    whole = {"epochs": options.epochs, "cider_epochs": 0}
    folder = folder_of(row, options)
    sources = mixture.parse_sources(options.dataset)
    start = time.monotonic()
    checkpoint = run.run_training(
        mixture.read_mixture(sources, options.images),
        run.RunOptions(
            dataset=mixture.joined_name(sources),
            output=folder,
            backbone_weights=options.backbone_weights,
            features=options.features,
            training=TrainingConfig(**recipe.training | whole | changed),
            model=recipe.model | model,
        ),
    )
    metrics = json.loads((checkpoint / "metrics.json").read_text())
    if not metrics["scores"]:
        sys.exit("no scores: install requirements-train.txt, and Java")
    result = {
        "minutes": (time.monotonic() - start) / 60,  # of the last start, if it was stopped before
        "loss": min(epoch["val_nll"] for epoch in metrics["history"]),
        "scores": {s["strategy"]: s for s in metrics["scores"]},  # the last are of all together
    }
    (folder / RESULT).write_text(json.dumps(result))


def train_all(options: argparse.Namespace) -> None:
    """Every row in a process of its own, with an equal share of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    shares: SimpleQueue[list[int]] = SimpleQueue()
    for worker in range(options.workers):
        shares.put(cores[worker :: options.workers] or cores)

    def start(row: str) -> None:
        share = shares.get()
        command = [sys.executable, __file__, *sys.argv[1:], "--row", row, "--cores", f"{share}"]
        try:
            subprocess.run(command, check=True)
        finally:
            shares.put(share)

    missing = [row for row in CHANGES if not (folder_of(row, options) / RESULT).exists()]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(start, missing))


def print_table(options: argparse.Namespace) -> None:
    files = {row: folder_of(row, options) / RESULT for row in CHANGES}
    found = {row: json.loads(f.read_text()) for row, f in files.items() if f.exists()}
    print(
        "| | loss | greedy: CIDEr | BLEU-4 | distinct | beam of 5: CIDEr | BLEU-4 | distinct "
        "| minutes |\n|" + " --- |" * 9
    )
    for row, result in found.items():
        cells = [row, f"{result['loss']:.3f}"]
        for search in ("greedy", "beam"):
            scores = result["scores"][search]
            cells += [f"{scores['CIDEr']:.1f}", f"{scores['BLEU-4']:.1f}"]
            cells += [f"{scores['captions']['distinct']:.0f}%"]
        cells += [f"{result['minutes']:.0f}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    options = parse()
    logging.basicConfig(level="INFO", format="%(message)s")
    if options.row:
        if options.cores:  # before TensorFlow counts them
            os.sched_setaffinity(0, options.cores)
        train(options.row, options)
    else:
        try:
            train_all(options)
        finally:
            print_table(options)


if __name__ == "__main__":
    main()
