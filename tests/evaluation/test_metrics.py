"""Scores with their intervals: the real scorers, and our arithmetic against theirs."""

import os
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from captioner.evaluation.bootstrap import bootstrap, interval
from captioner.evaluation.metrics import (
    MetricsUnavailable,
    assess,
    bleu_counts,
    corpus_bleu,
    require_metrics,
    tokenize,
)

WORDS = ["a", "the", "dog", "man", "runs", "sits", "in", "on", "grass", "water"]


def random_captions(seed: int, images: int) -> tuple[list[list[str]], list[str]]:
    """References and captions over few words, so that they share n-grams of all orders."""
    rng = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS, rng.integers(4, 12)))

    references = [[text() for _ in range(5)] for _ in range(images)]
    captions = [" ".join([*r[0].split()[:7], rng.choice(WORDS)]) for r in references]
    return references, captions


def test_scores_of_right_and_wrong_captions(metrics, capfd, tmp_path, monkeypatch):
    installed = times_of_package()
    references = {
        "1": ["A dog runs through the tall grass.", "The dog is running in a field of grass."],
        "2": ["Two men ride their bikes down a hill.", "Two cyclists are riding downhill."],
        "3": ["A girl in a red dress jumps.", "A young girl is jumping into the air."],
    }
    # Case and the full stop are the tokenizer's business, not the caption's.
    right = assess(references, {k: v[0].lower().rstrip(".") for k, v in references.items()}).scores
    assert right["BLEU-4"] == right["ROUGE-L"] == 100
    mixed = {
        "3": references["1"][0],
        "2": "two men ride their small red bikes",
        "1": references["2"][0],
    }
    java = tmp_path / "java"  # says something of its own first, as with some JAVA_TOOL_OPTIONS
    java.write_text(f'#!/bin/sh\necho "[warning] 17 3.5"\nexec {shutil.which("java")} "$@"\n')
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    wrong = assess(references, mixed)
    for name, value in wrong.scores.items():
        assert 0 <= value < right[name], name
    assert wrong.cider[1] > 5 * wrong.cider[[0, 2]].max()  # in the order of the captions
    assert wrong.cider.mean() == pytest.approx(wrong.scores["CIDEr"], abs=0.006)
    for name, (low, high) in wrong.intervals.items():
        assert 0 <= low < wrong.scores[name] < high, name
    assert times_of_package() == installed, "a read-only installation is enough"
    assert capfd.readouterr() == ("", ""), "the scorers print nothing of their own"


def times_of_package() -> list[int]:
    """When a file came or went last in the scorers' folders."""
    modules = ("tokenizer.ptbtokenizer", "meteor.meteor")
    files = [import_module(f"pycocoevalcap.{name}").__file__ for name in modules]
    return [Path(file).parent.stat().st_mtime_ns for file in files]


@pytest.mark.parametrize(
    "end", ["\n", "\r\n", "\r", "\f", "\v", "\x85", "\u2028", "\u2029", " \ud800", " ||| "]
)
def test_a_line_end_or_bars_in_a_caption_move_no_other_caption(metrics, end: str) -> None:
    plain = {"1": ["a dog runs fast"], "2": ["", "two men"], "3": [".", "it is Sunday, isn't it?"]}
    odd = {"1": [f"a dog{end}runs fast"], "2": [f"{end}", f"two{end}men{end}"], "3": plain["3"]}
    expected = {"1": ["a dog runs fast"], "2": ["", "two men"], "3": ["", "it is sunday is n't it"]}
    assert tokenize(plain) == tokenize(odd) == expected


def test_punctuation_of_other_scripts_is_none_of_the_words(metrics) -> None:
    texts = {
        "hindi": ["एक लड़का दौड़ रहा है।", "एक लड़का दौड़ रहा है"],
        "arabic": ["كلب يجري، قطة؟", "كلب يجري قطة"],
        "turkish": ["İkinci köpek", "ikinci köpek"],
        "french": ["L\u2019homme d\u2019un t\u2011shirt", "l'homme d'un t-shirt"],
        "spanish": ["¿Qué?", "qué"],
    }
    for name, (typed, said) in tokenize(texts).items():
        assert typed == said, name


@pytest.mark.parametrize("photos", ["a", "abc"])
def test_one_photo_or_the_same_captions_have_no_cider(
    metrics, caplog: pytest.LogCaptureFixture, photos: str
) -> None:
    found = assess(
        {photo: ["a dog runs on the grass"] for photo in photos},
        dict.fromkeys(photos, "a dog runs on the grass"),
    )
    assert found.scores["BLEU-4"] == 100
    assert "CIDEr" not in found.scores and "CIDEr" not in found.intervals
    assert "CIDEr is left out" in caplog.text


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "Unable to locate a Java Runtime"),
        (None, "need a Java runtime"),
    ],
)
def test_java_that_does_not_run(tmp_path, monkeypatch, script: str | None, reason: str) -> None:
    pytest.importorskip("pycocoevalcap")
    if script is not None:
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MetricsUnavailable, match=reason):
        require_metrics()


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("exec sleep 600", "not done after 1 seconds"),
        ("sleep 600; exit", "not done after 1 seconds"),  # as a script around Java does
        ("echo 'Java heap space' >&2; exit 1", "Java heap space"),
    ],
)
def test_java_that_stops_in_the_middle(metrics, tmp_path, monkeypatch, then, reason) -> None:
    java, started = tmp_path / "java", tmp_path / "pid"
    java.write_text(
        f"""#!/bin/sh
case "$*" in *meteor*) echo $$ > {started}; {then};; esac
exec {shutil.which("java")} "$@"
"""
    )
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("captioner.evaluation.metrics.METEOR_SECONDS", 1.0)
    with pytest.raises(MetricsUnavailable, match=reason):
        assess({"a": ["a dog runs"], "b": ["a man"]}, {"a": "a dog", "b": "a man"})
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


@pytest.mark.parametrize("seed", range(5))
def test_bleu_from_counts_is_that_of_pycocoevalcap(seed):
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    references, captions = random_captions(seed, 20)
    if seed == 3:
        captions = [c[: len(c) // 2] for c in captions]  # shorter than any reference
    if seed == 4:
        captions = ["zebra"] * 20
    ids = range(20)
    theirs, _ = bleu.Bleu(4).compute_score(
        {i: references[i] for i in ids}, {i: [captions[i]] for i in ids}, verbose=0
    )
    ours = corpus_bleu(bleu_counts(references, captions).sum(axis=0))
    assert ours == pytest.approx(theirs[3], abs=1e-9)


def test_a_resampled_bleu_is_that_of_the_drawn_captions():
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    references, captions = random_captions(0, 20)
    counts = bleu_counts(references, captions)
    drawn = np.random.default_rng(1).integers(0, 20, 20)
    theirs, _ = bleu.Bleu(4).compute_score(
        {n: references[i] for n, i in enumerate(drawn)},
        {n: [captions[i]] for n, i in enumerate(drawn)},
        verbose=0,
    )
    assert corpus_bleu(counts[drawn].sum(axis=0)) == pytest.approx(theirs[3], abs=1e-9)


def test_the_interval_of_a_mean_is_the_textbooks():
    values = np.random.default_rng(0).normal(50, 10, (400, 1))

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / 400

    low, high = interval(values, mean)
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15)
    assert (low, high) == tuple(interval(values, mean))
    assert bootstrap(values, mean, seed=1).mean() != bootstrap(values, mean, seed=0).mean()
