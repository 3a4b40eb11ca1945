"""Data sets in the layouts that they are published in: a tiny one of each is read, splits kept."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from published_layouts import LAYOUTS, Files, coco

from captioner.data.datasets import DATASETS, DatasetError, Record, read_dataset, read_folder


def make(root: Path, files: Files) -> Path:
    """Writes the files: text as it is, other values as JSON; photos are empty."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return root


def said(records: list[Record], root: Path) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {r.path.relative_to(root).as_posix(): (r.image_id, r.split, r.captions) for r in records}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    make(tmp_path, files)
    assert said(read_folder(tmp_path, val_fraction=0), tmp_path) == expected


@pytest.mark.parametrize("name", ["COCO 2017", "COCO, each archive in a folder of its name"])
def test_a_published_file_alone(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    make(tmp_path, files)
    for split in ("train", "val"):
        (path,) = tmp_path.rglob(f"captions_{split}2017.json")
        found = said(read_folder(path, val_fraction=0), tmp_path)
        assert found == {name: told for name, told in expected.items() if told[1] == split}


def test_of_two_releases_the_one_with_photos_is_read(tmp_path: Path) -> None:
    files, expected = LAYOUTS["COCO 2017"]
    make(tmp_path, files)
    content = coco((9, "COCO_train2014_9.jpg", "a dog"))
    make(tmp_path, {"annotations/captions_train2014.json": content})
    assert said(read_folder(tmp_path), tmp_path) == expected
    (tmp_path / "train2014").mkdir()
    with pytest.raises(DatasetError, match=r"several files .*train2014.*give the path"):
        read_folder(tmp_path)


def test_coco_2017_beside_2014(tmp_path: Path) -> None:
    files, expected = LAYOUTS["COCO 2017"]
    make(tmp_path, files | LAYOUTS["COCO 2014"][0])
    assert said(read_dataset("coco2017", tmp_path), tmp_path) == expected
    for name in ("COCO, each archive in a folder of its name", "COCO's photos in images/"):
        files, expected = LAYOUTS[name]
        other = make(tmp_path / name, files)
        assert said(read_dataset("coco2017", other), other) == expected
    for place in ("annotations", "annotations/captions_train2017.json"):
        found = said(read_dataset("coco2017", other / place), other)
        assert set(found) <= set(expected) and found
    make(tmp_path / "old", LAYOUTS["COCO 2014"][0])
    with pytest.raises(DatasetError, match=r"has COCO 2014, .* use --dataset coco:.*old$"):
        read_dataset("coco2017", tmp_path / "old")


def test_the_folder_of_the_captions_is_enough(tmp_path: Path) -> None:
    files, expected = LAYOUTS["COCO 2017"]
    make(tmp_path, files)
    assert said(read_folder(tmp_path / "annotations"), tmp_path) == expected
    make(tmp_path, {"flickr30k/results_20130124.token": "1.jpg#0\tA dog ."})
    make(tmp_path, {"flickr30k-images/1.jpg": b""})
    (record,) = read_folder(tmp_path / "flickr30k", val_fraction=0)
    assert record.path == tmp_path / "flickr30k-images" / "1.jpg"


def test_a_folder_above_the_data_set_or_another_release_is_called_that(tmp_path: Path) -> None:
    make(tmp_path / "coco", LAYOUTS["COCO 2017"][0])
    with pytest.raises(DatasetError, match=r"captions are not in .* give the path .*coco$"):
        read_folder(tmp_path)
    fetch = DATASETS["coco"].fetch
    assert fetch
    for read in (lambda at: read_dataset("coco", at), lambda at: fetch(at, None, 0, False)):
        with pytest.raises(DatasetError, match=r"has COCO 2017, .* use --dataset coco2017:.*coco$"):
            read(tmp_path / "coco")
    old = make(tmp_path / "old", LAYOUTS["COCO 2014"][0])
    zipped = make(tmp_path / "zipped", {"annotations_trainval2014.zip": b""})
    for place, message in (
        (old / "annotations", r"has only the captions; .* --dataset coco:.*old$"),
        (old / "annotations" / "captions_val2014.json", "is a file; give the path of the folder"),
        (make(tmp_path / "up", {"coco/annotations/captions_val2014.json": {}}), "path .*up/coco$"),
        (zipped, r"archives of COCO; unpack annotations_trainval2014\.zip first"),
        (zipped / "annotations_trainval2014.zip", "is a file; unpack it, and give"),
    ):
        with pytest.raises(DatasetError, match=message):  # and nothing is downloaded
            fetch(place, None, 0, False)
    with pytest.raises(DatasetError, match="is a file; give the path of the folder into which"):
        read_dataset("flickr8k", zipped / "annotations_trainval2014.zip")
    make(tmp_path / "karpathy", {"dataset_flickr8k.json": {}})
    with pytest.raises(DatasetError, match="Karpathy's splits; use --dataset folder:"):
        read_dataset("flickr8k", tmp_path / "karpathy")
    make(tmp_path / "kaggle", {"captions.txt": "image,caption\na.jpg,a dog\n"})
    with pytest.raises(DatasetError, match=r"as Kaggle publishes it, .* use --dataset folder:"):
        read_dataset("flickr8k", tmp_path / "kaggle")


def test_what_is_there_instead_of_captions_is_said(tmp_path: Path) -> None:
    for number, (files, message) in enumerate(
        (
            ({"annotations.zip": b"", "train/a.jpg": b""}, r"unpack annotations\.zip first"),
            ({"captions.xlsx": b"", "a.jpg": b""}, r"save captions\.xlsx as CSV in UTF-8"),
            ({"a/b/c/captions.csv": "image,caption\na.jpg,x\n"}, r"give the path .*a/b/c$"),
            ({"Flickr8k_text/Flickr8k.token.txt": "x"}, r"official layout.* --dataset flickr8k:"),
            ({"dataset_dict.json": {}, "train/data.arrow": b""}, r"data\.arrow cannot be read"),
            ({"annotations/instances_val2017.json": {}}, r"no captions in instances_val2017\.json"),
        )
    ):
        with pytest.raises(DatasetError, match=message):
            read_folder(make(tmp_path / str(number), files))
    make(tmp_path / "p", {"captions.csv": "image,caption\na.jpg,x\n", "images.zip": b""})
    with pytest.raises(DatasetError, match=r"1 of its 1 images are missing .*; unpack images\.zip"):
        read_folder(tmp_path / "p")
    objects = coco((9, "9.jpg", ""))
    objects["annotations"] = [{"id": 1, "image_id": 9, "bbox": [], "category_id": 1}]
    make(tmp_path, {"boxes/instances_val2017.json": objects})
    with pytest.raises(DatasetError, match=r"has no captions; take the file .* captions_"):
        read_folder(tmp_path / "boxes" / "instances_val2017.json")


def test_a_split_without_photos_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = LAYOUTS["COCO 2017"]
    make(tmp_path, files)
    (photo,) = (tmp_path / "val2017").iterdir()
    photo.unlink()
    assert list(said(read_folder(tmp_path), tmp_path)) == ["train2017/000000000009.jpg"]
    assert "captions_val2017.json: 1 of its 1 images are missing in" in caplog.text
    assert "val2017" in caplog.text


def test_what_a_run_writes_into_the_folder_is_not_taken_for_captions(tmp_path: Path) -> None:
    make(tmp_path, {"captions.csv": "image,caption\na.jpg,a dog\n", "a.jpg": b""})
    before = read_folder(tmp_path)
    make(tmp_path, {"run.json": {"model": {}}, "features/verified.jsonl": "{}\n"})
    assert read_folder(tmp_path) == before


def test_captions_that_vizwiz_rejects_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = coco((1, "a.jpg", "A can ."), (2, "b.jpg", "Quality issues are too severe"))
    content["annotations"][0] |= {"is_precanned": False, "is_rejected": False}
    content["annotations"][1] |= {"is_precanned": True, "is_rejected": False}
    make(tmp_path, {"annotations/train.json": content, "train/a.jpg": b"", "train/b.jpg": b""})
    assert list(said(read_folder(tmp_path), tmp_path)) == ["train/a.jpg"]
    assert "1 captions are marked as rejected or precanned and are skipped" in caplog.text


def test_ids_may_be_text(tmp_path: Path) -> None:
    content = coco((1, "a.jpg", "a dog"), (2, "b.jpg", "a cat"))
    content["annotations"][0]["image_id"] = "1"
    content["images"][1]["id"] = "2"
    content["images"].append({"id": "x7", "file_name": "c.jpg"})
    content["annotations"].append({"image_id": "x7", "caption": "a bird"})
    make(tmp_path, {"captions.json": content, "a.jpg": b"", "b.jpg": b"", "c.jpg": b""})
    assert {r.captions for r in read_folder(tmp_path)} == {("a dog",), ("a cat",), ("a bird",)}
    content["annotations"] = [{"image_id": "a", "caption": "a dog"}]
    make(tmp_path, {"captions.json": content})
    with pytest.raises(DatasetError, match=r'none of its 1 captions .* no image_id of "ann'):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        (unicodedata.normalize("NFC", "é/café.jpg"), unicodedata.normalize("NFD", "é/café.jpg")),
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFC", "café.jpg")),
        ("IMG_1.jpg", "IMG_1.JPG"),
        ("Images/a.jpg", "images/a.JPG"),
    ],
)
def test_names_in_another_form_are_found(tmp_path: Path, listed: str, on_disk: str) -> None:
    make(tmp_path, {"c.csv": f"image,caption\n{listed},x\n", on_disk: b""})
    (record,) = read_folder(tmp_path, val_fraction=0)
    assert record.path.is_file() and record.path.read_bytes() == b""


def test_a_name_that_may_be_two_files_is_missing(tmp_path: Path) -> None:
    make(tmp_path, {"c.csv": "image,caption\nA.jpg,x\nb.jpg,y\n", "b.jpg": b""})
    make(tmp_path, {"a.jpg": b"", "a.JPG": b""})
    if len(list(tmp_path.iterdir())) < 4:
        pytest.skip("this file system does not tell upper from lower case")
    assert [r.image_id for r in read_folder(tmp_path, val_fraction=0)] == ["b"]


def test_half_a_character_in_a_name_is_one_sentence(tmp_path: Path) -> None:
    lines = [{"file_name": "caf\udce9.jpg", "text": "x"}, {"file_name": "a.jpg", "text": "x"}]
    make(tmp_path, {"captions.jsonl": "\n".join(map(json.dumps, lines)), "a.jpg": b""})
    with pytest.raises(DatasetError, match=r"line 1 \(the name .* has half a character") as caught:
        read_folder(tmp_path)
    assert str(caught.value).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("excel.csv", "image\tcaption\r\na#1.jpg\tA dog #2\r\n".encode("utf-16")),
        ("lines.jsonl", '{"image": "a#1.jpg", "text": "A dog #2"}\r\n'.encode("utf-16")),
        ("no-mark.csv", "image,caption\na#1.jpg,A dog #2\n".encode("utf-16-le")),
        ("no-mark.jsonl", '{"image": "a#1.jpg", "text": "A dog #2"}\n'.encode("utf-16-be")),
        ("old-mac.token", b"a#1.jpg#0\tA dog #2\rb.jpg#0\tA cat\r"),
        (
            "old-mac.jsonl",
            b'{"image": "a#1.jpg", "text": "A dog #2"}\r{"image": "b.jpg", "text": "x"}',
        ),
    ],
)
def test_other_encodings_and_line_ends(tmp_path: Path, name: str, content: bytes) -> None:
    make(tmp_path, {name: content, "a#1.jpg": b""})
    (record,) = read_folder(tmp_path, val_fraction=0)
    assert (record.image_id, record.captions) == ("a#1", ("A dog #2",))
