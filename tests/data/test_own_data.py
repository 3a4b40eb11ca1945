"""Reading other people's data: a folder with one captions file, and Karpathy's splits."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.data.datasets import (
    DatasetError,
    Record,
    read_coco,
    read_dataset,
    read_flickr8k,
    read_folder,
    select_subset,
)

THREE = {"a": ("A dog .", "One dog"), "b": ("A cat, asleep",), "c": ("Nobody",)}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write(path: Path, content: str | bytes | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_csv(rows: list[tuple[str, ...]]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue()


def captions(records: list[Record]) -> dict[str, tuple[str, ...]]:
    return {r.image_id: r.captions for r in records}


def splits(records: list[Record]) -> dict[str, str]:
    return {r.image_id: r.split for r in records}


def coco_content() -> dict:
    names = {7: "a.jpg", 3: "b.jpg", 5: "c.jpg"}
    texts = [(7, "A dog ."), (3, "A cat, asleep"), (7, " One dog\n"), (5, "Nobody")]
    return {
        "images": [{"id": i, "file_name": name} for i, name in names.items()],
        "annotations": [{"id": n, "image_id": i, "caption": t} for n, (i, t) in enumerate(texts)],
    }


def karpathy_content() -> dict:
    places = {"a": "train", "b": "restval", "c": "val", "d": "test"}
    images = [
        {"filename": f"{n}.jpg", "split": s, "sentences": [{"raw": f" Some {n} ."}, {"raw": n}]}
        for n, s in places.items()
    ]
    return {"images": images, "dataset": "made up"}


FORMS = {
    "captions.txt": 'image,caption\na.jpg,A dog .\nb.jpg,"A cat, asleep"\na.jpg,One dog\n'
    "c.jpg,Nobody\n",
    "headerless.csv": 'a.jpg,A dog .\nb.jpg,"A cat, asleep"\na.jpg,One dog\nc.jpg,Nobody',
    "order.csv": 'n,Text,FileName\n1,A dog .,a.jpg\n2,"A cat, asleep",b.jpg\n'
    "3,One dog,a.jpg\n4,Nobody,c.jpg\n",
    "windows.csv": b'\xef\xbb\xbffile,sentence\r\na.jpg,A dog .\r\n\r\nb.jpg, "A cat, asleep"\r\n'
    b",\r\na.jpg,One dog\r\nc.jpg,Nobody,\r\n\r\n",
    "semicolons.csv": "file_name;caption\na.jpg;A dog .\nb.jpg;A cat, asleep\na.jpg;One dog\n"
    "c.jpg;Nobody\n",
    "tabs.tsv": "image\tcaption\na.jpg\tA dog .\nb.jpg\tA cat, asleep\na.jpg\tOne dog\n"
    "c.jpg\tNobody",
    "flickr30k.csv": "image_name| comment_number| comment\na.jpg| 0| A dog .\n"
    "b.jpg| 0| A cat, asleep\na.jpg| 1| One dog\nc.jpg| 0| Nobody\n",
    "metadata.jsonl": b'\xef\xbb\xbf{"file_name": "a.jpg", "captions": ["A dog ."]}\r\n'
    b'\r\n{"file_name": "b.jpg", "text": "A cat, asleep"}\r\n'
    b'{"image": "./a.jpg", "caption": "One dog"}\n{"file": "c.jpg", "text": "Nobody"}',
    "coco.json": coco_content(),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_captions(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, FORMS[name])
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    records = read_folder(str(tmp_path), val_fraction=0)
    assert captions(records) == THREE
    assert {r.path for r in records} == {tmp_path / f"{n}.jpg" for n in "abc"}
    assert {r.split for r in records} == {"train"}
    assert {r.url for r in records} == {None}


def test_quotes_and_other_scripts_survive_and_line_ends_become_spaces(tmp_path: Path) -> None:
    texts = [
        'A "red" dog',
        "two\nlines",
        "犬が走る",
        "ein Hündchen\u2028rennt",
        '"quoted"',
        "a,b;c",
    ]
    rows = [("image", "caption"), *(("ö 1.jpg", text) for text in texts)]
    write(tmp_path / "csv" / "captions.csv", as_csv(rows))
    lines = [json.dumps({"file_name": "ö 1.jpg", "text": t}, ensure_ascii=False) for t in texts]
    write(tmp_path / "lines" / "metadata.jsonl", "\n".join(lines))
    for form in ("csv", "lines"):
        touch(tmp_path / form, "ö 1.jpg")
        cleaned = tuple(re.sub(r"[\n\u2028]", " ", text) for text in texts)
        assert captions(read_folder(tmp_path / form, val_fraction=0)) == {"ö 1": cleaned}


@pytest.mark.parametrize(
    ("file", "photo"),
    [
        ("captions.csv", "images/a.jpg"),
        ("captions.csv", "Images/a.jpg"),
        ("annotations/captions.csv", "a.jpg"),
        ("annotations/captions.csv", "images/a.jpg"),
        ("text/captions.csv", "text/a.jpg"),
    ],
)
def test_images_are_found_in_the_usual_folders(tmp_path: Path, file: str, photo: str) -> None:
    path = write(tmp_path / file, "image,caption\na.jpg,A dog\n")
    touch(tmp_path, photo)
    for data_dir in (tmp_path, path):
        (record,) = read_folder(data_dir, val_fraction=0)
        assert record == Record("a", tmp_path / photo, ("A dog",), "train")


def test_several_captions_files_need_a_choice(tmp_path: Path) -> None:
    for name in ("one.csv", "two.jsonl", "._one.csv", "notes.txt"):
        write(tmp_path / name, "a.jpg,A dog")
    touch(tmp_path, "a.jpg")
    with pytest.raises(DatasetError, match=r"several files .*: one\.csv, two\.jsonl; give the"):
        read_folder(tmp_path)
    assert captions(read_folder(tmp_path / "one.csv")) == {"a": ("A dog",)}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no captions file is in .*captions\.txt, \*\.csv"):
        read_folder(tmp_path / "empty")
    for folder in (tmp_path / "nowhere", tmp_path / "one.csv" / "below"):
        with pytest.raises(DatasetError, match=r"there is no folder .*(nowhere|below); correct"):
            read_folder(folder)
    with pytest.raises(DatasetError, match=r"notes\.md is none of"):
        read_folder(write(tmp_path / "notes.md", "a.jpg,A dog"))


def test_splits_are_taken_from_the_file(tmp_path: Path) -> None:
    names = ["train", "val", "valid", "Validation", "dev", "test", "restval"]
    expected = ["train", "val", "val", "val", "val", "test", "train"]
    images = [f"{i}.jpg" for i in range(len(names))]
    touch(tmp_path, *images)
    rows = [f"{image},some,{split} \n" for image, split in zip(images, names, strict=True)]
    write(tmp_path / "c" / "captions.csv", "image,caption,split\n" + "".join(rows))
    numbers = range(len(names))
    entries = [{"id": i, "file_name": images[i], "split": names[i]} for i in numbers]
    texts = [{"image_id": i, "caption": "some"} for i in numbers]
    write(tmp_path / "j" / "captions.json", {"images": entries, "annotations": texts})
    for form in ("c", "j"):
        (tmp_path / form / "images").symlink_to(tmp_path)
        assert [r.split for r in read_folder(tmp_path / form)] == expected


def test_a_file_without_validation_images_is_divided(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(40)]
    touch(tmp_path, *names)
    lines = [json.dumps({"image": name, "text": "t", "split": "train"}) for name in names]
    lines[0] = lines[0].replace("train", "test")
    write(tmp_path / "captions.jsonl", "\n".join(lines))
    records = read_folder(tmp_path)
    assert Counter(r.split for r in records) == {"train": 35, "val": 4, "test": 1}
    assert splits(records)["0"] == "test"


def test_division_depends_on_nothing_but_the_seed(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(50)]
    touch(tmp_path, *names)
    path = write(tmp_path / "captions.csv", "".join(f"{name},some text\n" for name in names))
    records = read_folder(tmp_path, seed=1)
    plain = [Record(str(i), tmp_path / f"{i}.jpg", ("some text",), "train") for i in range(50)]
    assert records == select_subset(plain, None, 1, 0.1)
    assert Counter(r.split for r in records) == {"train": 45, "val": 5}
    random.Random(0).shuffle(names)
    write(path, "image,caption\n" + "".join(f"{name},some text\n" for name in names))
    assert read_folder(tmp_path, seed=1) == records
    assert splits(read_folder(tmp_path, seed=2)) != splits(records)
    assert Counter(r.split for r in read_folder(tmp_path, val_fraction=0.3))["val"] == 15


def test_num_images_limits_only_training(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(50)]
    touch(tmp_path, *names)
    write(tmp_path / "captions.csv", "".join(f"{name},some text\n" for name in names))
    everything = read_dataset("folder", tmp_path, seed=3)
    limited = read_dataset("folder", tmp_path, num_images=7, seed=3)
    assert everything == read_folder(tmp_path, seed=3)
    assert Counter(r.split for r in limited) == {"train": 7, "val": 5}
    assert set(limited) < set(everything)


def test_images_of_one_stem_keep_their_endings(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "x/a.jpg", "b.jpg")
    write(tmp_path / "c.csv", "a.jpg,one\na.png,two\nx/a.jpg,three\nb.jpg,four\n")
    expected = {"a.jpg": ("one",), "a.png": ("two",), "x/a": ("three",), "b": ("four",)}
    assert captions(read_folder(tmp_path)) == expected
    (tmp_path / "a.jpg").unlink()
    assert "a.png" in captions(read_folder(tmp_path))  # an id does not depend on what is missing


def test_one_image_by_two_names_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg")
    write(tmp_path / "c.csv", "a.jpg,one\nimages/a.jpg,two\n")
    with pytest.raises(DatasetError, match=r"c\.csv names an image in two ways"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg", "..", "x\\a.jpg", "C:a.jpg", "a\0.jpg", ".", "", 3],
)
def test_names_stay_in_the_folder(tmp_path: Path, name: object) -> None:
    touch(tmp_path, "a.jpg", "data/b.jpg")
    line = json.dumps({"file_name": name, "text": "t"})
    write(tmp_path / "data" / "m.jsonl", '{"file_name": "b.jpg", "text": "t"}\n' + line)
    with pytest.raises(DatasetError, match=r"m\.jsonl: 1 entries .*line 2 \(.* is not a relative"):
        read_folder(tmp_path / "data")
    for key in ("filename", "filepath"):
        content = karpathy_content()
        content["images"][2][key] = name
        path = write(tmp_path / "data" / "k" / "dataset.json", content)
        if key == "filename" or name != "":
            with pytest.raises(DatasetError, match=r"images\[2\] \(.* is not a relative path"):
                read_folder(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "c.csv",
            "image,caption\na.jpg,x\n\na.jpg\n",
            r"1 entries .*: line 4 \(1 cells instead of 2: a separator is missing",
        ),
        ("c.csv", "image,caption\na.jpg,A dog, a cat\n", r"line 2 \(3 cells .* belongs in quotes"),
        (
            "c.csv",
            'image,caption\na.jpg,x\na.jpg,"open\na.jpg,y\n',
            r"c\.csv, line 3: unexp.*quote",
        ),
        ("c.csv", 'image,caption\na.jpg,"two\nlines"\na.jpg,"x"y\n', r"c\.csv, line 4: .*quote"),
        ("c.csv", "image,caption\n,a cat\n", r"line 2 \('' is not a relative path"),
        ("c.csv", "picture,words\na.jpg,x\n", r"first line neither names columns .*picture,words"),
        ("c.csv", "a.jpg,x,y\n", r"first line neither"),
        ("c.csv", "", r"c\.csv holds no captions; write"),
        ("c.csv", "image,caption\n\n", r"c\.csv holds no captions"),
        ("c.csv", b"image,caption\na.jpg,\xff\n", r"c\.csv is not UTF-8 text .* save it as UTF-8"),
        ("c.csv", "image,caption,split\na.jpg,x,half\n", r"line 2 \(its split is 'half': it must"),
        ("c.csv", "image,caption,split\na.jpg,x,val\nb.jpg,x,\n", r"none to 1 others: b\.jpg"),
        ("c.csv", "image,caption,split\na.jpg,x,val\na.jpg,x,test\n", r"line 3 \(a\.jpg is in ano"),
        ("c.csv", "image,caption\n" + "x\n" * 9, r"9 entries .*line 6 \(.*\) and 4 more; corr"),
        (
            "m.jsonl",
            '{"image": "a.jpg", "text": "x"}\n\n{"image": "a.jpg"\n',
            r"line 3 \(Expecting",
        ),
        ("m.jsonl", "[1]", r"line 1 \(not a JSON object"),
        ("m.jsonl", "[" * 100_000, r"line 1 \("),
        ("m.jsonl", '{"image": "a.jpg"}', r"line 1 \(none of caption, text"),
        ("m.jsonl", '{"text": "x"}', r"line 1 \(none of file_name, image"),
        ("m.jsonl", '{"image": "a.jpg", "captions": ["x", 3]}', r"its captions are not text"),
        ("m.jsonl", '{"image": "a.jpg", "caption": {}}', r"its captions are not text"),
        ("j.json", "{", r"j\.json is not JSON"),
        ("j.json", "[]", r"has neither .* as JSON lines"),
        ("j.json", {"images": []}, r"has neither"),
        ("j.json", {"annotations": [{"caption": "x"}]}, r"annotations\[0\] \(no 'image_id'\)"),
        ("j.json", {"images": [{"id": []}], "annotations": []}, r"images\[0\]: the id \[\] should"),
        ("j.json", {"images": [{}], "annotations": []}, r"images\[0\] has no 'id'"),
        ("j.json", {"images": [{"id": 1}, {"id": 1}], "annotations": []}, r"a second image 1"),
        ("j.json", {"images": [{"sentences": []}]}, r"images\[0\] \(no 'filename'\)"),
        ("j.json", {"images": [{"filename": "a.jpg", "sentences": [3]}]}, r"images\[0\] \("),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: str | dict, message: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    path = write(tmp_path / name, content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_folder(tmp_path)
    assert str(path) in str(caught.value)


def test_missing_images_are_reported_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = "x" * 300  # no file system takes such a name
    write(tmp_path / "c.csv", f"a.jpg,x\nb.jpg,y\n{long}.jpg,z\n")
    touch(tmp_path, "a.jpg")
    assert captions(read_folder(tmp_path)) == {"a": ("x",)}
    assert len(caplog.records) == 1
    assert f"2 of its 3 images are missing in {tmp_path} and skipped: b.jpg, x" in caplog.text
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"3 of its 3 images are missing in .*: a\.jpg, b\.jpg"):
        read_folder(tmp_path)


def test_blank_captions_and_captions_of_no_image_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = coco_content()
    content["annotations"] += [{"image_id": i, "caption": t} for i, t in ((7, " "), (99, "x"))]
    write(tmp_path / "coco.json", content)
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    assert captions(read_folder(tmp_path)) == THREE
    assert "1 captions are blank and are skipped: annotations[4]" in caplog.text
    found = "1 captions belong to images that are not listed and are skipped: annotations[5]"
    assert found in caplog.text


def test_karpathy_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "dataset_flickr8k.json", karpathy_content())
    touch(tmp_path, *(f"images/{n}.jpg" for n in "abcd"))
    records = read_folder(str(path))
    assert splits(records) == {"a": "train", "b": "train", "c": "val", "d": "test"}
    assert records[0] == Record("a", tmp_path / "images/a.jpg", ("Some a .", "a"), "train")
    assert read_folder(tmp_path) == records


def test_karpathys_coco_has_folders_and_numbers(tmp_path: Path) -> None:
    content = karpathy_content()
    for number, entry in enumerate(content["images"], start=70):
        entry |= {"cocoid": number, "filepath": "train2014" if number == 70 else "val2014"}
    path = write(tmp_path / "dataset_coco.json", content)
    touch(tmp_path, "train2014/a.jpg", *(f"val2014/{n}.jpg" for n in "bcd"), "val2014/a.jpg")
    records = read_folder(path)
    assert splits(records) == {"70": "train", "71": "train", "72": "val", "73": "test"}
    assert records[0].path == tmp_path / "train2014" / "a.jpg"
    assert read_folder(tmp_path) == records
    content["images"][1]["cocoid"] = 70
    with pytest.raises(DatasetError, match="several images with the same id: 70"):
        read_folder(write(path, content))


def test_malformed_karpathy(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in "abcd"))
    for key, value in (("split", "other"), ("sentences", [{}]), ("cocoid", "7"), ("filename", 1)):
        content = karpathy_content()
        content["images"][1][key] = value
        with pytest.raises(DatasetError, match=r"k\.json: 1 entries cannot be used: images\[1\] "):
            read_folder(write(tmp_path / "k.json", content))


def linked_flickr8k(folder: Path, flickr8k: Path) -> list[Record]:
    """Links Flickr8k's photos into a folder, and gives its records with their paths there."""
    (folder / "images").symlink_to(flickr8k / "images")
    return [replace(r, path=folder / "images" / r.path.name) for r in read_flickr8k(flickr8k)]


def test_flickr8k_as_csv_comes_back_as_it_was(tmp_path: Path, flickr8k: Path) -> None:
    here = linked_flickr8k(tmp_path, flickr8k)
    rows = [(r.path.name, caption, r.split) for r in here for caption in r.captions]
    rows.insert(0, ("image", "caption", "split"))
    write(tmp_path / "captions.txt", as_csv(rows))
    assert read_folder(tmp_path) == here
    write(tmp_path / "captions.txt", as_csv([row[:2] for row in rows]))
    assert read_folder(tmp_path, seed=4) == select_subset(here, None, 4, 0.1)


def test_flickr8k_in_karpathys_form_comes_back_as_it_was(tmp_path: Path, flickr8k: Path) -> None:
    official = linked_flickr8k(tmp_path, flickr8k)
    images = [
        {
            "filename": r.path.name,
            "imgid": number,
            "split": "restval" if r.split == "train" and number % 2 else r.split,
            "sentences": [{"raw": c, "tokens": c.lower().split()} for c in r.captions],
        }
        for number, r in enumerate(official)
    ]
    path = write(tmp_path / "dataset_flickr8k.json", {"images": images})
    assert read_folder(path) == official


def test_official_coco_file_as_a_folder(tmp_path: Path, coco_mini: Path) -> None:
    official = coco_mini / "annotations" / "captions_val2014.json"
    write(tmp_path / "captions.json", official.read_bytes())
    (tmp_path / "images").symlink_to(coco_mini / "val2014")
    ours = {r.path.name: sorted(r.captions) for r in read_folder(tmp_path)}
    assert ours == {r.path.name: sorted(r.captions) for r in read_coco(coco_mini, "val")}
