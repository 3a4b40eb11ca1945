"""Caption scores against references, as computed by `pycocoevalcap`, the COCO caption evaluation
(Chen et al. 2015, arXiv 1504.00325), with its own Penn Treebank tokenizer; both need Java.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captioner.errors import CaptionerError
from captioner.evaluation.bootstrap import interval

logger = logging.getLogger(__name__)

_JAVA = "METEOR and the tokenizer need a Java runtime (Debian: default-jre-headless)."
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, ends of lines
METEOR_SECONDS = 1800.0  # for a whole data set, which takes minutes
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
    _require_java()


def _require_java() -> None:
    """Tries it: every Mac has a /usr/bin/java, with or without a Java runtime behind it."""
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
    from pycocoevalcap.rouge.rouge import Rouge

    truth = tokenize({k: references[k] for k in captions})
    ours = tokenize({k: [v] for k, v in captions.items()})
    try:
        with _quiet():
            bleu, _ = Bleu(ORDERS).compute_score(truth, ours)
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
    if len(captions) == 1:
        logger.warning(
            "CIDEr is left out: it weighs words by how few of the photos they describe, and there "
            "is one photo alone."
        )
        del scores["CIDEr"], ends["CIDEr"]
    return Assessment(
        scores, {name: [round(end, 2) for end in both] for name, both in ends.items()}, by_image
    )


def _meteor(truth: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]) -> float:
    """METEOR of tokenized captions. Its Java ends with this call, and after `METEOR_SECONDS`."""
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    java, late = meteor.meteor_p, threading.Event()

    def give_up() -> None:
        late.set()
        java.kill()  # whoever waits for its answer then reads the end of the pipe

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
            with contextlib.suppress(OSError):  # what was not sent yet can no longer be
                pipe.close()
        if meteor.lock.locked():  # after an error; its destructor would wait for the lock for ever
            meteor.lock.release()


def tokenize(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Captions by image as the scorers want them: Penn Treebank tokens, lower case, without
    punctuation.

    This calls the tokenizer that pycocoevalcap carries, with its options. pycocoevalcap's own call
    writes a file beside its code, which may be read-only; and it takes one line for one caption,
    where Java's idea of a line's end is wider: a caption with a line end inside would move all that
    follow to the photo before.

    Raises `MetricsUnavailable` if Java fails, or does not give back as many captions as it got.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    folder = Path(ptbtokenizer.__file__).parent
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = [one_line(text) for some in texts.values() for text in some]
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
    plain = iter(" ".join(w for w in line.split() if w not in dropped) for line in found)
    return {k: [next(plain) for _ in some] for k, some in texts.items()}


def one_line(text: str) -> str:
    """`text` without line ends, control characters and halves of surrogate pairs.

    Unlike `captioner.data.text.clean`, it puts a space where half a character was, and leaves the
    rest of a text as it is.
    """
    plain = "".join(" " if unicodedata.category(c) in _UNPRINTABLE else c for c in text)
    return " ".join(plain.split())


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
