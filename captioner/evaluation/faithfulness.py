"""Measures whether the attention is faithful: does a word depend on the places attended to?

    python -m captioner.faithfulness CHECKPOINT --dataset flickr8k --data-dir DIR --split val

For each content word of each photo's greedy caption, the quarter of the photo's cells with the most
attention is painted over with the photo's mean colour before the network sees it. The program
measures how much the log-probability of the word falls, given the same words before it. This is
comprehensiveness (DeYoung et al. 2020, aclanthology.org/2020.acl-main.408) for regions of photos.
The same is done with three other quarters as controls:

    shifted      The attended quarter, mirrored at random and moved to a random place. Cells that
                 leave the photo on one side come back on the other. The shape stays, and each cell
                 has the same chance to be painted over.
    scattered    The same number of cells, chosen at random.
    other_photo  The quarter that was attended to for a random content word of another photo. It
                 stands for what is true of photos in general, such as that subjects are often in
                 the middle.

If the ratio of the mean falls is above 1, the places where the model looks matter more than others.
The intervals are from resampled photos. The last line on standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from captioner.captioner import Caption, Captioner
from captioner.data.datasets import Record
from captioner.data.vocabulary import END
from captioner.errors import report
from captioner.evaluation.bootstrap import bootstrap, interval
from captioner.evaluation.caption_scores import describe
from captioner.evaluation.subject import EXPECTED, load_subject, save_result
from captioner.model.decoding_options import DecodingOptions
from captioner.model.feature_cache import FeatureCache
from captioner.model.function_words import FUNCTION_WORDS

SHARE = 1 / 4  # of a photo's cells that are blanked
GREEDY = DecodingOptions("greedy", num_captions=1)
SAME = ("dataset", "split")


@dataclass(frozen=True)
class Target:
    """A content word, and the cells that are blanked for it."""

    image: int  # the number of the photo
    word: int  # the number of the word in the caption
    masks: dict[str, np.ndarray]  # kind of quarter -> bool (rows, columns)


def faithfulness(
    captioner: Captioner,
    records: Sequence[Record],
    cache: FeatureCache | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures how much words depend on the places attended to.

    Args:
        captioner: What to measure.
        records: The photos.
        cache: The features of the photos. It saves about one pass in fifteen.
        seed: Which random quarters are blanked.

    Returns:
        The mean drops of log-probability and of probability for each kind of blanked quarter; and,
        for each control, the `ratio` of the attended quarter's drop to the control's and their
        `difference` in nats. A ratio, or an end of its interval, is None if the control's drop is
        not above zero.

    Raises:
        ImageError: A photo cannot be read.
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
    """Compares the attended quarter (column 0) with a control (`column`).

    `by_image` (images, kinds + 1) has the sums of the drops over the words of each image; the last
    column is the number of words.
    """

    def difference(sums: np.ndarray) -> np.ndarray:
        return (sums[:, 0] - sums[:, column]) / sums[:, -1]

    def ratio(sums: np.ndarray) -> np.ndarray:
        # If the control's drop is not above zero, no ratio can be excluded, however large.
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
    """The content words of the captions, in their order, with the cells to blank for each.

    If all words belong to one photo, there is no "other_photo".
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
    """The quarter of the cells with the most attention (rows, columns), as bool (rows, columns)."""
    mask = np.zeros(attention.size, bool)
    order = np.argsort(-attention, axis=None, kind="stable")
    mask[order[: max(1, round(attention.size * SHARE))]] = True
    return mask.reshape(attention.shape)


def shifted(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`mask`, mirrored at random and moved to a random place, as on a torus."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            mask = np.flip(mask, axis)
    return np.roll(mask, rng.integers(mask.shape), axis=(0, 1))


def scattered(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask of as many cells as `mask` has, chosen at random."""
    return rng.permutation(mask.ravel()).reshape(mask.shape)


def blank(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Paints the masked cells (rows, columns) of a photo (size, size, 3) in its mean colour."""
    rows, columns = mask.shape
    height, width = pixels.shape[:2]
    # The cell of each pixel, as in the overlay.
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
    """The log-probabilities of the target words, given the words of the caption before them.

    Returns:
        Those for the photos as they are, (targets,), and those with each kind of quarter blanked,
        (targets, kinds).
    """
    # Words of a photo often share a quarter, and one pass computes all words of a caption.
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
    """The network's input in each pass; the passes of a photo are consecutive."""
    last, pixels = -1, np.empty(0)
    for (image, _), mask in passes.items():
        if image != last:
            last, pixels = image, captioner.pixels(records[image].path)
        yield blank(pixels, mask)


def _forced_log_probs(
    captioner: Captioner, pixels: np.ndarray, captions: Sequence[Caption]
) -> list[list[float]]:
    """The log-probabilities of the captions' words for the photos (images, size, size, 3)."""
    forced = np.zeros((len(captions), 1, GREEDY.max_words + 1), np.int32)
    for row, caption in zip(forced, captions, strict=True):
        ids = [*captioner.vocabulary.ids(caption.words), END]
        row[0, : len(ids)] = ids
    said = captioner.caption_features(captioner.features_of_pixels(pixels), GREEDY, forced)
    return [found[0].log_probs for found in said]


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def run(options: argparse.Namespace) -> int:
    """Measures a checkpoint as `command_lines.faithfulness_options` says. Returns the exit
    status."""
    try:
        subject = load_subject(options)
        found = faithfulness(subject.captioner, subject.records, subject.cache, options.seed)
    except EXPECTED as error:
        return report(error)
    entry = {"dataset": subject.name, "split": options.split} | found
    status = 0
    try:  # the measuring took long, so its result is printed even if this fails
        if options.save:
            save_result(Path(options.checkpoint), "faithfulness", entry, SAME)
    except EXPECTED as error:
        status = report(error)
    print(json.dumps(entry))
    return status
