"""`python -m captioner` with the bundled checkpoint on real photographs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio
import numpy as np
import pytest
from PIL import Image

import captioner.__main__
from captioner import Captioner
from captioner.__main__ import find_photos, main
from captioner.captioner import Caption
from captioner.environment import BUNDLED_CHECKPOINT

ROOT = Path(__file__).parents[1]
PHOTOS = Path(gradio.__file__).parent / "media_assets" / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, one of them below, a damaged one and a letter."""
    photos = tmp_path / "my photos"
    (photos / "deep").mkdir(parents=True)
    shutil.copy(PHOTOS / "lion.jpg", photos / "a lion.jpg")
    shutil.copy(PHOTOS / "tower.jpg", photos / "deep" / "TOWER.JPG")
    (photos / "broken.jpg").write_bytes((PHOTOS / "lion.jpg").read_bytes()[:300])
    (photos / "letter.txt").write_text("Dear Sir or Madam")
    return photos


def test_a_folder_with_odd_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = ["--csv", str(tmp_path / "all.csv"), "--grid", str(tmp_path / "new" / "grids")]
    outputs += ["--html", str(tmp_path / "pages")]
    search = ["--num-captions", "2", "--seed", "7", "--region", "0,0,0.5,1", "--prefix", "a"]
    assert main([str(folder), "--json", *outputs, *search]) == 1
    captured = capsys.readouterr()
    good, broken, below = [json.loads(line) for line in captured.out.splitlines()]
    assert Path(good["file"]).name == "a lion.jpg" and Path(below["file"]).name == "TOWER.JPG"
    assert "broken.jpg" in broken["error"] and "captions" not in broken
    reported = captured.err.splitlines()
    assert any("broken.jpg" in line for line in reported)
    assert any("that are not pictures are left out (1)" in line for line in reported)
    captioner = Captioner.from_pretrained(BUNDLED_CHECKPOINT)
    expected = captioner.caption(good["file"], 2, seed=7, region=(0, 0, 0.5, 1), prefix="a")
    assert [c["text"] for c in good["captions"]] == [c.text for c in expected]
    assert good["captions"][0]["words"] == expected[0].words
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["file"], r["rank"], r["caption"]) for r in rows] == [
        (photo["file"], str(rank), caption["text"])
        for photo in (good, below)
        for rank, caption in enumerate(photo["captions"], start=1)
    ]
    grids = sorted(p.name for p in (tmp_path / "new" / "grids").iterdir())
    assert grids == ["TOWER.png", "a lion.png"]
    assert sorted(p.name for p in (tmp_path / "pages").iterdir()) == ["TOWER.html", "a lion.html"]
    assert "data:image/jpeg;base64," in (tmp_path / "pages" / "TOWER.html").read_text("utf-8")
    with Image.open(tmp_path / "new" / "grids" / "TOWER.png") as picture:
        assert min(picture.size) > 600


def test_a_program_of_its_own(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "captioner", "a lion.jpg", "--strategy", "greedy"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    name, caption = done.stdout.strip().split("\t")
    assert name == "a lion.jpg" and len(caption.split()) > 3
    assert done.stderr == "", "quiet, and no bar where there is no terminal"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0"], "--temperature is 0.0: it must be a number from 0.01 to 100"),
        (["--num-captions", "0"], "--num-captions is 0: it must be a whole number"),
        (["--region", "0,0,1"], "four numbers"),
        (["--region", "left"], "four numbers"),
        (["--region", "1,0,0,1"], "left below right"),
    ],
)
def test_bad_options_are_named_at_once(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["photo.jpg", *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_done_is_said_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        ([str(tmp_path / "nothing.jpg")], "nothing.jpg does not exist"),
        ([str(folder), "--csv", str(tmp_path / "none" / "all.csv")], "--csv"),
        ([str(folder / "a lion.jpg"), "--checkpoint", str(folder)], "config.json"),
        ([str(folder / "a lion.jpg"), "--checkpoint", ""], "Its name is empty"),
    ):
        assert main(options) == 1
        assert message in capsys.readouterr().err


def test_what_is_done_is_kept(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a photo is deleted during the run, and where the run is interrupted then."""
    table = tmp_path / "all.csv"
    lion, tower = folder / "a lion.jpg", folder / "deep" / "TOWER.JPG"
    printed = captioner.__main__._print

    def delete(path: Path, *others: Any) -> None:
        printed(path, *others)
        if path == tower:
            raise KeyboardInterrupt
        path.unlink()

    monkeypatch.setattr(captioner.__main__, "_print", delete)
    options = ["--csv", str(table), "--grid", str(tmp_path / "grids"), "--strategy", "greedy"]
    assert main([str(lion), str(tower), *options]) == 130
    assert "a lion.jpg does not exist" in capsys.readouterr().err
    assert [line.split(",")[0] for line in table.read_text().splitlines()] == ["file", str(lion)]


def test_each_photo_once(folder: Path) -> None:
    lion = folder / "a lion.jpg"
    (folder / "._lion.jpg").write_bytes(b"\0\5\x16\7")  # macOS's notes on lion.jpg
    photos, missing = find_photos([lion, folder, folder / "letter.txt", folder / "none.jpg"])
    assert [p.name for p in photos] == ["a lion.jpg", "broken.jpg", "TOWER.JPG", "letter.txt"]
    assert missing == 1


def test_photos_without_an_extension_or_behind_links_are_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album = tmp_path / "album"
    (album / "deep").mkdir(parents=True)
    (album / "linked").symlink_to(folder / "deep")
    (album / "deep" / "circle").symlink_to(album)
    (album / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (album / "README").write_text("x")
    (album / "IMG_1.HEIC").write_bytes(b"\0\0\0\x1cftypheic")
    shutil.copy(PHOTOS / "lion.jpg", album / "0a1b2c")
    photos, missing = find_photos([album])
    names = ["0a1b2c", "IMG_1.HEIC", "gone.jpg", "linked/TOWER.JPG"]
    assert [p.relative_to(album).as_posix() for p in photos] == names
    assert missing == 0 and "that are not pictures are left out (1)" in capsys.readouterr().err


def test_a_name_of_several_lines_is_printed_on_one(capsys: pytest.CaptureFixture[str]) -> None:
    caption = Caption("a dog", ["a", "dog"], [-1.0, -1.0], np.full((2, 1, 1), 1.0, np.float32))
    captioner.__main__._print(Path("a\nb\tc.jpg"), [caption], False)
    assert capsys.readouterr().out == "a\\nb\\tc.jpg\ta dog\n"
