"""Captions files as they come out of other programs, or as people name and unpack them."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_layouts import make, said

from captioner.data.datasets import DatasetError, read_folder

PHOTOS = {"a.jpg": b"", "b.jpg": b""}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "cell",
    [
        "['A dog runs.' 'It is \"brown\".'\n 'One dog\\'s run']",  # an array of NumPy
        """["A dog runs." 'It is "brown".'\n "One dog's run"]""",
        "['A dog runs.', 'It is \"brown\".', \"One dog's run\"]",  # a list of Python
        json.dumps(["A dog runs.", 'It is "brown".', "One dog's run"]),
    ],
)
def test_several_captions_in_a_cell(tmp_path: Path, cell: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("image", "caption"), ("a.jpg", cell)])
    make(tmp_path, {"captions.csv": text.getvalue()} | PHOTOS)
    (record,) = read_folder(tmp_path, val_fraction=0)
    assert record.captions == ("A dog runs.", 'It is "brown".', "One dog's run")


def test_hidden_test_sets_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    in_folders = {
        "train/metadata.csv": "file_name,text\na.jpg,a dog\n",
        "test/metadata.csv": "file_name\nb.jpg\n",
        "val/metadata.jsonl": '{"file_name": "b.jpg"}\n',
    }
    photos = {f"{split}/{name}": b"" for split in ("train", "test", "val") for name in PHOTOS}
    make(tmp_path / "folders", in_folders | photos)
    expected = {"train/a.jpg": ("a", "train", ("a dog",))}
    assert said(read_folder(tmp_path / "folders", val_fraction=0), tmp_path / "folders") == expected
    assert "left out" in caplog.text
    files = {"train.csv": "image,caption\na.jpg,a dog\n", "test.csv": "image\nb.jpg\n"}
    make(tmp_path / "files", files | PHOTOS)
    (record,) = read_folder(tmp_path / "files", val_fraction=0)
    assert record.captions == ("a dog",)
    (tmp_path / "files" / "train.csv").unlink()
    with pytest.raises(DatasetError, match=r"neither names columns"):
        read_folder(tmp_path / "files")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("blank.jsonl", '{"image": "a.jpg", "text": null}\n{"Image": "b.jpg", "Text": "x"}', "b"),
        ("list.jsonl", '{"image": "b.jpg", "captions": [null, "x"]}', "b"),
        ("list.json", '[{"image": "b.jpg", "caption": "x"}]', "b"),
        ("columns.csv", "image,caption,caption.1\nb.jpg,,x\n", "b"),
        ("path.csv", "image_path,caption\nb.jpg,x\n", "b"),
        ("stems.csv", "image_id,caption\nb,x\n", "b"),
        ("numbers.csv", "image_id,caption\n7,x\n", "7"),
        ("results.json", '[{"image_id": 7, "caption": "x"}]', "7"),
        ("no-columns.tsv", "b.jpg\tx\n", "b"),
        ("no-columns.csv", "b.jpg;x\n", "b"),
        ("captions.txt", "b.jpg#0\tx\n", "b"),
        ("open-clip.csv", "title\tfilepath\nx\tb.jpg\n", "b"),
        ("numbered.csv", "title,image,caption_0\nno,b.jpg,x\n", "b"),
        (
            "nan.json",
            '[{"image": "a.jpg", "caption": NaN}, {"image": "b.jpg", "text": "x", "split": NaN}]',
            "b",
        ),
        ("nested.jsonl", '{"image": "b.jpg", "sentences": [{"raw": "x"}]}', "b"),
    ],
)
def test_as_pandas_and_others_write_them(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    make(tmp_path, {name: content, "000007.jpg": b"", "b.txt": b"", "._b.jpg": b""} | PHOTOS)
    (record,) = read_folder(tmp_path, val_fraction=0)
    assert (record.image_id, record.captions) == (expected, ("x",))


def test_quotes_of_a_table_with_tabs_may_be_part_of_the_text(tmp_path: Path) -> None:
    rows = 'image\tcaption\na.jpg\t"Stop" says a sign, 6" wide\nb.jpg\t"Go on\n'
    make(tmp_path, {"captions.tsv": rows} | PHOTOS)
    found = {r.image_id: r.captions for r in read_folder(tmp_path, val_fraction=0)}
    assert found == {"a": ('"Stop" says a sign, 6" wide',), "b": ('"Go on',)}
    excel = 'image\tcaption\na.jpg\t"two\nlines and ""quotes"""\n'
    make(tmp_path, {"captions.tsv": excel})
    (record,) = read_folder(tmp_path, val_fraction=0)
    assert record.captions == ('two lines and "quotes"',)


def test_the_name_of_a_text_beside_a_photo_may_be_written_differently(tmp_path: Path) -> None:
    names = {"A.JPG": b"", "A.TXT": "a dog", "caf\xe9.jpg": b"", "cafe\u0301.txt": "a cat"}
    make(tmp_path, names)
    found = {r.captions for r in read_folder(tmp_path, val_fraction=0)}
    assert found == {("a dog",), ("a cat",)}


def test_a_text_for_each_photo(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, {"a.txt": "a dog"} | PHOTOS)
    assert [r.image_id for r in read_folder(tmp_path, val_fraction=0)] == ["a"]
    assert "1 photos have no captions beside them and are skipped: b.jpg" in caplog.text
    make(tmp_path, {"a.txt": b"\xff\xe9", "b.json": "["})
    with pytest.raises(
        DatasetError, match=r"2 entries cannot be used: a.txt \(.*is not UTF-8 text"
    ):
        read_folder(tmp_path)
    make(tmp_path, {"captions.csv": "image,caption\na.jpg,a cat\n"})  # then these are other notes
    (record,) = read_folder(tmp_path, val_fraction=0)
    assert record.captions == ("a cat",)


def test_parquet_is_called_that(tmp_path: Path) -> None:
    make(tmp_path, {"data/train-00000-of-00001.parquet": b"PAR1", "README.md": "---"})
    with pytest.raises(DatasetError, match=r"train-.*parquet cannot be read; write the photos"):
        read_folder(tmp_path)


@pytest.mark.parametrize("column", ["split", "set", "subset", "partition", "Split"])
def test_the_split_by_other_names(tmp_path: Path, column: str) -> None:
    rows = f"image,caption,{column}\na.jpg,x,Testing\nb.jpg,x,development\n"
    make(tmp_path, {"captions.csv": rows} | PHOTOS)
    assert {r.image_id: r.split for r in read_folder(tmp_path)} == {"a": "test", "b": "val"}
    make(tmp_path, {"captions.csv": f"image,caption,{column}\na.jpg,x,red\nb.jpg,x,\n"})
    if column.lower() == "split":
        with pytest.raises(DatasetError, match=r"its split is 'red': it must be one of"):
            read_folder(tmp_path)
    else:  # a column that means something else
        assert {r.split for r in read_folder(tmp_path, val_fraction=0)} == {"train"}


def test_photos_in_other_folders_are_found(tmp_path: Path) -> None:
    rows = "image,caption\nx/a.jpg,x\nb,y\nc.jpg,z\n"
    photos = ("p/2020/a.jpg", "p/2021/b.PNG", "p/q/r/s/c.jpg", "p/q/c.JPG", "p/b.txt", "p/._b.png")
    make(tmp_path, {"captions.csv": rows} | dict.fromkeys(photos, b""))
    (tmp_path / "p" / "circle").symlink_to(tmp_path)
    found = {r.image_id: r.path for r in read_folder(tmp_path, val_fraction=0)}
    assert found == {"x/a": tmp_path / "p/2020/a.jpg", "b": tmp_path / "p/2021/b.PNG"}
    # Of several files of one name, the one in the named folder is meant.
    make(tmp_path, {"captions.csv": "image,caption\nq/c.jpg,z\n"})
    (record,) = read_folder(tmp_path, val_fraction=0)
    assert record.path == tmp_path / "p/q/c.JPG"
    make(tmp_path, {"captions.csv": "image,caption\nc.jpg,z\n"})
    with pytest.raises(DatasetError, match=r"1 of its 1 images are missing"):
        read_folder(tmp_path)


def test_photos_of_another_split_are_not_taken(tmp_path: Path) -> None:
    files = {f"captions_{split}.csv": "image,caption\n1.jpg,x\n" for split in ("train", "val")}
    make(tmp_path, files | {"more/val2017/1.jpg": b""})
    (record,) = read_folder(tmp_path)
    assert record.split == "val"


def test_an_empty_column_does_not_hide_another(tmp_path: Path) -> None:
    make(tmp_path, {"captions.csv": "image,caption,text\na.jpg,,a dog\nb.jpg,a cat,\n"} | PHOTOS)
    found = {r.image_id: r.captions for r in read_folder(tmp_path, val_fraction=0)}
    assert found == {"a": ("a dog",), "b": ("a cat",)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", '{"image": "a.jpg"}\n{"image": "b.jpg"}', r"object in each line, name it \*\.j"),
        ("c.json", '{"images": [', "download it again"),
        ("c.csv", "x" * 200_000, "line 1: field larger than field limit"),
        ("c.csv", "version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        ("c.tsv", "a dog\thttps://example.com/1.jpg\n", "download the photos first"),
        ("c.jsonl", '[{"image": "a.jpg", "text": "x"}]', r"one list of them \*\.json\)"),
        ("c.csv", "url,caption\nx,a dog\n", "download the photos first, for instance with img2"),
        ("c.jsonl", '{"image_url": "x", "text": "y"}', "only the image's address: download"),
        (
            "c.csv",
            "PK\3\4",
            "is an archive or a spreadsheet; unpack it .* or save the table as CSV",
        ),
        ("c.json", "version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
    ],
)
def test_what_to_do_is_said(tmp_path: Path, name: str, content: str, message: str) -> None:
    make(tmp_path, {name: content} | PHOTOS)
    with pytest.raises(DatasetError, match=message):
        read_folder(tmp_path)


def test_the_path_that_the_program_asks_for_works(tmp_path: Path) -> None:
    """Also where the data set's folder has a name that is usual for a folder inside one."""
    files = {f"{name}.csv": f"image,caption\na.jpg,{name}\n" for name in ("one", "two")}
    make(tmp_path / "captions", files | {"images/a.jpg": b""})
    with pytest.raises(DatasetError, match="give the path of the right one"):
        read_folder(tmp_path / "captions")
    (record,) = read_folder(tmp_path / "captions" / "two.csv", val_fraction=0)
    assert record.captions == ("two",)


def test_a_captions_file_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, {"annotations/captions.csv": "image,caption\na.jpg,x\n", "images/a.jpg": b""})
    monkeypatch.chdir(tmp_path / "annotations")
    (record,) = read_folder("captions.csv", val_fraction=0)
    assert record.path.samefile(tmp_path / "images" / "a.jpg")


def test_photos_of_ade20k_lie_in_a_folder_called_training(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {}
    for split, number in (("train", 1), ("validation", 2)):
        line = {"dataset_id": "ADE20k", "image_id": f"ADE_{split}_{number}", "caption": "a room"}
        files[f"ade20k_{split}_localized_narratives.jsonl"] = json.dumps(line)
    files |= {"images/training/ADE_train_1.jpg": b""}
    files |= {"images/validation/ADE_validation_2.jpg": b""}
    make(tmp_path, files)
    assert {r.split: r.path.name for r in read_folder(tmp_path)} == {
        "train": "ADE_train_1.jpg",
        "val": "ADE_validation_2.jpg",
    }


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="another user takes root")
def test_a_folder_of_another_user_is_none_of_ours(tmp_path: Path) -> None:
    """A disk of its own has one: lost+found."""
    make(tmp_path / "data", {"captions.csv": "image,caption\na.jpg,a dog\n"} | PHOTOS)
    make(tmp_path / "closed", {"captions.csv": "image,caption\na.jpg,a dog\n"} | PHOTOS)
    for folder in (tmp_path / "data" / "lost+found", tmp_path / "data" / "annotations"):
        folder.mkdir(mode=0o700)
    (tmp_path / "closed").chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 1 and "pytest" in str(folder):
            folder.chmod(0o755)
    program = (
        "import encodings.utf_8_sig, os, sys; from captioner.data.folder import read_folder\n"
        "os.setuid(65534)  # who may not read the folder of Python\n"
        "for folder in sys.argv[1:]:\n"
        "    try: print(len(read_folder(folder)))\n"
        "    except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "data", tmp_path / "closed"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found, refused = done.stdout.splitlines()
    assert found == "1"
    assert refused == f"{tmp_path / 'closed'} cannot be read (Permission denied). " + (
        "Let your user read it."
    )
