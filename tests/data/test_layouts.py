"""Data sets in the layouts that they are published in: a tiny one of each is read, splits kept."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from captioner.data.datasets import DatasetError, Record, read_folder

Files = dict[str, object]


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


def coco(*photos: tuple[int, str, str], **marks: bool) -> dict:
    return {
        "info": {},
        "licenses": [],
        "images": [{"id": i, "file_name": name, "width": 1} for i, name, _ in photos],
        "annotations": [
            {"id": 90 + i, "image_id": i, "caption": text} | marks for i, _, text in photos
        ],
    }


def narrative(dataset: str, image: str, text: str) -> str:
    entry = {"dataset_id": dataset, "image_id": image, "annotator_id": 93, "caption": text}
    return json.dumps(entry | {"timed_caption": [], "traces": [], "voice_recording": "a.ogg"})


def textcaps(split: str, image: str, *texts: str) -> dict:
    entries = [
        {"image_id": image, "set_name": split, "image_path": f"{split}/{image}.jpg"}
        | {"caption_id": n, "caption_str": text, "reference_strs": list(texts)}
        for n, text in enumerate(texts)
    ]
    hidden = [{"image_id": image, "set_name": split, "image_path": f"{split}/{image}.jpg"}]
    return {"dataset_type": split, "dataset_name": "textcaps", "data": entries or hidden}


# A layout's files; the photos that are found: id, split, captions.
LAYOUTS: dict[str, tuple[Files, dict]] = {
    **{
        f"COCO {year}": (
            {
                f"annotations/captions_train{year}.json": coco((9, f"{prefix}9.jpg", "a dog")),
                f"annotations/captions_val{year}.json": coco((7, f"{prefix}7.jpg", "a cat")),
                f"annotations/instances_train{year}.json": {"images": [], "categories": []},
                f"annotations/person_keypoints_val{year}.json": {"images": []},
                f"annotations/image_info_test{year}.json": {"images": []},
                f"train{year}/{prefix}9.jpg": b"",
                f"val{year}/{prefix}7.jpg": b"",
            },
            {
                f"train{year}/{prefix}9.jpg": (f"{prefix}9", "train", ("a dog",)),
                f"val{year}/{prefix}7.jpg": (f"{prefix}7", "val", ("a cat",)),
            },
        )
        for year, prefix in ((2014, "COCO_x2014_00000000000"), (2017, "00000000000"))
    },
    "Flickr30k, its authors": (
        {
            "results_20130124.token": "1.jpg#0\tA dog .\r\n1.jpg#1\tOne dog\n2.jpg#0\tA cat , #2 .",
            "readme.txt": "Flickr30k",
            "flickr30k-images/1.jpg": b"",
            "flickr30k-images/2.jpg": b"",
        },
        {
            "flickr30k-images/1.jpg": ("1", "train", ("A dog .", "One dog")),
            "flickr30k-images/2.jpg": ("2", "train", ("A cat , #2 .",)),
        },
    ),
    "Flickr30k, Kaggle": (
        {
            # The second row is the one that lacks a separator in the published file, too.
            "results.csv": "image_name| comment_number| comment\n1.jpg| 0| A dog .\n"
            '1.jpg| 4   A dog runs across the grass .\n2.jpg| 0| " Stop " , says a sign .\n',
            "flickr30k_images/1.jpg": b"",
            "flickr30k_images/2.jpg": b"",
        },
        {
            "flickr30k_images/1.jpg": ("1", "train", ("A dog .", "A dog runs across the grass .")),
            "flickr30k_images/2.jpg": ("2", "train", ('" Stop " , says a sign .',)),
        },
    ),
    "Flickr30k, Kaggle's archive in one folder": (
        {
            "flickr30k_images/results.csv": "image_name| comment_number| comment\n1.jpg| 0| A .\n",
            "flickr30k_images/flickr30k_images/1.jpg": b"",
        },
        {"flickr30k_images/flickr30k_images/1.jpg": ("1", "train", ("A .",))},
    ),
    "imagefolder with metadata.csv": (
        {
            "train/metadata.csv": "file_name,text\na.jpg,a dog\n",
            "train/a.jpg": b"",
            "validation/metadata.csv": "file_name,text\na.jpg,a cat\n",
            "validation/a.jpg": b"",
            "test/metadata.csv": "file_name,text\nx/b.jpg,a bird\n",
            "test/x/b.jpg": b"",
            "README.md": "---\n",
            "dataset_infos.json": {},
        },
        {
            "train/a.jpg": ("train/a", "train", ("a dog",)),
            "validation/a.jpg": ("val/a", "val", ("a cat",)),
            "test/x/b.jpg": ("test/x/b", "test", ("a bird",)),
        },
    ),
    "imagefolder with metadata.jsonl": (
        {
            "data/train/metadata.jsonl": '{"file_name": "a.jpg", "text": "a dog"}',
            "data/train/a.jpg": b"",
            "data/valid/metadata.jsonl": '{"file_name": "b.jpg", "text": "a cat"}',
            "data/valid/b.jpg": b"",
        },
        {
            "data/train/a.jpg": ("a", "train", ("a dog",)),
            "data/valid/b.jpg": ("b", "val", ("a cat",)),
        },
    ),
    **{
        f"Karpathy's {name}": (
            {
                f"dataset_{name}.json": {
                    "dataset": name,
                    "images": [
                        {"filename": "1.jpg", "split": "restval", "sentences": [{"raw": "A dog"}]}
                        | ({"filepath": "val2014", "cocoid": 41} if name == "coco" else {}),
                        {"filename": "2.jpg", "split": "test", "sentences": [{"raw": "A cat"}]}
                        | ({"filepath": "val2014", "cocoid": 42} if name == "coco" else {}),
                        {"filename": "3.jpg", "split": "val", "sentences": [{"raw": "A bird"}]}
                        | ({"filepath": "val2014", "cocoid": 43} if name == "coco" else {}),
                    ],
                },
                **{f"{photos}/{n}.jpg": b"" for n in (1, 2, 3)},
            },
            {
                f"{photos}/1.jpg": (ids[0], "train", ("A dog",)),
                f"{photos}/2.jpg": (ids[1], "test", ("A cat",)),
                f"{photos}/3.jpg": (ids[2], "val", ("A bird",)),
            },
        )
        for name, photos, ids in (
            ("flickr8k", "Flicker8k_Dataset", "123"),
            ("flickr30k", "flickr30k-images", "123"),
            ("coco", "val2014", ("41", "42", "43")),
        )
    },
    "VizWiz-Captions": (
        {
            "annotations/train.json": coco((0, "VizWiz_train_00000000.jpg", "A can .")),
            "annotations/val.json": coco((0, "VizWiz_val_00000000.jpg", "A box .")),
            "annotations/test.json": {"images": [{"id": 1, "file_name": "VizWiz_test_0.jpg"}]},
            "train/VizWiz_train_00000000.jpg": b"",
            "val/VizWiz_val_00000000.jpg": b"",
        },
        {
            "train/VizWiz_train_00000000.jpg": ("VizWiz_train_00000000", "train", ("A can .",)),
            "val/VizWiz_val_00000000.jpg": ("VizWiz_val_00000000", "val", ("A box .",)),
        },
    ),
    "nocaps": (
        {
            "nocaps_val_4500_captions.json": coco((0, "0013ea2087020901.jpg", "A baby .")),
            "nocaps_test_image_info.json": {"images": [{"id": 0, "file_name": "1.jpg"}]},
            "val/0013ea2087020901.jpg": b"",
        },
        {"val/0013ea2087020901.jpg": ("0013ea2087020901", "val", ("A baby .",))},
    ),
    "TextCaps": (
        {
            "TextCaps_0.1_train.json": textcaps("train", "0a", "A sign .", "A red sign ."),
            "TextCaps_0.1_val.json": textcaps("val", "0b", "A book ."),
            "TextCaps_0.1_test.json": textcaps("test", "0c"),
            "train_images/0a.jpg": b"",
            "train_images/0b.jpg": b"",
            "test_images/0c.jpg": b"",
        },
        {
            "train_images/0a.jpg": ("0a", "train", ("A sign .", "A red sign .")),
            "train_images/0b.jpg": ("0b", "val", ("A book .",)),
        },
    ),
    "Localized Narratives of COCO, two shards": (
        {
            "coco_train_localized_narratives-00000-of-00002.jsonl": narrative(
                "mscoco_train2017", "9", "In this image we can see a dog."
            ),
            "coco_train_localized_narratives-00001-of-00002.jsonl": narrative(
                "mscoco_train2017", "9", "A dog on grass."
            ),
            "coco_val_localized_narratives.jsonl": narrative("mscoco_val2017", "7", "A cat."),
            "train2017/000000000009.jpg": b"",
            "val2017/000000000007.jpg": b"",
        },
        {
            "train2017/000000000009.jpg": (
                "000000000009",
                "train",
                ("In this image we can see a dog.", "A dog on grass."),
            ),
            "val2017/000000000007.jpg": ("000000000007", "val", ("A cat.",)),
        },
    ),
    "Localized Narratives of Open Images": (
        {
            "annotations/open_images_train_v6_localized_narratives-00000-of-00010.jsonl": narrative(
                "open_images_train_v6", "0a", "A dog."
            ),
            "annotations/open_images_validation_localized_narratives.jsonl": narrative(
                "open_images_validation", "0b", "A cat."
            ),
            "train/0a.jpg": b"",
            "validation/0b.jpg": b"",
        },
        {
            "train/0a.jpg": ("0a", "train", ("A dog.",)),
            "validation/0b.jpg": ("0b", "val", ("A cat.",)),
        },
    ),
    "one's own, a file for each split": (
        {
            "captions_train.csv": "image,caption\na.jpg,a dog\n",
            "captions_dev.csv": "image,caption\nb.jpg,a cat\n",
            "images/a.jpg": b"",
            "images/b.jpg": b"",
        },
        {"images/a.jpg": ("a", "train", ("a dog",)), "images/b.jpg": ("b", "val", ("a cat",))},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    make(tmp_path, files)
    assert said(read_folder(tmp_path, val_fraction=0), tmp_path) == expected


def test_a_published_file_alone(tmp_path: Path) -> None:
    files, expected = LAYOUTS["COCO 2017"]
    make(tmp_path, files)
    for split in ("train", "val"):
        path = tmp_path / "annotations" / f"captions_{split}2017.json"
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
