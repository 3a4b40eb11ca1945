"""Reading Flickr8k and COCO, and dividing them."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from captioner.data.coco import has_official_val, read_coco_subset
from captioner.data.datasets import (
    DatasetError,
    Record,
    check_no_leak,
    read_coco,
    read_dataset,
    read_flickr8k,
    sample_records,
    select_subset,
)

LISTS = {"train": ["a.jpg", "b.jpg", "c.jpg"], "dev": ["d.jpg"], "test": ["e.jpg"]}


def make_flickr8k(root: Path, text: str = "", photos: str = "", names: str = "abcdef") -> None:
    (root / text).mkdir(parents=True, exist_ok=True)
    (root / photos).mkdir(parents=True, exist_ok=True)
    lines = [f"{n}.jpg#{i}\tCaption {i} of {n} .\n" for n in names for i in (1, 0)]
    (root / text / "Flickr8k.token.txt").write_text("".join(lines))
    for split, listed in LISTS.items():
        content = "".join(f"{name}\n" for name in listed)
        (root / text / f"Flickr_8k.{split}Images.txt").write_text(content)
    for n in names:
        (root / photos / f"{n}.jpg").write_bytes(b"")


def coco_content() -> dict:
    images = [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg"} for i in (7, 3, 5)]
    captions = [(12, 7, "second of 7"), (11, 7, " first of 7\n"), (13, 3, "only one of 3")]
    annotations = [{"id": a, "image_id": i, "caption": c} for a, i, c in captions]
    return {"images": images, "annotations": annotations}


def write_coco(root: Path, content: object, split: str = "train") -> Path:
    path = root / "annotations" / f"captions_{split}2014.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def made_up(count: int) -> list[Record]:
    return [Record(str(i), Path(f"{i}.jpg"), ("a", "b"), "train") for i in range(count)]


@pytest.mark.parametrize(
    ("text", "photos"),
    [
        ("", ""),
        ("text", "images"),
        ("Flickr8k_text", "Flicker8k_Dataset"),
        ("", "Flickr8k_Dataset/Flicker8k_Dataset"),
    ],
)
def test_flickr8k_is_found_in_the_usual_folders(tmp_path: Path, text: str, photos: str) -> None:
    make_flickr8k(tmp_path, text, photos)
    records = read_flickr8k(str(tmp_path))
    found = [(r.image_id, r.split) for r in records]
    assert found == [("a", "train"), ("b", "train"), ("c", "train"), ("d", "val"), ("e", "test")]
    assert records[0].captions == ("Caption 0 of a .", "Caption 1 of a .")
    assert records[0].path == tmp_path / photos / "a.jpg"
    assert records[0].path.is_file()


def test_official_flickr8k(caplog: pytest.LogCaptureFixture, flickr8k: Path) -> None:
    records = read_flickr8k(flickr8k)
    assert Counter(r.split for r in records) == {"train": 6000, "val": 1000, "test": 1000}
    assert {len(r.captions) for r in records} == {5}
    assert len({r.image_id for r in records}) == 8000
    assert all(r.path.is_file() for r in records)
    assert len(caplog.records) == 1
    assert "2 groups" in caplog.text
    assert "2258277193_586949ec62.jpg.1 (1 captions)" in caplog.text
    check_no_leak(records)


def test_num_images_limits_only_flickr8k_training(flickr8k: Path) -> None:
    everything = read_dataset("flickr8k", flickr8k)
    limited = read_dataset("flickr8k", flickr8k, num_images=100, seed=5)
    assert Counter(r.split for r in limited) == {"train": 100, "val": 1000, "test": 1000}
    assert set(limited) < set(everything)
    assert limited[:100] != read_dataset("flickr8k", flickr8k, num_images=100, seed=6)[:100]


def test_missing_photos_are_reported_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_flickr8k(tmp_path, photos="images")
    (tmp_path / "images" / "b.jpg").unlink()
    (tmp_path / "images" / "f.jpg").unlink()
    assert [r.image_id for r in read_flickr8k(tmp_path)] == ["a", "c", "d", "e"]
    assert "1 of the 3 train photos are missing" in caplog.text
    assert "f.jpg (2 captions)" in caplog.text


def test_a_split_without_photos_is_an_error(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    (tmp_path / "d.jpg").unlink()
    with pytest.raises(DatasetError, match=r"devImages\.txt: none of its 1 photos .* unpack"):
        read_flickr8k(tmp_path)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("Flickr8k.token.txt", "a.jpg#7 no tab", r"token\.txt, line 13: not of the form"),
        ("Flickr8k.token.txt", "a.jpg#7\t", r"token\.txt, line 13: not of the form"),
        ("Flickr8k.token.txt", "../a.jpg#7\tcaption", r"token\.txt, line 13: not of the form"),
        ("Flickr8k.token.txt", "a.jpg#0\tcaption", r"line 13: a second caption a\.jpg#0"),
        ("Flickr8k.token.txt", "a.jpg#7\t\xff", r"token\.txt is not UTF-8"),
        ("Flickr_8k.testImages.txt", "g.jpg", r"testImages\.txt, line 2: g\.jpg has no captions"),
        ("Flickr_8k.testImages.txt", "a.jpg", r"testImages\.txt, line 2: a\.jpg is listed a sec"),
    ],
)
def test_malformed_flickr8k_lines(tmp_path: Path, name: str, line: str, message: str) -> None:
    make_flickr8k(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(line.encode("latin-1"))
    with pytest.raises(DatasetError, match=message + ".*unpack the official"):
        read_flickr8k(tmp_path)


@pytest.mark.parametrize("name", ["Flickr8k.token.txt", "Flickr_8k.devImages.txt"])
def test_missing_flickr8k_text(tmp_path: Path, name: str) -> None:
    make_flickr8k(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DatasetError, match=f"{name} is neither in .* unpack the official"):
        read_flickr8k(tmp_path)


def test_flickr8k_is_found_wherever_it_was_unpacked(tmp_path: Path) -> None:
    make_flickr8k(tmp_path, "Flickr8k_text/Flickr8k_text", "some/folder")
    for photo in (tmp_path / "some" / "folder").iterdir():
        photo.rename(photo.with_suffix(".JPG"))
    assert [r.image_id for r in read_flickr8k(tmp_path)] == list("abcde")


def test_flickr8k_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="unpack the official"):
        read_flickr8k(tmp_path / "nowhere")


def test_coco_order_and_addresses(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][0]["coco_url"] = "http://mirror.example/seven.jpg"
    write_coco(tmp_path, content)
    three, seven = read_coco(tmp_path)
    name = "COCO_train2014_000000000003.jpg"
    url = f"http://images.cocodataset.org/train2014/{name}"
    path = tmp_path / "train2014" / name
    assert three == Record("3", path, ("only one of 3",), "train", url)
    assert seven.captions == ("first of 7", "second of 7")
    assert seven.url == "http://mirror.example/seven.jpg"


@pytest.mark.parametrize(
    ("annotations", "photos"),
    [
        ("annotations/annotations", "images/{}2014"),
        ("annotations_trainval2014/annotations", "{0}2014/{0}2014"),
    ],
)
def test_coco_where_its_archives_were_unpacked(
    tmp_path: Path, annotations: str, photos: str
) -> None:
    path = write_coco(tmp_path, coco_content(), "val")
    (tmp_path / annotations).mkdir(parents=True, exist_ok=True)
    path.rename(tmp_path / annotations / path.name)
    (record, _) = read_coco(tmp_path, "val")
    assert record.path.parent == tmp_path / "val2014" and not has_official_val(tmp_path)
    folder = tmp_path / photos.format("val")
    folder.mkdir(parents=True)
    (folder / record.path.name).touch()
    (record, _) = read_coco(tmp_path, "val")
    assert record.path.parent == folder and record.path.is_file() and has_official_val(tmp_path)


def test_coco_val_needs_only_its_own_file(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content(), "val")
    records = read_coco(tmp_path, "val")
    assert [(r.split, r.path.parent.name) for r in records] == [("val", "val2014")] * 2
    with pytest.raises(
        DatasetError, match=r"captions_train2014\.json cannot be opened \(No such file.*download"
    ):
        read_coco(tmp_path)
    with pytest.raises(DatasetError, match='not for "test"'):
        read_coco(tmp_path, "test")


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/a.jpg", "a/b.jpg", "..", "a\\b.jpg", "C:a.jpg", "a\0.jpg", "", 3]
)
def test_coco_file_names_stay_in_their_folder(tmp_path: Path, name: object) -> None:
    content = coco_content()
    content["images"][1]["file_name"] = name
    write_coco(tmp_path, content)
    with pytest.raises(DatasetError, match=r"captions_train2014\.json: .*is not a (plain|rel)"):
        read_coco(tmp_path)


def test_malformed_coco(tmp_path: Path) -> None:
    good = json.dumps(coco_content())
    repeated = coco_content()
    repeated["images"][1] = repeated["images"][0]
    same_file = coco_content()
    same_file["images"][1]["file_name"] = same_file["images"][0]["file_name"]
    for content in (
        good[:-10],
        "<html>",
        "",
        [],
        {"images": []},
        {"images": {}, "annotations": 3},
        good.replace('"image_id"', '"image"'),
        good.replace('"caption"', '"text"'),
        good.replace('"id": 7', '"id": null'),
        good.replace('"id": 7', '"id": 7.5'),
        good.replace('"only one of 3"', "null"),
        repeated,
        same_file,
    ):
        path = write_coco(tmp_path, content)
        with pytest.raises(DatasetError) as caught:
            read_coco(tmp_path)
        assert str(path) in str(caught.value)
        assert "official annotations_trainval2014.zip" in str(caught.value)


def test_coco_numbers_may_be_text(tmp_path: Path) -> None:
    content = coco_content()
    write_coco(tmp_path, content)
    expected = read_coco(tmp_path)
    for entry in content["images"]:
        entry["id"] = str(entry["id"])
    write_coco(tmp_path, content)
    assert read_coco(tmp_path) == expected


def test_captions_of_unlisted_coco_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = coco_content()
    content["annotations"].append({"id": 20, "image_id": 999, "caption": "of nothing"})
    write_coco(tmp_path, content)
    assert [r.image_id for r in read_coco(tmp_path)] == ["3", "7"]
    assert "1 captions are skipped, because the file does not list their images" in caplog.text


def test_official_coco_layout(coco_mini: Path) -> None:
    train, val = read_coco(coco_mini), read_coco(coco_mini, "val")
    assert (len(train), len(val)) == (424, 150)
    assert {len(r.captions) for r in train + val} == {5}
    assert all(r.path.is_file() for r in train + val)
    assert train[0].image_id == "9"
    subset = read_coco_subset(coco_mini, num_images=100)
    assert Counter(r.split for r in subset) == {"train": 80, "val": 20}
    official = read_dataset("coco", coco_mini, num_images=100)
    assert Counter(r.split for r in official) == {"train": 100, "val": 150}
    check_no_leak(subset + [r for r in val if r.split == "val"])


def test_subset_is_split_by_image_without_leaks() -> None:
    subset = select_subset(made_up(6100), 6000, seed=0)
    assert Counter(r.split for r in subset) == {"train": 4800, "val": 1200}
    assert len({r.image_id for r in subset}) == 6000
    assert all(r.captions == ("a", "b") for r in subset)
    check_no_leak(subset)


def test_subset_depends_on_nothing_but_the_seed() -> None:
    records = made_up(200)
    expected = select_subset(records, 50, seed=1)
    shuffled = random.Random(0).sample(records, len(records))
    assert select_subset(iter(shuffled), 50, seed=1) == expected
    assert select_subset(records, 50, seed=2) != expected
    # Written down once: another machine or a later version must make the same choice.
    chosen = [(r.image_id, r.split) for r in select_subset(records, 5, seed=0)]
    golden = [(87, "train"), (46, "train"), (15, "val"), (44, "train"), (192, "train")]
    assert chosen == [(str(number), split) for number, split in golden]


def test_subset_is_the_same_for_every_hash_seed() -> None:
    code = (
        "from pathlib import Path; from captioner.data.datasets import Record, select_subset\n"
        "names = {f'name {i}' for i in range(300)}\n"  # a set: its order follows the hash seed
        "records = [Record(n, Path(n), ('c',), 'train') for n in names]\n"
        "subset = select_subset(records, 40, 3)\n"
    )
    here: dict = {}
    exec(code, here)
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", code + "print(*names, sep='|'); print(subset)"],
        env={**os.environ, "PYTHONHASHSEED": other_seed},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    names, subset = done.stdout.splitlines()
    assert sorted(names.split("|")) == sorted(here["names"])
    assert names.split("|") != list(here["names"])
    assert subset == str(here["subset"])


def test_larger_subsets_contain_smaller_ones_split_alike() -> None:
    records = made_up(100)
    everything = select_subset(records, None, seed=4)
    assert len(everything) == 100
    for size in (1, 7, 33, 99):
        assert select_subset(records, size, seed=4) == everything[:size]


@pytest.mark.parametrize(
    ("size", "fraction", "expected"), [(100, 0.29, 29), (3, 0.2, 1), (10, 0.0, 0), (30, 0.1, 3)]
)
def test_validation_fraction_is_rounded(size: int, fraction: float, expected: int) -> None:
    subset = select_subset(made_up(size), None, 0, fraction)
    assert sum(r.split == "val" for r in subset) == expected


def test_fewer_images_than_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert len(sample_records(made_up(10), 20, seed=0)) == 10
    assert "there are 10 images, not 20: all of them are used" in caplog.text


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="must be 1 or more, not 0"):
        sample_records(made_up(3), 0, seed=0)
    for fraction in (-0.1, 1.0):
        with pytest.raises(ValueError, match="validation fraction"):
            select_subset(made_up(3), None, 0, fraction)


def test_leaks_are_found() -> None:
    train = Record("1", Path("1.jpg"), ("a",), "train")
    same_id = Record("1", Path("2.jpg"), ("a",), "val")
    same_path = Record("2", Path("1.jpg"), ("a",), "test")
    with pytest.raises(DatasetError, match=r'2\.jpg: image 1 is both in "train" and in "val"'):
        check_no_leak([train, same_id])
    with pytest.raises(DatasetError, match=r'1\.jpg: image 2 is both in "train" and in "test"'):
        check_no_leak([train, same_path])
    with pytest.raises(DatasetError, match=r"image \d+ is both"):
        select_subset(made_up(20) * 2, None, 0, 0.5)


def test_unknown_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'"mnist"; there are coco, flickr8k, folder, flickr'):
        read_dataset("mnist", tmp_path)
