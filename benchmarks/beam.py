"""How do the width of the beam and its length penalty change the captions?

    python benchmarks/beam.py --dataset KIND:FOLDER ... --features CACHE [--checkpoint DIR]

The program captions the validation photos of each data set by several searches, and prints a table:
CIDEr-D of one caption per photo, the mean over the data sets and then each of them, and the mean
length of the captions in words. CACHE is a folder for the photos' features; those that it lacks are
extracted first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import checkout  # noqa: F401 - finds the package
import numpy as np

from captioner import Caption, Captioner, DecodingOptions
from captioner.data.datasets import Record
from captioner.data.mixture import by_dataset, parse_sources, read_mixture
from captioner.evaluation.sample_scores import cider, draw
from captioner.model.features import extract

SEARCHES = [(5, 1.0), (5, 0.7), (5, 1.3), (5, 1.6), (3, 1.0), (3, 1.3)]  # width, length penalty


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", action="append", required=True, metavar="KIND:FOLDER")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--checkpoint", default="assets/checkpoint")
    options = parser.parse_args()
    captioner = Captioner.from_pretrained(options.checkpoint)
    records = read_mixture(parse_sources(options.dataset))
    groups = by_dataset(r for r in records if r.split == "val")
    photos = [record for group in groups.values() for record in group]
    cache = extract(photos, captioner.extractor, options.features)
    print(f"| width | length penalty | mean | {' | '.join(groups)} | words |")
    print("|" + " --- |" * (len(groups) + 4))
    for width, penalty in SEARCHES:
        search = DecodingOptions("beam", num_captions=1, beam_width=width, length_penalty=penalty)
        said = {
            name: [captions[0] for captions in draw(captioner, group, search, cache)]
            for name, group in groups.items()
        }
        print(f"| {width} | {penalty} | {' | '.join(cells(groups, said))} |", flush=True)


def cells(groups: dict[str, list[Record]], said: dict[str, Sequence[Caption]]) -> list[str]:
    """The cells of a row behind its search."""
    scores = [float(np.mean(cider(group, said[name]))) for name, group in groups.items()]
    lengths = [len(caption.words) for captions in said.values() for caption in captions]
    return [f"{score:.1f}" for score in (np.mean(scores), *scores)] + [f"{np.mean(lengths):.1f}"]


if __name__ == "__main__":
    main()
