"""Measures how good the samples are that visitors of the page see, at several temperatures.

    python -m captioner.evaluation.samples CHECKPOINT --dataset folder --data-dir DIR --split val

For each temperature, the program makes three captions of each photo, as the page does. It prints
CIDEr-D of the first of the three, their mean, and that of the best; CIDEr-D of the first if the
captions are ordered not by their probability, but by how much they agree with each other (minimum
Bayes risk: Kumar and Byrne, HLT-NAACL 2004); the share of first captions that break off or have a
phrase twice; and the share of those that name a person although no reference does.

With `--save`, the checkpoint's metrics get the calibration of the captions at the page's default
temperature (see `calibration`), by which the page decides whether to say that it is unsure.
`--diagram FILE` draws the calibration. Both need that temperature among `--temperatures`. The
program prints a table, then one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from captioner.captioner import Caption, Captioner
from captioner.checkpoint.checkpoint_folder import write_json
from captioner.checkpoint.file_names import METRICS
from captioner.data.records import Record
from captioner.data.words import split_words
from captioner.errors import report
from captioner.evaluation.calibration import calibration, reliability_diagram
from captioner.evaluation.diversity import flaws, names_a_person
from captioner.evaluation.subject import EXPECTED, features_of, load_subject, read_metrics
from captioner.files import write_bytes
from captioner.model.decoding_options import DEFAULTS, DecodingOptions
from captioner.model.feature_cache import FeatureCache

SHOWN = 3  # captions


def run(options: argparse.Namespace) -> int:
    """Measures a checkpoint as `command_lines.samples_options` says. Returns the exit status."""
    try:
        subject = load_subject(options)
        rows = []
        for temperature in options.temperatures:
            search = DecodingOptions("sample", SHOWN, temperature=temperature, distinct=True)
            drawn = draw(subject.captioner, subject.records, search, subject.cache)
            rows.append({"temperature": temperature} | examine(subject.records, drawn))
            print("  ".join(f"{name} {value:g}" for name, value in rows[-1].items()))
            if temperature == DEFAULTS.temperature:
                shown = drawn
    except EXPECTED as error:
        return report(error)
    result: dict[str, Any] = {"dataset": subject.name, "split": options.split, "samples": rows}
    if DEFAULTS.temperature in options.temperatures:
        result["calibration"] = calibration(subject.records, shown)
    print(json.dumps(result))
    try:
        if "calibration" in result and options.diagram:
            write_bytes(options.diagram, reliability_diagram(result["calibration"]))
        if "calibration" in result and options.save:
            folder = Path(options.checkpoint)
            metrics = read_metrics(folder) | {"calibration": result["calibration"]}
            write_json(folder / METRICS, metrics)
    except EXPECTED as error:  # the measuring took long, so its result has been printed already
        return report(error)
    return 0


def draw(
    captioner: Captioner,
    records: Sequence[Record],
    options: DecodingOptions,
    cache: FeatureCache | None,
) -> list[list[Caption]]:
    """For each photo its captions, with the most probable caption first."""
    drawn: list[list[Caption]] = []
    batch_size = captioner.extractor.batch_size
    for start in range(0, len(records), batch_size):
        features = features_of(captioner, records[start : start + batch_size], cache)
        drawn += captioner.caption_features(features, options)
    return drawn


def examine(records: Sequence[Record], drawn: Sequence[Sequence[Caption]]) -> dict[str, float]:
    """The figures of one temperature. CIDEr is multiplied by 100; shares are in percent."""
    by_rank = np.array(
        [cider(records, [c[rank] for c in drawn]) for rank in range(SHOWN)]
    )  # (shown, photos)
    agreeing = [captions[most_agreed(captions)] for captions in drawn]
    first = [captions[0] for captions in drawn]
    habits = flaws([caption.words for caption in first])
    strangers = [
        names_a_person(c.words) and not any(names_a_person(split_words(t)) for t in r.captions)
        for r, c in zip(records, first, strict=True)
    ]
    figures = {
        "first": by_rank[0].mean(),
        "mean": by_rank.mean(),
        "best": by_rank.max(axis=0).mean(),
        "first_by_agreement": cider(records, agreeing).mean(),
        "unfinished": habits["unfinished"],
        "phrase_twice": habits["phrase_twice"],
        "person_where_none": 100 * np.mean(strangers),
    }
    return {name: round(float(value), 2) for name, value in figures.items()}


def cider(records: Sequence[Record], captions: Sequence[Caption]) -> np.ndarray:
    """CIDEr-D (photos,), times 100, of one caption per photo.

    It is computed over plain words, without Java's tokenizer, so it cannot be compared with the
    scores of `captioner.evaluation`.
    """
    from pycocoevalcap.cider.cider import Cider

    truth = {r.image_id: [" ".join(split_words(c)) for c in r.captions] for r in records}
    ours = {r.image_id: [" ".join(c.words)] for r, c in zip(records, captions, strict=True)}
    return 100 * np.asarray(Cider().compute_score(truth, ours)[1])


def most_agreed(captions: Sequence[Caption]) -> int:
    """The number of the caption that shares the most n-grams (of one and two words) with others."""
    grams = [Counter(c.words) + Counter(pairwise(c.words)) for c in captions]

    def agreement(own: int) -> float:
        others = [g for number, g in enumerate(grams) if number != own]
        return sum(
            2 * (grams[own] & other).total() / (grams[own].total() + other.total())
            for other in others
        )

    return max(range(len(captions)), key=agreement)
