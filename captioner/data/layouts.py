"""Finds the captions files of a data set and the split of each, in the published layouts.

| published as | captions | photos |
|---|---|---|
| one's own | one file of any format, or one for each split | beside it, or in `images/` |
| img2dataset | `NAME.txt`, `NAME.caption` or `NAME.json` for each photo | beside it |
| COCO 2014, COCO 2017 | `annotations/captions_{train,val}2017.json` | `{,images/}train2017/` etc. |
| Flickr30k, its authors | `results_20130124.token` | `flickr30k-images/` |
| Flickr30k, Kaggle | `results.csv` or `captions.txt` | `flickr30k_images/` |
| Karpathy's splits | `dataset_{coco,flickr8k,flickr30k}.json` | the official folders |
| Flickr30k, Hugging Face | `flickr_annotations_30k.csv` | `flickr30k-images/` |
| Hugging Face's imagefolder | `{train,validation,test}/metadata.{csv,jsonl}`, or one | beside it |
| VizWiz-Captions | `annotations/{train,val,test}.json` | `train/`, `val/`, `test/` |
| nocaps | `nocaps_val_4500_captions.json` | `val/` or `images/` |
| TextCaps | `TextCaps_0.1_{train,val}.json` | `train_images/` |
| STAIR Captions | `stair_captions_v1.2_{train,val}.json` | COCO 2014's |
| BLIP's lists | `*_{train,val,test}.json` | as the list says |
| Localized Narratives | `*_{train,val,test}_localized_narratives*.jsonl` | as in their own set |

If no photo of a captions file is there, `photo_search` looks for them in all folders of the data
set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from captioner.data.archives import export_first, unpack_first
from captioner.data.caption_forms import FORMS
from captioner.data.captions_file import SPLITS, DatasetError, abbreviate
from captioner.data.flickr8k import TOKENS, find_text
from captioner.data.names import is_picture
from captioner.data.photo_search import picture_folders
from captioner.data.text_per_photo import has_text_per_photo
from captioner.files import remedy

FOLDERS = ("annotations", "captions", "text", "images")  # where captions files lie
_TEXT = (*FOLDERS, "flickr8k_text")
_ARCHIVE = "annotations_"  # COCO's archives, unpacked into folders of their names
_PHOTOS = (
    "",
    "images",
    "Images",
    "Flicker8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
    "flickr30k_images/flickr30k_images",  # Kaggle's archive, unpacked into a folder of its own
)
# The last one is for the photos of Localized Narratives of COCO.
_SPLIT_PHOTOS = (
    "{split}{year}",
    "{split}{year}/{split}{year}",  # an archive, unpacked into a folder of its name
    "images/{split}{year}",
    "{split}",
    "images/{split}",
    "{split}_images",
    "train_images",  # TextCaps' validation photos are there too
    "{split}2017",
)
# Files that often lie beside captions files, but contain no captions.
_OBJECTS = re.compile(r"(instances|person_keypoints|stuff|panoptic)_")
_OTHER_FILES = re.compile(
    rf"{_OBJECTS.pattern}|(image_info|deprecated-challenge)_|.*_image_info|\d+_stats\.json"
    r"|dataset_(infos?|dict)\.json|state\.json|package\.json|run\.json"
)
_TABLES = ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow")
_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])")
# The names of published files with one split each. Such a file keeps its split even if it lies
# alone; in the name of any other file that lies alone, "train" or "val" may mean nothing.
_PUBLISHED = re.compile(
    r"captions_(train|val)20\d\d\.json|(train|val)\.json|nocaps_.*|textcaps_.*"
    r"|.*localized_narratives.*|stair_captions_.*"
)


@dataclass(frozen=True)
class Part:
    """A captions file of a data set."""

    path: Path  # or the folder, if each photo has its captions beside it
    split: str | None  # of entries that do not name their split, by the file's name or folder
    folders: tuple[Path, ...]  # where to look for the photos, in this order
    home: Path | None = None  # if they are in none of these, below which folder they may be


def find_parts(data_dir: Path, release: str = "") -> list[Part]:
    """Finds the captions files of a data set: one, or one for each split or shard.

    Args:
        data_dir: A folder that contains the files itself or in one of `FOLDERS`; or a captions
            file.
        release: If there are files of several releases, those with this year are meant.

    Raises:
        DatasetError: There is no captions file, or it is not clear which one to read.
    """
    if data_dir.is_file():
        split = _split_of(data_dir) if _PUBLISHED.fullmatch(data_dir.name.lower()) else None
        return [_part(data_dir, _home(data_dir.absolute().parent), split)]
    if not data_dir.is_dir():
        raise DatasetError(
            f"there is no folder {data_dir}; correct the path, or put the data there"
        )
    try:
        os.listdir(data_dir)
    except OSError as error:
        raise DatasetError(
            f"{data_dir} cannot be read ({error.strerror}). {remedy(error)}."
        ) from error
    for home in (data_dir, data_dir / "data"):
        if parts := _imagefolder(home):
            return parts
    for folder in _places(data_dir):
        if files := _captions_files(folder):
            return _parts(folder, _of_release(files, release), _home(data_dir))
    if parts := _imagefolder(data_dir, any_name=True):
        return parts
    if inside := sorted(folder for folder in data_dir.iterdir() if _has_captions(folder)):
        raise _elsewhere(data_dir, inside)
    if has_text_per_photo(data_dir):
        return [Part(data_dir, None, (data_dir,))]
    raise _no_captions_in(data_dir)


def _places(data_dir: Path) -> Iterator[Path]:
    """The folders where captions files may lie."""
    names = _names(data_dir)
    yield data_dir
    for usual in (*FOLDERS, "flickr30k_images"):
        yield from (data_dir / name for name in names if name.lower() == usual)
    for name in names:  # archives, unpacked into folders of their names
        if name.lower() == "annotations" or name.startswith(_ARCHIVE):
            yield data_dir / name
            yield data_dir / name / "annotations"


def _elsewhere(data_dir: Path, folders: Iterable[Path]) -> DatasetError:
    places = abbreviate(map(str, folders))
    return DatasetError(f"the captions are not in {data_dir} itself; give the path {places}")


def _no_captions_in(data_dir: Path) -> DatasetError:
    """The error for a folder without captions files, which says what is there instead."""
    if find_text(data_dir, TOKENS):
        return DatasetError(
            f"{data_dir} has Flickr8k in its official layout, with its splits; use --dataset "
            f"flickr8k:{data_dir}"
        )
    if tables := [path for form in _TABLES for path in data_dir.glob(form)]:
        return DatasetError(
            f"{abbreviate(map(str, sorted(tables)))} cannot be read; write the photos in it as "
            "files, and their names and captions as metadata.csv beside them"
        )
    below = (Path(folder) for folder, _ in picture_folders(data_dir))
    if inside := [folder for folder in below if _has_captions(folder)]:
        return _elsewhere(data_dir, [min(inside, key=lambda folder: len(folder.parts))])
    places = list(_places(data_dir))
    remedy = unpack_first(places) or export_first(places) or f"put one there, named {FORMS}"
    others = {name: None for place in places for name in _names(place) if _OBJECTS.match(name)}
    if others:
        remedy = f"there are no captions in {abbreviate(others)}, so {remedy}"
    return DatasetError(
        f"no captions file is in {data_dir} or its folders {', '.join(FOLDERS)}; {remedy}"
    )


def _home(folder: Path) -> Path:
    """The folder of the data set, of which `folder` may be the part with the captions."""
    while folder.name.lower() in _TEXT or folder.name.startswith(_ARCHIVE):
        folder = folder.parent
    return folder


def _has_captions(folder: Path) -> bool:
    """Whether a folder may be a data set."""
    splits = [path for path in folder.glob("*") if path.name.lower() in SPLITS]
    places = (folder, *(folder / name for name in FOLDERS), *splits)
    return any(_captions_files(place) for place in places)


def _imagefolder(home: Path, any_name: bool = False) -> list[Part]:
    """The parts of a data set in which the folder of each split has its own captions file, as in
    Hugging Face's layout, where the file is called metadata; with `any_name`, it may have another
    name."""
    parts = []
    for name in _names(home):
        if name.lower() not in SPLITS:
            continue
        files = _captions_files(home / name)
        found = [f for f in files if any_name or f.stem.lower() == "metadata"]
        if len(found) == 1 or (found and not any_name):
            own = home / name
            parts.append(Part(found[0], SPLITS[name.lower()], (own, own / "images"), own))
    return parts


def _parts(folder: Path, files: list[Path], home: Path) -> list[Part]:
    """The parts in one folder: files whose names differ only in a split or a shard."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(_without_split(path), []).append(path)
    if len(groups) > 1:  # for instance COCO 2014 and 2017, but the photos of only one of them
        known = {rest: group for rest, group in groups.items() if _has_own_photos(group, home)}
        groups = known or groups
    if len(groups) > 1:
        raise DatasetError(
            f"{folder} has several files that may hold the captions: "
            f"{abbreviate(path.name for path in files)}; give the path of the right one instead of "
            "the folder's"
        )
    (group,) = groups.values()
    alone = len(group) == 1 and not _PUBLISHED.fullmatch(group[0].name.lower())
    return [_part(path, home, None if alone else _split_of(path)) for path in group]


def _part(path: Path, home: Path, split: str | None) -> Part:
    general = [path.parent, *(place / name for place in (home, path.parent) for name in _PHOTOS)]
    general += [home.parent / name for name in _PHOTOS if name.startswith("flickr30k")]
    word = _SPLIT_WORD.search(path.name.lower())
    if not word:
        return Part(path, split, tuple(dict.fromkeys(general)), home)
    # The folders of this split come first, because other splits may have photos of the same names.
    year = re.search(r"20\d\d", path.name)
    names = [
        form.format(split=name, year=year[0] if year else "")
        for form in _SPLIT_PHOTOS
        for name in dict.fromkeys([word[0], *_words_for(SPLITS[word[0]])])
    ]
    own = [home / name for name in names]
    return Part(path, split, tuple(dict.fromkeys([*own, *general])), home)


def _of_release(files: list[Path], release: str) -> list[Path]:
    return [path for path in files if release in path.name] or files


def _has_own_photos(group: Iterable[Path], home: Path) -> bool:
    """Whether the photo folder of a release with a year, such as train2017, is there."""
    releases = [re.search(r"(train|val|test)20\d\d", path.name) for path in group]
    return any(found and (home / found[0]).is_dir() for found in releases)


def _words_for(split: str) -> list[str]:
    """The names that the folder of a split may have, its own one first."""
    return [split, *(word for word, meant in SPLITS.items() if meant == split)]


def _names(folder: Path) -> list[str]:
    """What is in a folder; nothing if it is not one, or of another user, as lost+found is."""
    try:
        return sorted(os.listdir(folder))
    except (NotADirectoryError, FileNotFoundError, PermissionError):
        return []


def _captions_files(folder: Path) -> list[Path]:
    names = _names(folder)
    photos = {os.path.splitext(name)[0] for name in names if is_picture(name)}
    return [
        folder / name
        for name in names
        if _may_hold_captions(folder / name) and name.removesuffix(".json") not in photos
    ]


def _may_hold_captions(path: Path) -> bool:
    name = path.name.lower()
    known = name == "captions.txt" or name.endswith((".csv", ".tsv", ".jsonl", ".json", ".token"))
    return known and not name.startswith(".") and not _OTHER_FILES.match(name) and path.is_file()


def _split_of(path: Path) -> str | None:
    word = _SPLIT_WORD.search(path.name.lower())
    return SPLITS[word[0]] if word else None


def _without_split(path: Path) -> str:
    name = re.sub(r"-\d{5}-of-\d{5}", "", path.name.lower())
    # The training part of Localized Narratives of Open Images has a version in its name.
    return _SPLIT_WORD.sub("", name, count=1).replace("_v6_", "_")
