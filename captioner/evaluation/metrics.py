"""Scores captions against references with `pycocoevalcap`, the COCO caption evaluation (Chen et al.
2015, arXiv 1504.00325), and the Penn Treebank tokenizer that it brings. Both need Java.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from captioner.data.text import plain_letters
from captioner.errors import CaptionerError
from captioner.evaluation.bootstrap import interval

logger = logging.getLogger(__name__)

_JAVA = "METEOR and the tokenizer need a Java runtime (Debian: default-jre-headless)."
# Vertical bars, by which METEOR separates the captions that it is sent, and punctuation of other
# scripts, such as the full stop of Hindi, which the tokenizer's own list lacks.
_MARKS = regex.compile(r"\|+|(?V1)[\p{P}--\p{ASCII}]+")
METEOR_SECONDS = 1800.0  # limit for a whole data set, which normally takes minutes
ORDERS = 4  # BLEU-4: n-grams of one to four words


class MetricsUnavailable(CaptionerError, RuntimeError):
    """The scorers cannot run here; the message says what to install."""


def require_metrics() -> None:
    """Raises `MetricsUnavailable` unless `pycocoevalcap` is installed and Java runs."""
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise MetricsUnavailable(
            "pycocoevalcap is not installed. Run: pip install -r requirements-train.txt"
        ) from None
    _require_java()


def _require_java() -> None:
    """Runs Java once, because every Mac has a /usr/bin/java even if no Java is installed."""
    if shutil.which("java") is None:
        raise MetricsUnavailable(_JAVA)
    try:
        tried = subprocess.run(
            ["java", "-version"], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MetricsUnavailable(f"Java does not run ({error}). {_JAVA}") from error
    if tried.returncode:
        said = " ".join(tried.stderr.split())[:200]
        raise MetricsUnavailable(f"Java does not run ({said}). {_JAVA}")


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

    The Java process that computes it ends with this call, after `METEOR_SECONDS` at the latest.
    """
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    java, late = meteor.meteor_p, threading.Event()

    def give_up() -> None:
        late.set()
        java.kill()  # then `compute_score`, which waits for its answer, reads the end of the pipe

    watch = threading.Timer(METEOR_SECONDS, give_up)
    watch.daemon = True
    watch.start()
    try:
        return meteor.compute_score(truth, ours)[0]
    except (OSError, ValueError) as error:
        why = "ended early, perhaps because memory was short"
        if late.is_set():
            why = f"was not done after {METEOR_SECONDS:g} seconds"
        raise MetricsUnavailable(f"METEOR's Java {why}. Score again, or fewer photos.") from error
    finally:
        watch.cancel()
        java.kill()
        java.wait()
        for pipe in filter(None, (java.stdin, java.stdout, java.stderr)):
            with contextlib.suppress(OSError):  # it has bytes that can no longer be sent
                pipe.close()
        if meteor.lock.locked():  # after an error; METEOR's destructor would wait for it forever
            meteor.lock.release()


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
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = [plain_letters(text) for some in texts.values() for text in some]
    content = "".join(f"{line}\n" for line in lines).encode()
    try:
        done = subprocess.run(
            command, cwd=folder, input=content, capture_output=True, check=True, timeout=1800
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MetricsUnavailable(f"the tokenizer failed ({error}). {_JAVA}") from error
    found = done.stdout.decode(errors="replace").removesuffix("\n").split("\n")
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
