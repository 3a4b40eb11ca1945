"""Caption scores of a checkpoint on a data set.

    python -m captioner.evaluation CHECKPOINT --dataset flickr8k --data-dir DIR --split test

BLEU-1 to 4, METEOR, ROUGE-L and CIDEr, with bootstrap intervals of BLEU-4 and CIDEr
(`metrics.assess`); how varied the captions are and which vices they have (`diversity`), and the
same of the references, for comparison. One JSON object, last on standard output; percentages,
CIDEr times 100.
"""

from __future__ import annotations

import json
import sys
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
from captioner.data.images import ImageError
from captioner.data.words import spaced
from captioner.evaluation.cli import (
    EXPECTED,
    check_options,
    features_of,
    load_subject,
    measuring_parser,
    save_result,
)
from captioner.evaluation.diversity import diversity, unknown_words, vices
from captioner.evaluation.metrics import MetricsUnavailable, assess, require_metrics
from captioner.evaluation.report import write_report
from captioner.model.decoding_options import STRATEGIES, DecodingOptions
from captioner.model.feature_cache import FeatureCache

# What of the decoding options a strategy depends on.
SEARCH = {
    "greedy": (),
    "beam": ("beam_width", "length_penalty"),
    "sample": ("temperature", "top_k", "top_p", "seed"),
}
SAME = ("dataset", "split", "strategy", "temperature")  # a newer score replaces the one equal in it


@dataclass(frozen=True)
class Evaluation:
    """One caption for each photo, and how good they are."""

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
    """The scores of `examine` alone, with the strategy's default options."""
    options = DecodingOptions(strategy, num_captions=1)
    return examine(captioner, records, options, cache, train_captions).scores


def examine(
    captioner: Captioner,
    records: Sequence[Record],
    options: DecodingOptions,
    cache: FeatureCache | None = None,
    train_captions: Iterable[str] = (),
) -> Evaluation:
    """One caption of each photo, scored; the scores begin with the settings they were made with.

    With `cache`, features come from there and the photos are not read. With `train_captions`, the
    share of captions that are not among them is reported. Sampling draws one caption per photo:
    the best of several would be another system. Raises `MetricsUnavailable`.
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
    settings = {name: getattr(options, name) for name in SEARCH[options.strategy]}
    ours = [c.words for c in captions]
    theirs = [vocabulary.split(text) for r in records for text in r.captions]
    unknown = unknown_words(theirs, vocabulary)
    scores = {
        "images": len(records),
        "caption_seconds": round(seconds, 1),
        **{name: value for name, value in settings.items() if value is not None},
        **assessment.scores,
        "confidence_95": assessment.intervals,
        "captions": diversity(ours, train_captions, vocabulary.split) | vices(ours),
        "references": diversity(theirs, train_captions, vocabulary.split)
        | vices(theirs)
        | {"unknown": unknown},
    }
    return Evaluation(captions, assessment.cider, scores)


def describe(
    captioner: Captioner,
    records: Sequence[Record],
    options: DecodingOptions,
    cache: FeatureCache | None = None,
) -> list[Caption]:
    """The best caption of each photo; when sampling, each photo has draws of its own."""
    captions: list[Caption] = []
    size = captioner.extractor.batch_size
    with tqdm(total=len(records), unit="image", desc="captions", disable=None) as progress:
        for start in range(0, len(records), size):
            batch = records[start : start + size]
            features = features_of(captioner, batch, cache)
            if options.strategy == "sample":
                found = _sample(captioner, batch, features, options)
            else:
                found = captioner.caption_features(features, options)
            captions += [best[0] for best in found]
            progress.update(len(batch))
    return captions


def _sample(
    captioner: Captioner, records: Sequence[Record], features: np.ndarray, options: DecodingOptions
) -> list[list[Caption]]:
    # The photos of a batch share the draws of a seed. Scored that way, a data set would be one
    # experiment, not a thousand, and its interval too narrow.
    seeds = [zlib.crc32(f"{options.seed}:{r.image_id}".encode()) for r in records]
    return [
        captioner.caption_features(one[None], replace(options, seed=seed))[0]
        for one, seed in zip(features, seeds, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring_parser("python -m captioner.evaluation", __doc__)
    parser.add_argument("--strategy", choices=STRATEGIES, default="beam")
    search = parser.add_argument_group("search, where not the default of the strategy")
    search.add_argument("--beam-width", type=int)
    search.add_argument("--length-penalty", type=float, help="beam: the power of the length")
    search.add_argument("--temperature", type=float, help="sample: 1 is the model's own")
    search.add_argument("--top-k", type=int, help="sample: from the K likeliest words")
    search.add_argument("--top-p", type=float, help="sample: from a nucleus of this probability")
    search.add_argument("--seed", type=int, help="sample: other draws")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="the best, median and worst 20 captions with photos and attention, to look at",
    )
    options = parser.parse_args(arguments)
    check_options(parser, options)
    if options.report and not options.report.parent.is_dir():
        parser.error(f"--report: there is no folder {options.report.parent}")
    names = [name for some in SEARCH.values() for name in some]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if foreign := given.keys() - set(SEARCH[options.strategy]):
        parser.error(f"{', '.join(sorted(foreign))} has no meaning for {options.strategy}")
    try:
        decoding = DecodingOptions(options.strategy, num_captions=1, **given)
    except ValueError as error:
        parser.error(str(error))
    try:
        require_metrics()
        subject = load_subject(options)
        records = subject.records
        found = examine(subject.captioner, records, decoding, subject.cache, subject.train_captions)
    except (*EXPECTED, MetricsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    what = {"dataset": subject.name, "split": options.split, "strategy": options.strategy}
    scores = what | found.scores
    if options.save:
        save_result(Path(options.checkpoint), "scores", scores, SAME)
    status = 0
    if options.report:
        try:
            write_report(options.report, records, found.captions, found.cider, scores)
        except (OSError, ImageError) as error:  # the scores took longer: they are printed anyway
            print(f"error: no report: {error}", file=sys.stderr)
            status = 1
    print(json.dumps(scores))
    return status
