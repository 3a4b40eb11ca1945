"""Caption scores: the real scorers, and the command line on real photographs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.evaluation import MetricsUnavailable, require_metrics, score

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "assets" / "checkpoint"


@pytest.fixture
def metrics() -> None:
    try:
        require_metrics()
    except MetricsUnavailable as error:
        pytest.skip(str(error))


def evaluate(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "captioner.evaluation", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


# pycocoevalcap leaves the pipes to its Java process open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_scores_of_right_and_wrong_captions(metrics):
    references = {
        "1": ["A dog runs through the tall grass.", "The dog is running in a field of grass."],
        "2": ["Two men ride their bikes down a hill.", "Two cyclists are riding downhill."],
        "3": ["A girl in a red dress jumps.", "A young girl is jumping into the air."],
    }
    right = score(references, {k: v[0] for k, v in references.items()})
    assert right["BLEU-4"] == right["ROUGE-L"] == 100
    mixed = {"1": references["2"][0], "2": references["3"][0], "3": references["1"][0]}
    wrong = score(references, mixed)
    for name, value in wrong.items():
        assert 0 <= value < right[name], name
    # Case and the full stop are the tokenizer's business, not the caption's.
    bare = {k: v[0].lower().rstrip(".") for k, v in references.items()}
    assert score(references, bare) == right


@pytest.mark.slow
def test_the_command_line(metrics, shared, tmp_path):
    checkpoint = shutil.copytree(BUNDLED, tmp_path / "checkpoint")
    arguments = [checkpoint, "--dataset", "flickr8k", "--data-dir", shared / "data" / "flickr8k"]
    done = evaluate(*arguments, "--split", "test", "--strategy", "greedy", "--limit", 40, "--save")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    assert scores["images"] == 40 and scores["strategy"] == "greedy"
    # The bundled model, on photos it has not seen: well above nonsense.
    assert scores["BLEU-1"] > 40 and scores["CIDEr"] > 15
    saved = json.loads((checkpoint / "metrics.json").read_text())["scores"]
    assert [s for s in saved if s["split"] == "test" and s["images"] == 40] == [scores]
    assert "| test | 40 | greedy |" in (checkpoint / "README.md").read_text()


@pytest.mark.slow
def test_coco_needs_only_the_validation_files(metrics, shared, tmp_path):
    mini = shared / "data" / "coco-mini"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2014").symlink_to(mini / "val2014")
    shutil.copy(mini / "annotations" / "captions_val2014.json", tmp_path / "annotations")
    done = evaluate(
        BUNDLED, "--dataset", "coco", "--data-dir", tmp_path, "--split", "val", "--limit", 8
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["images"] == 8


def test_what_is_missing_is_said(tmp_path):
    arguments = [BUNDLED, "--dataset", "flickr8k", "--data-dir", tmp_path, "--split", "test"]
    without_java = evaluate(*arguments, PATH=str(tmp_path))
    assert without_java.returncode == 1
    assert "Java" in without_java.stderr and "Traceback" not in without_java.stderr


def test_missing_data_and_checkpoints_are_named(metrics, tmp_path):
    arguments = ["--dataset", "flickr8k", "--data-dir", tmp_path, "--split", "test"]
    done = evaluate(BUNDLED, *arguments)
    assert done.returncode == 1
    assert "Flickr8k.token.txt" in done.stderr and "Traceback" not in done.stderr
