"""Several data sets in one run: names, splits, and who wrote the captions."""

from __future__ import annotations

import json
from pathlib import Path

import http_server as http
import pytest

from captioner.data.captions_file import DatasetError
from captioner.data.mixture import (
    Source,
    by_dataset,
    captions_of_people,
    joined_name,
    parse_sources,
    read_mixture,
    summary,
)


def make_folder(folder: Path, photos: list[dict]) -> Path:
    folder.mkdir()
    for photo in photos:
        (folder / photo["file_name"]).write_bytes(b"not looked at")
    lines = [json.dumps(photo) for photo in photos]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def two_folders(tmp_path: Path) -> list[Source]:
    cats = [
        {"file_name": "1.jpg", "captions": ["a cat"], "split": "train", "by": "people"},
        {"file_name": "2.jpg", "captions": ["two cats", "", "cats"], "split": "train",
         "by": ["people", "people", "model"]},
        {"file_name": "3.jpg", "captions": ["a third cat"], "split": "val", "by": ["people"]},
    ]  # fmt: skip
    dogs = [
        {"file_name": "1.jpg", "captions": ["a dog"], "split": "train"},
        {"file_name": "2.jpg", "captions": ["two dogs"], "split": "val"},
    ]
    folders = [make_folder(tmp_path / "cats", cats), make_folder(tmp_path / "dogs", dogs)]
    return [Source("folder", folder) for folder in folders]


def test_ids_do_not_collide_and_splits_are_kept(two_folders: list[Source]) -> None:
    records = read_mixture(two_folders)
    assert [(r.image_id, r.split, r.dataset) for r in records] == [
        ("cats/1", "train", "cats"),
        ("cats/2", "train", "cats"),
        ("cats/3", "val", "cats"),
        ("dogs/1", "train", "dogs"),
        ("dogs/2", "val", "dogs"),
    ]
    assert {name: len(group) for name, group in by_dataset(records).items()} == {
        "cats": 3,
        "dogs": 2,
    }
    assert joined_name(two_folders) == "cats + dogs"


def test_one_data_set_keeps_its_ids_and_so_its_feature_cache(two_folders: list[Source]) -> None:
    records = read_mixture(two_folders[:1])
    assert [r.image_id for r in records] == ["1", "2", "3"]
    assert joined_name(two_folders[:1]) == "folder"


def test_who_wrote_the_captions(two_folders: list[Source]) -> None:
    records = read_mixture(two_folders)
    assert records[1].captions == ("two cats", "cats") and records[1].by == ("people", "model")
    assert captions_of_people(records[1]) == ("two cats",)
    assert captions_of_people(records[3]) == ("a dog",), "not known to be a model's"
    assert summary(records) == [
        {"dataset": "cats", "train_images": 2, "val_images": 1,
         "captions_by_people": 2, "captions_by_model": 1},
        {"dataset": "dogs", "train_images": 1, "val_images": 1,
         "captions_by_people": 1, "captions_by_model": 0},
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["robot", ["people"], ["people", "me"], 3])
def test_an_author_that_cannot_be(tmp_path: Path, by: object) -> None:
    photo = {"file_name": "1.jpg", "captions": ["a cat", "one cat"], "split": "train", "by": by}
    folder = make_folder(tmp_path / "cats", [photo])
    with pytest.raises(DatasetError, match=r"line 1 .*people or model"):
        read_mixture([Source("folder", folder)])


def test_authors_of_some_captions_only(tmp_path: Path) -> None:
    photos = [
        {"file_name": "1.jpg", "caption": "a cat", "by": "model"},
        {"file_name": "1.jpg", "caption": "one cat"},
    ]
    with pytest.raises(DatasetError, match="say it of all"):
        read_mixture([Source("folder", make_folder(tmp_path / "cats", photos))])


def test_the_command_line() -> None:
    assert parse_sources(["coco"]) == [Source("coco", Path("data/coco"))]
    assert parse_sources(["folder"], Path("x")) == [Source("folder", Path("x"))]
    assert parse_sources(["flickr8k:a", "folder:C:/b"]) == [
        Source("flickr8k", Path("a")),
        Source("folder", Path("C:/b")),
    ]
    with pytest.raises(DatasetError, match=r"Did you mean flickr8k\?"):
        parse_sources(["flicker8k"])
    for texts in (["coco", "folder:x"], ["folder:x"]):
        with pytest.raises(DatasetError, match="KIND:FOLDER"):
            parse_sources(texts, Path("y"))


def test_two_data_sets_of_one_name(tmp_path: Path) -> None:
    sources = [Source("folder", tmp_path / a / "photos") for a in ("a", "b")]
    with pytest.raises(DatasetError, match='2 data sets are called "photos"'):
        read_mixture(sources)


def test_coco_by_its_official_split(coco_mini: Path) -> None:
    records = read_mixture([Source("coco", coco_mini)], num_images=10)
    splits = [r.split for r in records]
    assert splits.count("train") == 10 and splits.count("val") == 150
    assert all(r.path.parent.name == f"{r.split}2014" for r in records)


def test_what_is_missing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = http.make_mirror(tmp_path / "mirror")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "data"
    with http.serve(mirror) as server:
        monkeypatch.setenv("CAPTIONER_COCO_URL", server.url)
        records = read_mixture([Source("coco", folder)], num_images=5, download=True)
        requests = len(server.log)
        assert len(records) == 5 and all(r.path.is_file() for r in records)
        assert {r.split for r in records} == {"train", "val"}
        again = read_mixture([Source("coco", folder)], num_images=5, download=True)
        assert again == records and len(server.log) == requests


def test_a_folder_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shells leave the ~ in `folder:~/photos` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert parse_sources(["folder:~/photos"]) == [Source("folder", tmp_path / "photos")]


def test_who_wrote_captions_is_said_by_all_files_or_none(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", [{"file_name": "a.jpg", "caption": "a dog", "by": "people"}])
    (tmp_path / "data" / "captions.jsonl").rename(tmp_path / "data" / "c-00000-of-00002.jsonl")
    (tmp_path / "data" / "c-00001-of-00002.jsonl").write_text('{"image": "a.jpg", "text": "x"}')
    with pytest.raises(DatasetError, match=r'only one of the files .*a\.jpg .* \("by"\); say it'):
        read_mixture(parse_sources([f"folder:{tmp_path / 'data'}"]))
