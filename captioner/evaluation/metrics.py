"""Caption scores against references, as computed by `pycocoevalcap`, the COCO caption evaluation
(Chen et al. 2015, arXiv 1504.00325), with its own Penn Treebank tokenizer; both need Java.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from captioner.errors import CaptionerError
from captioner.evaluation.bootstrap import interval

ORDERS = 4  # BLEU-4: n-grams of one to four words


class MetricsUnavailable(CaptionerError, RuntimeError):
    """The scorers cannot run here; the message says what to install."""


def require_metrics() -> None:
    """Raises `MetricsUnavailable` unless `pycocoevalcap` and Java are there."""
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise MetricsUnavailable(
            "pycocoevalcap is not installed. Run: pip install -r requirements-train.txt"
        ) from None
    if shutil.which("java") is None:
        raise MetricsUnavailable(
            "METEOR and the tokenizer need a Java runtime (Debian: default-jre-headless)."
        )


@dataclass(frozen=True)
class Assessment:
    """How good captions are, all of them and one by one."""

    scores: dict[str, float]  # percent; CIDEr: the usual scale times 100
    intervals: dict[str, list[float]]  # of some scores: lower and upper end, 95% confidence
    cider: np.ndarray  # float64 (images,), in the order of the captions


def score(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> dict[str, float]:
    """The scores of `assess` alone."""
    return assess(references, captions).scores


def assess(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> Assessment:
    """Scores of one caption for each image id, by bootstrap the intervals of BLEU-4 and CIDEr.

    CIDEr weighs n-grams by how many images of the whole set have them. The resampled data sets keep
    those weights: their CIDEr is the mean of their images' scores.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with _quiet():
        tokenize = PTBTokenizer().tokenize
        truth = tokenize({k: [{"caption": c} for c in references[k]] for k in captions})
        ours = tokenize({k: [{"caption": v}] for k, v in captions.items()})
        bleu, _ = Bleu(ORDERS).compute_score(truth, ours)
        meteor, _ = Meteor().compute_score(truth, ours)
        rouge, _ = Rouge().compute_score(truth, ours)
        cider, by_image = Cider().compute_score(truth, ours)
    values = [*bleu, meteor, rouge, cider]
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    counts = bleu_counts([truth[k] for k in captions], [ours[k][0] for k in captions])
    by_image = 100 * np.asarray(by_image, np.float64)
    ends = {
        "BLEU-4": interval(counts, lambda sums: 100 * corpus_bleu(sums)),
        "CIDEr": interval(by_image[:, None], lambda sums: sums[:, 0] / len(by_image)),
    }
    return Assessment(
        {name: round(100 * float(v), 2) for name, v in zip(names, values, strict=True)},
        {name: [round(end, 2) for end in both] for name, both in ends.items()},
        by_image,
    )


def bleu_counts(references: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    """What each image adds to corpus BLEU (Papineni et al. 2002, section 2), int64 (images, 10):
    its matching n-grams of each order, its n-grams of each order, the caption's length, and the
    length of the reference nearest to that. Texts are tokenized, with spaces between the tokens.
    """
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=ORDERS)
    for caption, theirs in zip(captions, references, strict=True):
        scorer += (caption, list(theirs))
    rows = []
    for image in scorer.ctest:
        length = image["testlen"]
        nearest = min(image["reflen"], key=lambda theirs: (abs(theirs - length), theirs))
        rows.append([*image["correct"], *image["guess"], length, nearest])
    return np.array(rows, np.int64)


def corpus_bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU-4 in 0..1 (...,) of `bleu_counts` summed over the images of a data set (..., 10)."""
    correct, guess = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, reference = sums[..., -2], sums[..., -1]
    # The two small numbers are pycocoevalcap's, against a division by nothing.
    precisions = (correct + 1e-15) / (guess + 1e-9)
    brevity = np.minimum(0.0, 1 - (reference + 1e-9) / (length + 1e-15))
    return np.exp(np.log(precisions).mean(axis=-1) + brevity)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pycocoevalcap prints its progress on standard output, where the scores belong."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
