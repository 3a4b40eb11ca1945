"""The evaluation as a program, on real photographs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import toy_captioner

from captioner import CheckpointError
from captioner.data.datasets import DatasetError, Record
from captioner.data.images import ImageError
from captioner.evaluation import caption_scores
from captioner.evaluation.caption_scores import SAME, Evaluation, describe
from captioner.evaluation.command_lines import samples_options, scores_options
from captioner.evaluation.subject import (
    Subject,
    features_of,
    load_subject,
    read_split,
    save_result,
)
from captioner.model.decoding_options import DecodingOptions
from captioner.model.feature_cache import FeatureError

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "assets" / "checkpoint"


def evaluate(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return program("captioner.evaluation", *arguments, **environment)


def program(module: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_a_photo_that_cannot_be_read_is_named_with_its_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "photo.jpg"
    path.write_bytes(b"no picture")
    record = Record("1", path, ("a dog",), "val")
    with pytest.raises(ImageError, match=rf"^{path}: photo\.jpg is not a picture"):
        features_of(toy_captioner(looks_at=0, glance=True), [record], None)


def test_photos_that_cannot_be_read_may_be_left_out(metrics, photo, tmp_path):
    lines = ["image,caption,split"]
    for number in range(3):
        photo(number).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,a dog,val")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    arguments = [BUNDLED, "--dataset", "folder", "--data-dir", tmp_path, "--split", "val"]
    for more in ([], ["--features", tmp_path / "features"]):
        given = [*map(str, [*arguments, *more, "--skip-unreadable"])]
        found = load_subject(scores_options([*given, "1"]))
        assert [r.image_id for r in found.records] == ["0", "2"]
        assert len(features_of(found.captioner, found.records, found.cache)) == 2
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(
        FeatureError, match=r"2 of 3 photos cannot be read: .*1\.png.*2\.png.* run again\.$"
    ):
        load_subject(scores_options([*map(str, arguments), "--skip-unreadable", "1"]))


@pytest.mark.slow
def test_the_command_line(metrics, shared, tmp_path):
    checkpoint = shutil.copytree(BUNDLED, tmp_path / "checkpoint")
    arguments = [checkpoint, "--dataset", "flickr8k", "--data-dir", shared / "data" / "flickr8k"]
    report = tmp_path / "report.html"
    features = tmp_path / "features"
    done = evaluate(
        *arguments, "--split", "test", "--strategy", "greedy", "--limit", 40,
        "--features", features, "--report", report, "--save",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    assert scores["images"] == 40 and scores["strategy"] == "greedy"
    low, high = scores["confidence_95"]["CIDEr"]
    assert low < scores["CIDEr"] < high
    assert {"distinct", "novel", "words_used", "unfinished"} <= scores["captions"].keys()
    assert 0 < scores["references"]["unknown"] < 20
    assert scores["captions"]["special_token"] == 0
    assert report.read_text().count("<article>") == 3 * 13
    # The bundled model, on photos it has not seen: well above nonsense.
    assert scores["BLEU-1"] > 40 and scores["CIDEr"] > 15
    saved = json.loads((checkpoint / "metrics.json").read_text())["scores"]
    assert [s for s in saved if s["split"] == "test" and s["images"] == 40] == [scores]
    assert "| test | 40 | greedy |" in (checkpoint / "README.md").read_text()


def test_a_few_photos_do_not_replace_the_score_of_all(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(BUNDLED, tmp_path / "checkpoint"))
    (checkpoint / "metrics.json").write_text(json.dumps({"scores": []}))

    def saved_after(images: int, cider: float) -> list[tuple[int, float]]:
        entry = {"dataset": "flickr8k", "split": "test", "strategy": "greedy", "images": images}
        save_result(checkpoint, "scores", entry | {"CIDEr": cider}, SAME)
        found = json.loads((checkpoint / "metrics.json").read_text())["scores"]
        return [(score["images"], score["CIDEr"]) for score in found]

    assert saved_after(1000, 60.0) == [(1000, 60.0)]
    assert saved_after(40, 50.0) == [(1000, 60.0), (40, 50.0)]
    assert saved_after(40, 55.0) == [(1000, 60.0), (40, 55.0)]
    assert saved_after(1000, 61.0) == [(1000, 61.0)], "as many photos, or more, replace the others"


def test_photos_are_sampled_independently(tmp_path, photo):
    """Many copies of one photo: the captions that a distribution has, in no matter what batches."""
    photo(0, 16, 16).save(tmp_path / "photo.png")
    records = [Record(str(i), tmp_path / "photo.png", ("A photo.",), "val") for i in range(40)]
    captioner = toy_captioner(looks_at=0, glance=True)
    options = DecodingOptions("sample", num_captions=1, temperature=2.0)
    texts = [c.text for c in describe(captioner, records, options)]
    assert 4 < sum("red" in t.split() for t in texts) < 36
    some = [c.text for c in describe(captioner, records[30:33], options)]
    assert some == texts[30:33]
    other = [c.text for c in describe(captioner, records[:12], replace(options, seed=1))]
    assert other != texts[:12]
    greedy = describe(captioner, records[:8], DecodingOptions("greedy", num_captions=1))
    assert len({c.text for c in greedy}) == 1


@pytest.mark.slow
def test_samples_of_coco_whose_training_files_are_missing(shared, tmp_path):
    mini = shared / "data" / "coco-mini"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2014").symlink_to(mini / "val2014")
    shutil.copy(mini / "annotations" / "captions_val2014.json", tmp_path / "annotations")
    diagram = tmp_path / "diagram.png"
    arguments = [BUNDLED, "--dataset", "coco", "--data-dir", tmp_path, "--split", "val"]
    arguments += ["--limit", 8, "--temperatures", 0.5, "--diagram", diagram]
    done = program("captioner.evaluation.samples", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    (at,) = found["samples"]
    assert at["temperature"] == 0.5 and 0 < at["mean"] < at["best"]
    assert diagram.read_bytes().startswith(b"\x89PNG")
    assert "port.cc" not in done.stderr, "notes of TensorFlow"


@pytest.mark.parametrize(
    "module", ["captioner.evaluation", "captioner.evaluation.samples", "captioner.faithfulness"]
)
def test_mistakes_are_refused_before_keras_is_imported(module, tmp_path):
    (tmp_path / "keras.py").write_text("raise SystemExit('imported')")
    arguments = [BUNDLED, "--dataset", "folder", "--data-dir", tmp_path / "none", "--split", "val"]
    done = program(module, *arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert f"--data-dir: there is no folder {tmp_path / 'none'}" in done.stderr


def test_what_is_missing_is_said(tmp_path):
    arguments = [BUNDLED, "--dataset", "flickr8k", "--data-dir", tmp_path, "--split", "test"]
    without_java = evaluate(*arguments, PATH=str(tmp_path))
    assert without_java.returncode == 1
    assert "Java" in without_java.stderr and "Traceback" not in without_java.stderr


def test_missing_data_and_checkpoints_are_named(metrics, tmp_path, capsys):
    arguments = [BUNDLED, "--dataset", "flickr8k", "--data-dir", tmp_path, "--split", "test"]
    assert caption_scores.run(scores_options(list(map(str, arguments)))) == 1
    said = capsys.readouterr().err
    assert "Flickr8k.token.txt" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0"], "--temperature has no meaning for --strategy beam"),
        (["--strategy", "sample", "--temperature", "0"], "from 0.01 to 100"),
        (["--limit", "0"], "at least 1"),
        (["--report", "missing/report.html"], "there is no folder missing"),
        (["--report", "tests"], "--report: tests is a folder. Give the name of a file"),
        (["--report", "/proc/report.html"], "/proc cannot be written to"),
        (["--save"], "--save needs a checkpoint directory"),
    ],
)
def test_options_without_sense_are_refused_at_once(options, message, capsys):
    arguments = ["nobody/nothing", "--dataset", "flickr8k", "--data-dir", ".", "--split", "val"]
    with pytest.raises(SystemExit):
        scores_options([*arguments, *options])
    assert message in capsys.readouterr().err


def test_scores_that_cannot_be_saved_are_printed(metrics, tmp_path, monkeypatch, capsys):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ("config.json", "README.md"):
        shutil.copy(BUNDLED / name, checkpoint)
    arguments = [checkpoint, "--dataset", "folder", "--data-dir", tmp_path, "--split", "val"]
    options = scores_options([*map(str, arguments), "--save"])
    (checkpoint / "metrics.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"metrics\.json is damaged .* Put a copy in its"):
        load_subject(options)
    ready = Subject(toy_captioner(0, False), [], None, "folder", [])
    done = Evaluation([], np.zeros(0), {"images": 2})
    monkeypatch.setattr(caption_scores, "load_subject", lambda _: ready)
    monkeypatch.setattr(caption_scores, "examine", lambda *_: done)
    assert caption_scores.run(options) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["images"] == 2
    assert said.err.startswith("error: ") and "metrics.json is damaged" in said.err
    (checkpoint / "metrics.json").unlink()
    assert caption_scores.run(options) == 0
    assert json.loads((checkpoint / "metrics.json").read_text())["scores"][0]["images"] == 2


@pytest.mark.parametrize("wanted", [["--save"], ["--diagram", "diagram.png"]])
def test_a_calibration_needs_the_temperature_of_the_page(wanted, capsys):
    arguments = [str(BUNDLED), "--dataset", "folder", "--data-dir", ".", "--split", "val", *wanted]
    assert samples_options(arguments).temperatures == [0.3, 0.5, 0.7]
    with pytest.raises(SystemExit):
        samples_options([*arguments, "--temperatures", "0.3", "0.7"])
    assert "add 0.5 to --temperatures" in capsys.readouterr().err


def test_training_captions(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split, number in (("train", 1), ("val", 2)):
        content = {
            "images": [{"id": number, "file_name": "photo.jpg"}],
            "annotations": [{"id": 1, "image_id": number, "caption": f"A {split} caption."}],
        }
        (tmp_path / "annotations" / f"captions_{split}2014.json").write_text(json.dumps(content))
    (tmp_path / "val2014").mkdir()
    with pytest.raises(DatasetError, match="no photos of the val split"):
        read_split("coco", tmp_path, "val", 0)
    (tmp_path / "val2014" / "photo.jpg").touch()
    records, captions = read_split("coco", tmp_path, "val", 0)
    assert [r.image_id for r in records] == ["2"] and captions == ["A train caption."]
    (tmp_path / "annotations" / "captions_train2014.json").unlink()
    assert read_split("coco", tmp_path, "val", 0)[1] == []
