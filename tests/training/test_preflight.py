"""Mistakes on train.py's command line are explained at once, before Keras is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Photo

from captioner import machine
from captioner.config import (
    BackboneConfig,
    CaptionerConfig,
    ConfigError,
    ModelConfig,
    TrainingConfig,
    describe_settings,
)
from captioner.data.datasets import DatasetError, Record
from captioner.data.mixture import Source
from captioner.data.vocabulary import Vocabulary
from captioner.model import backend
from captioner.training.cross_entropy import RunContext
from captioner.training.plan import absent_photos, too_little_memory
from captioner.training.preflight import describe_downloads, settings_of
from captioner.training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
# What is given, and what the one line says.
MISTAKES = {
    "--epochs -1": "--epochs is -1: it must be a whole number from 1 to",
    "--epochs many": 'argument --epochs: "many" is no whole number',
    "--learning-rate nan": "--learning-rate is nan: it must be a number from",
    "--epoch-count 3": "there is no option --epoch-count; the nearest is --epochs",
    "--images 0": '"0" is no number of photos; give 1 or more, or all',
    "--skip-unreadable -3": '"-3" is no number of photos; give 0 or more',
    "--set units=3": "there is no units to set. Did you mean model.units?",
    "--set training.epochs=many": "training.epochs is 'many': it must be a whole number",
    "--set training.epochs=0": "training.epochs is 0: it must be a whole number from 1 to",
    "--set training.epochs=3 --epochs 4": "the same: give one of them",
    "--finetune-from mixed11": 'InceptionV3 has no block "mixed11"; it has mixed0, mixed1',
    "--backbone-weights nothing.h5": "no backbone weights at nothing.h5. Give the path",
    "--backbone-weights lfs.safetensors": "is a Git LFS pointer, not the file itself. Run `git lfs",
    "--push-to-hub a/b/c": 'called "a/b/c": a Hub id has the form USER/NAME',
    "--push-to-hub a/b": "hf auth login",
    "--private": "of no use without --push-to-hub",
    "--output note.txt": "note.txt cannot be written to (File exists). Move the file away",
    "--output mine": "mine/checkpoint holds other files (thesis.txt), which the new checkpoint",
    "--output run": "run/checkpoint is a file. Move it away, or give another --output",
    "--output trained": "trained is a checkpoint, not the output folder of a run. Give its parent",
    "--output out --features out/checkpoint": "--features is in out/checkpoint, which the new",
    "--features note.txt/below": "Move the file away that is in its place, or give another --feat",
    "--dataset coko": "Did you mean coco?",
    "--dataset folder --data-dir none": "there is no folder none; correct the path",
    "--dataset flickr8k --data-dir .": "token.txt",
    "--dataset folder --data-dir .": "0 training and 1 validation photos: both are needed",
}
TRY_ALL = """
import io, json, sys
import train
said = {}
for options in sys.argv[1:]:
    sys.argv, sys.stderr = ["train.py", *options.split()], io.StringIO()
    try:
        code = train.main()
    except SystemExit as end:
        code = end.code
    said[options] = [code, sys.stderr.getvalue()]
print(json.dumps([said, sorted({"keras", "tensorflow", "jax"} & set(sys.modules))]))
"""


def test_mistakes_are_explained_before_keras_is_imported(tmp_path: Path, photo: Photo) -> None:
    photo().save(tmp_path / "a.png")
    (tmp_path / "note.txt").write_text("precious")
    (tmp_path / "mine" / "checkpoint").mkdir(parents=True)
    (tmp_path / "mine" / "checkpoint" / "thesis.txt").write_text("more precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint").write_text("most precious")
    (tmp_path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "trained").mkdir()
    for name in ("config.json", "decoder.safetensors"):
        (tmp_path / "trained" / name).touch()
    (tmp_path / "captions.csv").write_text("image,caption,split\na.png,a dog,val\n")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", TRY_ALL, *MISTAKES],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said, imported = json.loads(done.stdout)
    assert imported == []
    for options, message in MISTAKES.items():
        code, lines = said[options]
        assert code in (1, 2) and lines.startswith("error: "), (options, lines)
        assert lines.count("\n") == 1, "one line"
        assert message in lines, options
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


def test_what_is_not_there_yet(tmp_path: Path) -> None:
    (line,) = describe_downloads([Source("coco", tmp_path), Source("flickr8k", tmp_path)], None)
    assert f"MS-COCO 2014 is not in {tmp_path} yet: 6000 photos and their captions" in line
    assert "all photos" in describe_downloads([Source("coco", tmp_path)], "all")[0]
    (tmp_path / "here.jpg").touch()
    paths = [tmp_path / name for name in ("here.jpg", "gone.jpg", "to-come.jpg")]
    urls = (None, None, "http://127.0.0.1/to-come.jpg")
    records = [Record(p.stem, p, ("a",), "train", u) for p, u in zip(paths, urls, strict=True)]
    assert absent_photos(records, skip=1) == 1
    with pytest.raises(DatasetError, match=r"^1 photos are not there: .*gone\.jpg.*unreadable 1"):
        absent_photos(records, skip=0)


def test_a_check_says_what_memory_has_no_room_for(tmp_path: Path, monkeypatch) -> None:
    records = [Record(str(i), tmp_path, ("a dog",), "train") for i in range(40)]
    model = ModelConfig(5, rows=8, columns=8, channels=2048)  # 0.26 MB of features for each photo
    training = TrainingConfig(finetune_from="mixed8", finetune_image_size=100)  # 30,000 bytes
    config = CaptionerConfig(model, BackboneConfig("inception_v3", 299), training)
    cache: Any = None  # nothing is read
    words = Vocabulary.build(["a dog"])
    run = RunContext(config, words, cache, records[:30], records[30:], tmp_path)

    def said(device: float, main: float) -> list[str]:
        monkeypatch.setattr(backend, "free_device_memory", lambda: int(device))
        monkeypatch.setattr(machine, "memory", lambda: int(main))
        return [*too_little_memory(run, features=70)]

    assert said(device=1e9, main=1e9) == said(device=0, main=1e7) == []
    (line,) = said(device=1e7, main=1e9)
    assert "the features, 0.0 GB, are read from disk" in line
    assert len(said(device=1e9, main=3e7)) == 1, "they are collected there before they are sent"
    (line,) = said(device=0, main=2.4e6)
    assert "20 of 40 photos for fine-tuning are decoded again" in line
    assert len(said(device=1e6, main=1e6)) == 2


def test_all_fields_are_listed_with_what_they_are() -> None:
    lines = describe_settings(RECIPES["best"]).splitlines()
    assert "training.epochs=15" in [line.split()[0] for line in lines], "the recipe's value"
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines), "and what it is"
    # Each line can be given as it stands.
    recipe, _ = settings_of(RECIPES["best"], [line.split()[0] for line in lines], {})
    assert describe_settings(recipe).splitlines() == lines


def test_options_and_settings_come_together() -> None:
    given = {"epochs": 2, "mirror": None, "output": "elsewhere"}
    settings = ["training.cider_captions=people", "model.units=64"]
    recipe, training = settings_of(RECIPES["best"], settings, given)
    assert (training.epochs, training.cider_captions, training.mirror) == (2, "people", True)
    assert recipe.model == {"attention_units": 128, "units": 64}
    with pytest.raises(ConfigError, match=r"--cider-epochs and --set training\.cider_epochs"):
        settings_of(RECIPES["best"], ["training.cider_epochs=1"], {"cider_epochs": 1})
