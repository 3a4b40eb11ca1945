"""Scores captions against references with `pycocoevalcap`, the COCO caption evaluation (Chen et al.
2015, arXiv 1504.00325), and the Penn Treebank tokenizer that it brings. Both need Java.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from captioner.data.text import plain_letters
from captioner.evaluation.bootstrap import interval
from captioner.evaluation.java_process import MetricsUnavailable, started

logger = logging.getLogger(__name__)

# Vertical bars, by which METEOR separates the captions that it is sent, and punctuation of other
# scripts, such as the full stop of Hindi, which the tokenizer's own list lacks.
_MARKS = regex.compile(r"\|+|(?V1)[\p{P}--\p{ASCII}]+")
# Limits in seconds. METEOR and the tokenizer normally take minutes for a whole data set.
JAVA_SECONDS, TOKENIZER_SECONDS, METEOR_SECONDS = 60.0, 1800.0, 1800.0
# Java's own notes may precede an answer: warnings, or what JAVA_TOOL_OPTIONS asks for.
_BEGIN = "beginofcaptions"
_NUMBERS = regex.compile(rb"[-+.\deE\s]+")
ORDERS = 4  # BLEU-4: n-grams of one to four words


def require_metrics() -> None:
    """Raises `MetricsUnavailable` unless `pycocoevalcap` is installed and Java runs."""
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise MetricsUnavailable(
            "pycocoevalcap is not installed. Run: pip install -r requirements-train.txt"
        ) from None
    with started(["-version"], JAVA_SECONDS) as java:  # every Mac has a /usr/bin/java without Java
        java.exchange()


@dataclass(frozen=True)
class Assessment:
    """The scores of a set of captions, and the CIDEr of each one."""

    scores: dict[str, float]  # percent; CIDEr: the usual scale times 100
    intervals: dict[str, list[float]]  # BLEU-4 and CIDEr: lower and upper end, 95% confidence
    cider: np.ndarray  # float64 (images,), times 100, in the order of the captions


def assess(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> Assessment:
    """Scores one caption for each image, with bootstrap intervals of BLEU-4 and CIDEr.

    CIDEr weighs n-grams by how many images of the whole set have them. The resampled data sets keep
    those weights, so their CIDEr is the mean of their images' scores.

    Args:
        references: The reference captions of each image, by image id.
        captions: The caption of each image, by image id.

    Raises:
        MetricsUnavailable: A scorer or the tokenizer failed.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = tokenize({k: references[k] for k in captions})
    ours = tokenize({k: [v] for k, v in captions.items()})
    try:
        bleu, _ = Bleu(ORDERS).compute_score(truth, ours, verbose=0)  # it would print otherwise
        meteor = _meteor(truth, ours)
        rouge, _ = Rouge().compute_score(truth, ours)
        cider, by_image = Cider().compute_score(truth, ours)
    except (OSError, ValueError) as error:
        raise MetricsUnavailable(f"pycocoevalcap failed ({error}).") from error
    values = [*bleu, meteor, rouge, cider]
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    counts = bleu_counts([truth[k] for k in captions], [ours[k][0] for k in captions])
    by_image = 100 * np.asarray(by_image, np.float64)
    ends = {
        "BLEU-4": interval(counts, lambda sums: 100 * corpus_bleu(sums)),
        "CIDEr": interval(by_image[:, None], lambda sums: sums[:, 0] / len(by_image)),
    }
    scores = {name: round(100 * float(v), 2) for name, v in zip(names, values, strict=True)}
    if len({frozenset(theirs) for theirs in truth.values()}) == 1:
        same = "there is only one photo" if len(captions) == 1 else "all have the same captions"
        logger.warning(
            "CIDEr is left out: it weighs words by how few of the photos they describe, and %s.",
            same,
        )
        del scores["CIDEr"], ends["CIDEr"]
    return Assessment(
        scores, {name: [round(end, 2) for end in both] for name, both in ends.items()}, by_image
    )


def _meteor(truth: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]) -> float:
    """METEOR of tokenized captions, in 0..1.

    This calls the Java program of pycocoevalcap with pycocoevalcap's options, but not its class.
    That class takes every line that Java prints for an answer, also Java's own notes.
    """
    from pycocoevalcap.meteor import meteor

    command = ["-Xmx2G", "-jar", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    folder, remedy = Path(meteor.__file__).parent, "Score again, or fewer photos."
    with started(command, METEOR_SECONDS, folder, remedy) as java:
        answers = (line.decode() for line in java.lines() if _NUMBERS.fullmatch(line))
        counts = []
        for image_id, references in truth.items():
            java.ask(" ||| ".join(["SCORE", *references, *ours[image_id]]))
            counts.append(_next(answers).strip())
        java.ask(" ||| ".join(["EVAL", *counts]))
        # The scores of the captions, then that of all of them.
        return [float(_next(answers)) for _ in range(len(counts) + 1)][-1]


def _next(answers: Iterator[str]) -> str:
    for answer in answers:
        return answer
    raise ValueError("it has ended early")


def tokenize(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Tokenizes captions for the scorers: lower-case Penn Treebank tokens without punctuation.

    This calls the tokenizer of pycocoevalcap with pycocoevalcap's options, but not its function.
    That function writes a file beside its code, which may be read-only. It also takes one line for
    one caption, although Java ends lines at more characters than Python: a caption with such a
    character inside would shift all later captions to another photo.

    Args:
        texts: Captions by image id.

    Returns:
        The tokens of each caption, joined with spaces, by image id.

    Raises:
        MetricsUnavailable: Java fails, or returns another number of captions than it got.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    folder = Path(ptbtokenizer.__file__).parent
    command = ["-Dfile.encoding=UTF-8", "-cp", ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = [plain_letters(text) for some in texts.values() for text in some]
    content = "".join(f"{line}\n" for line in [_BEGIN, *lines]).encode()
    with started(command, TOKENIZER_SECONDS, folder) as java:
        printed = java.exchange(content)
    _, _, answer = printed.decode(errors="replace").replace("\r\n", "\n").partition(f"{_BEGIN}\n")
    found = answer.removesuffix("\n").split("\n")
    if len(found) != len(lines):
        raise MetricsUnavailable(
            f"the tokenizer was given {len(lines)} captions and gave {len(found)} back, so no "
            "score would be right. Look for odd characters in the captions."
        )
    dropped = {*ptbtokenizer.PUNCTUATIONS}
    plain = iter(
        " ".join(w for w in line.split() if w not in dropped and not _MARKS.fullmatch(w))
        for line in found
    )
    return {k: [next(plain) for _ in some] for k, some in texts.items()}


def bleu_counts(references: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    """What each image adds to corpus BLEU (Papineni et al. 2002, section 2).

    Args:
        references: For each image its references, as tokens with spaces between them.
        captions: For each image its caption, likewise.

    Returns:
        int64 (images, 10): four counts of matching n-grams, by order; four counts of the caption's
        n-grams; the caption's length; and the length of the reference nearest to it in length.
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
    """BLEU-4 in 0..1 (...,) of the sum of `bleu_counts` over the images of a data set (..., 10)."""
    correct, guess = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, reference = sums[..., -2], sums[..., -1]
    # pycocoevalcap adds the same small numbers, which prevent a division by zero.
    precisions = (correct + 1e-15) / (guess + 1e-9)
    brevity = np.minimum(0.0, 1 - (reference + 1e-9) / (length + 1e-15))
    return np.exp(np.log(precisions).mean(axis=-1) + brevity)
