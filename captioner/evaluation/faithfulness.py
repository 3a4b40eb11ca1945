"""Does the attention tell the truth? If what was attended to is blanked, the word should suffer.

    python -m captioner.faithfulness CHECKPOINT --dataset flickr8k --data-dir DIR --split val

For each content word of each photo's greedy caption, the quarter of the photo's cells with the most
attention is painted over with the photo's mean colour, before the network sees it, and the fall of
the word's log-probability is measured, with the same words before it. (Comprehensiveness, DeYoung
et al. 2020, aclanthology.org/2020.acl-main.408, for regions of photos.) The same is done with three
other quarters:

    shifted      the attended one, mirrored at random and moved to a random place, cells that leave
                 on one side coming back on the other: any cell is as likely as any other, and the
                 shape stays
    scattered    as many cells at random
    other_photo  the quarter attended to for a random content word of another photo: what one knows
                 of a photo without looking at it, such as that subjects stand in the middle

A ratio of mean drops above 1 says that where the model looks matters more than elsewhere. Intervals
are from resampled photos. One JSON object, last on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from captioner.captioner import Caption, Captioner
from captioner.data.datasets import Record
from captioner.data.vocabulary import END
from captioner.evaluation.bootstrap import bootstrap, interval
from captioner.evaluation.caption_scores import describe
from captioner.evaluation.cli import (
    EXPECTED,
    check_options,
    load_subject,
    measuring_parser,
    save_result,
)
from captioner.model.decoding_options import DecodingOptions
from captioner.model.feature_cache import FeatureCache
from captioner.model.function_words import FUNCTION_WORDS

SHARE = 1 / 4  # of the cells of a photo that are blanked
CONTROLS = ("shifted", "scattered", "other_photo")
GREEDY = DecodingOptions("greedy", num_captions=1)
SAME = ("dataset", "split")


@dataclass(frozen=True)
class Target:
    """A content word, and the cells that are blanked for it, by kind, bool (rows, columns)."""

    image: int
    word: int
    masks: dict[str, np.ndarray]


def faithfulness(
    captioner: Captioner,
    records: Sequence[Record],
    cache: FeatureCache | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The mean drops of log-probability and probability by kind of blanked quarter, and for each
    control the `ratio` of the attended quarter's drop to its own and the `difference`, in nats.

    A ratio, or an end of its interval, is None where the control's drop is not above zero. `cache`
    spares one pass in about fifteen. Raises `ImageError`.
    """
    captions = describe(captioner, records, GREEDY, cache)
    targets = choose_targets(captions, seed)
    if not targets:
        return {"images": len(records), "content_words": 0}
    kinds = list(targets[0].masks)
    before, after = measure(captioner, records, captions, targets)
    drops = before[:, None] - after  # (targets, kinds)
    falls = np.exp(before)[:, None] - np.exp(after)
    images = np.array([t.image for t in targets])
    by_image = np.zeros((len(records), len(kinds) + 1))
    np.add.at(by_image, images, np.column_stack([drops, np.ones(len(targets))]))
    by_image = by_image[np.unique(images)]
    found: dict[str, Any] = {
        "images": len(by_image),
        "content_words": len(targets),
        "mean_probability": _round(np.exp(before).mean()),
        "log_prob_drop": _by(kinds, drops.mean(axis=0)),
        "probability_drop": _by(kinds, falls.mean(axis=0)),
    }
    return found | {"controls": {k: _compare(by_image, kinds.index(k)) for k in kinds[1:]}}


def _by(kinds: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {kind: _round(value) for kind, value in zip(kinds, values, strict=True)}


def _compare(by_image: np.ndarray, column: int) -> dict[str, Any]:
    """The attended quarter, column 0 of (images, kinds + 1), with another; the last column counts
    the words."""

    def difference(sums: np.ndarray) -> np.ndarray:
        return (sums[:, 0] - sums[:, column]) / sums[:, -1]

    def ratio(sums: np.ndarray) -> np.ndarray:
        # Nothing to divide by: no ratio, however large, can be excluded.
        return np.where(
            sums[:, column] > 0, sums[:, 0] / np.maximum(sums[:, column], 1e-12), np.inf
        )

    total = by_image.sum(axis=0, keepdims=True)
    tails = np.quantile(bootstrap(by_image, ratio), [0.025, 0.975], method="nearest")
    return {
        "ratio": _round(ratio(total)[0]),
        "ratio_95": [_round(end) for end in tails],
        "difference": _round(difference(total)[0]),
        "difference_95": [_round(end) for end in interval(by_image, difference)],
    }


def choose_targets(captions: Sequence[Caption], seed: int = 0) -> list[Target]:
    """The content words of the captions, in their order, with what is blanked for each.

    If all words are of one photo, there is no "other_photo".
    """
    rng = np.random.default_rng(seed)
    attended = [
        (image, position, most_attended(caption.attention[position]))
        for image, caption in enumerate(captions)
        for position, word in enumerate(caption.words)
        if word not in FUNCTION_WORDS
    ]
    images = np.array([image for image, _, _ in attended])
    targets = []
    for image, position, mask in attended:
        masks = {"attended": mask, "shifted": shifted(mask, rng), "scattered": scattered(mask, rng)}
        others = np.flatnonzero(images != image)
        if len(others):
            masks["other_photo"] = attended[rng.choice(others)][2]
        targets.append(Target(image, position, masks))
    return targets


def most_attended(attention: np.ndarray) -> np.ndarray:
    """bool (rows, columns): the quarter of the cells with the most attention (rows, columns)."""
    mask = np.zeros(attention.size, bool)
    order = np.argsort(-attention, axis=None, kind="stable")
    mask[order[: max(1, round(attention.size * SHARE))]] = True
    return mask.reshape(attention.shape)


def shifted(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`mask` mirrored at random and moved to a random place of the torus."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            mask = np.flip(mask, axis)
    return np.roll(mask, rng.integers(mask.shape), axis=(0, 1))


def scattered(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many random cells as `mask` has."""
    return rng.permutation(mask.ravel()).reshape(mask.shape)


def blank(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photo (size, size, 3) with the masked cells (rows, columns) in its mean colour."""
    rows, columns = mask.shape
    height, width = pixels.shape[:2]
    # The cell of each pixel, as the overlay draws them over the photo.
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    hidden = mask[row[:, None], column[None, :], None]
    return np.where(hidden, pixels.mean(axis=(0, 1), dtype=np.float64), pixels).astype(pixels.dtype)


def measure(
    captioner: Captioner,
    records: Sequence[Record],
    captions: Sequence[Caption],
    targets: Sequence[Target],
) -> tuple[np.ndarray, np.ndarray]:
    """The words' log-probabilities, with the words of the caption before them: as the photo is
    (targets,), and with each kind of quarter blanked (targets, kinds)."""
    # Words of a photo often share a quarter, and one pass gives the words of the whole caption.
    passes: dict[tuple[int, bytes], np.ndarray] = {}
    for target in targets:
        for mask in (np.zeros_like(target.masks["attended"]), *target.masks.values()):
            passes.setdefault((target.image, mask.tobytes()), mask)
    found: dict[tuple[int, bytes], list[float]] = {}
    photos = _blanked(captioner, records, passes)
    size = captioner.extractor.batch_size
    keys = list(passes)
    with tqdm(total=len(keys), unit="pass", desc="blanked", disable=None) as progress:
        for start in range(0, len(keys), size):
            some = keys[start : start + size]
            pixels = np.stack([next(photos) for _ in some])
            texts = [captions[image] for image, _ in some]
            found.update(zip(some, _forced_log_probs(captioner, pixels, texts), strict=True))
            progress.update(len(some))

    def log_prob(target: Target, mask: np.ndarray) -> float:
        return found[target.image, mask.tobytes()][target.word]

    before = [log_prob(t, np.zeros_like(t.masks["attended"])) for t in targets]
    after = [[log_prob(t, mask) for mask in t.masks.values()] for t in targets]
    return np.array(before), np.array(after)


def _blanked(
    captioner: Captioner, records: Sequence[Record], passes: dict[tuple[int, bytes], np.ndarray]
) -> Iterator[np.ndarray]:
    """What the network sees in each pass; the passes of a photo come together."""
    last, pixels = -1, np.empty(0)
    for (image, _), mask in passes.items():
        if image != last:
            last, pixels = image, captioner.pixels(records[image].path)
        yield blank(pixels, mask)


def _forced_log_probs(
    captioner: Captioner, pixels: np.ndarray, captions: Sequence[Caption]
) -> list[list[float]]:
    """The log-probabilities of the captions' words if said of `pixels`, (images, size, size, 3)."""
    forced = np.zeros((len(captions), 1, GREEDY.max_words + 1), np.int32)
    for row, caption in zip(forced, captions, strict=True):
        ids = [*captioner.vocabulary.encode(caption.text), END]
        row[0, : len(ids)] = ids
    said = captioner.caption_features(captioner.features_of_pixels(pixels), GREEDY, forced)
    return [found[0].log_probs for found in said]


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring_parser("python -m captioner.faithfulness", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="other random quarters")
    options = parser.parse_args(arguments)
    check_options(parser, options)
    try:
        subject = load_subject(options)
        found = faithfulness(subject.captioner, subject.records, subject.cache, options.seed)
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    entry = {"dataset": subject.name, "split": options.split} | found
    if options.save:
        save_result(Path(options.checkpoint), "faithfulness", entry, SAME)
    print(json.dumps(entry))
    return 0
