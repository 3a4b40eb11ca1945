"""Scores the captions of a checkpoint on a data set.

    python -m captioner.evaluation CHECKPOINT --dataset flickr8k --data-dir DIR --split test

It computes BLEU-1 to 4, METEOR, ROUGE-L and CIDEr, with bootstrap intervals of BLEU-4 and CIDEr
(`metrics.assess`), and measures how varied the captions are and which flaws they have
(`diversity`), beside the same measures of the references. The last line on standard output is one
JSON object. Scores are percentages; CIDEr is multiplied by 100.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from captioner.captioner import Caption, Captioner
from captioner.data.datasets import Record
from captioner.data.words import spaced
from captioner.errors import report
from captioner.evaluation.diversity import diversity, flaws, unknown_words
from captioner.evaluation.metrics import assess, require_metrics
from captioner.evaluation.report import write_report
from captioner.evaluation.subject import EXPECTED, features_of, load_subject, save_result
from captioner.model.decoding_options import OPTIONS_OF, DecodingOptions
from captioner.model.feature_cache import FeatureCache

# A new score replaces the saved one that is equal in these fields.
SAME = ("dataset", "split", "strategy", "temperature")


@dataclass(frozen=True)
class Evaluation:
    """One caption of each photo, with their scores."""

    captions: list[Caption]
    cider: np.ndarray  # float64 (photos,), times 100
    scores: dict[str, Any]


def evaluate(
    captioner: Captioner,
    records: Sequence[Record],
    strategy: str = "beam",
    cache: FeatureCache | None = None,
    train_captions: Iterable[str] = (),
) -> dict[str, Any]:
    """Only the scores of `examine`, with the default options of a strategy."""
    options = DecodingOptions(strategy, num_captions=1)
    return examine(captioner, records, options, cache, train_captions).scores


def examine(
    captioner: Captioner,
    records: Sequence[Record],
    options: DecodingOptions,
    cache: FeatureCache | None = None,
    train_captions: Iterable[str] = (),
) -> Evaluation:
    """Makes one caption of each photo, and scores the captions.

    Args:
        captioner: What to evaluate.
        records: The photos and their references.
        options: The options of the search. `num_captions` has no effect: sampling draws one caption
            per photo, because the best of several would be another system.
        cache: The features of the photos. With None, the photos are read.
        train_captions: If there are any, the share of captions that are not among them is measured.

    Returns:
        The captions and their scores. The settings come first among the scores.

    Raises:
        MetricsUnavailable: The scorers cannot run.
        ImageError: A photo cannot be read.
    """
    require_metrics()
    options = replace(options, num_captions=1)
    start = time.monotonic()
    captions = describe(captioner, records, options, cache)
    seconds = time.monotonic() - start
    vocabulary = captioner.vocabulary
    texts = {r.image_id: " ".join(c.words) for r, c in zip(records, captions, strict=True)}
    references = {r.image_id: [spaced(c, vocabulary.rule) for c in r.captions] for r in records}
    assessment = assess(references, texts)
    settings = {name: getattr(options, name) for name in OPTIONS_OF[options.strategy]}
    ours = [c.words for c in captions]
    theirs = [vocabulary.split(text) for r in records for text in r.captions]
    unknown = unknown_words(theirs, vocabulary)
    scores = {
        "images": len(records),
        "caption_seconds": round(seconds, 1),
        **{name: value for name, value in settings.items() if value is not None},
        **assessment.scores,
        "confidence_95": assessment.intervals,
        "captions": diversity(ours, train_captions, vocabulary.split) | flaws(ours),
        "references": diversity(theirs, train_captions, vocabulary.split)
        | flaws(theirs)
        | {"unknown": unknown},
    }
    return Evaluation(captions, assessment.cider, scores)


def describe(
    captioner: Captioner,
    records: Sequence[Record],
    options: DecodingOptions,
    cache: FeatureCache | None = None,
) -> list[Caption]:
    """The best caption of each photo. If words are drawn, each photo has its own random numbers."""
    captions: list[Caption] = []
    size = captioner.extractor.batch_size
    with tqdm(total=len(records), unit="image", desc="captions", disable=None) as progress:
        for start in range(0, len(records), size):
            batch = records[start : start + size]
            features = features_of(captioner, batch, cache)
            if "seed" in OPTIONS_OF[options.strategy]:
                found = _sample(captioner, batch, features, options)
            else:
                found = captioner.caption_features(features, options)
            captions += [best[0] for best in found]
            progress.update(len(batch))
    return captions


def _sample(
    captioner: Captioner, records: Sequence[Record], features: np.ndarray, options: DecodingOptions
) -> list[list[Caption]]:
    # Photos with the same seed have the same random numbers. If all photos of a data set shared
    # them, the captions would not be independent, and the intervals would be too narrow.
    seeds = [zlib.crc32(f"{options.seed}:{r.image_id}".encode()) for r in records]
    return [
        captioner.caption_features(one[None], replace(options, seed=seed))[0]
        for one, seed in zip(features, seeds, strict=True)
    ]


def run(options: argparse.Namespace) -> int:
    """Scores a checkpoint as `command_lines.scores_options` says. Returns the exit status."""
    try:
        subject = load_subject(options)
        records = subject.records
        found = examine(
            subject.captioner, records, options.decoding, subject.cache, subject.train_captions
        )
    except EXPECTED as error:
        return report(error)
    what = {"dataset": subject.name, "split": options.split, "strategy": options.strategy}
    scores = what | found.scores
    status = 0
    try:  # the scores took long, so they are printed even if this fails
        if options.save:
            save_result(Path(options.checkpoint), "scores", scores, SAME)
        if options.report:
            write_report(options.report, records, found.captions, found.cider, scores)
    except EXPECTED as error:
        status = report(error)
    print(json.dumps(scores))
    return status
