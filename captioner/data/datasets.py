"""Captioned photos on disk, read into one list of records: Flickr8k, MS-COCO 2014, or one's own.

Flickr8k: Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task", JAIR 2013.
MS-COCO captions: Chen et al., "Microsoft COCO Captions", 2015, https://arxiv.org/abs/1504.00325.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from captioner.data.captions_file import (
    CaptionsFile,
    DatasetError,
    abbreviate,
    find_captions_file,
    read_captions_file,
    read_karpathy_file,
)
from captioner.data.text import clean

logger = logging.getLogger(__name__)

COCO_URL = "http://images.cocodataset.org"

_FLICKR8K_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_FLICKR8K_TEXT_FOLDERS = ("", "text", "Flickr8k_text")
# The official archive itself misspells its folder as "Flicker8k".
_FLICKR8K_PHOTO_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "",
)
_FLICKR8K_REMEDY = "unpack the official Flickr8k_text.zip and Flickr8k_Dataset.zip again"
_OWN_PHOTO_FOLDERS = ("", "images", "Images", "Flicker8k_Dataset", "flickr30k-images")
_COCO_REMEDY = (
    "take it from the official annotations_trainval2014.zip, or delete it and let the trainer "
    "download it"
)


@dataclass(frozen=True)
class Record:
    """One photo and all its captions, as their authors wrote them.

    `image_id` is unique in the data set: the number for COCO, the file's stem for all others.
    `path` is where the photo is or, for COCO, where a download will put it. `split` is "train",
    "val" or "test". `url` is where the photo can be had from, None if nowhere. `dataset` is the
    name of the data set in a run that trains on several. `by` says of each caption who wrote it,
    "people" or "model"; it is empty where that is not known.
    """

    image_id: str
    path: Path
    captions: tuple[str, ...]
    split: str
    url: str | None = None
    dataset: str = ""
    by: tuple[str, ...] = ()


def read_flickr8k(data_dir: str | os.PathLike[str]) -> list[Record]:
    """Read Flickr8k in its official form, split by the official lists (6000/1000/1000 photos).

    The text files and the photos may lie in `data_dir` itself or in the folders they are usually
    found in (`text/`, `Flickr8k_text/`; `images/`, `Flicker8k_Dataset/` and the like). Records
    come split by split, each in the order of its list, and the dev list's are called "val".
    Photos in no list are left out. Reported as warnings and skipped: captions of photos that do
    not exist (the official file has two such groups), and listed photos missing on disk as long
    as their split has others.

    Raises DatasetError if a text file is missing or malformed, a listed photo has no caption, a
    photo is listed twice, or all photos of a split are missing.
    """
    data_dir = Path(data_dir)
    token_file = _find_flickr8k_text(data_dir, "Flickr8k.token.txt")
    lists = {split: _find_flickr8k_text(data_dir, name) for split, name in _FLICKR8K_LISTS.items()}
    captions = _read_flickr8k_captions(token_file)
    splits: dict[str, str] = {}
    for split, path in lists.items():
        for number, name in _lines(path):
            if name in splits:
                raise _flickr8k_error(path, number, f"{name} is listed a second time")
            if name not in captions:
                raise _flickr8k_error(path, number, f"{name} has no captions in {token_file}")
            splits[name] = split

    folders = [data_dir / name for name in _FLICKR8K_PHOTO_FOLDERS if (data_dir / name).is_dir()]
    present = {folder: set(os.listdir(folder)) for folder in folders}
    photo_dir = max(folders, key=lambda folder: len(splits.keys() & present[folder]))
    on_disk = present[photo_dir]
    for split, path in lists.items():
        listed = [name for name in splits if splits[name] == split]
        missing = [name for name in listed if name not in on_disk]
        if len(missing) == len(listed):
            raise DatasetError(
                f"{path}: none of its {len(listed)} photos is in {data_dir} or its folders "
                f"{', '.join(filter(None, _FLICKR8K_PHOTO_FOLDERS))}; {_FLICKR8K_REMEDY}"
            )
        if missing:
            logger.warning(
                f"{len(missing)} of the {len(listed)} {split} photos are missing in {photo_dir} "
                f"and skipped: {abbreviate(missing)}"
            )
    phantoms = [name for name in captions if name not in splits and name not in on_disk]
    if phantoms:
        groups = abbreviate(f"{name} ({len(captions[name])} captions)" for name in phantoms)
        logger.warning(
            f"{token_file}: {len(phantoms)} groups of captions name a photo that does not exist "
            f"and are skipped: {groups}"
        )

    records = [
        Record(Path(name).stem, photo_dir / name, captions[name], split)
        for name, split in splits.items()
        if name in on_disk
    ]
    check_no_leak(records)
    return records


def read_coco(data_dir: str | os.PathLike[str], split: str = "train") -> list[Record]:
    """Read the captions of MS-COCO's "train" or "val" images (2014) in the official layout.

    Needs `annotations/captions_{split}2014.json` only: the images belong in `{split}2014/`, and
    their records are made whether or not they are there yet. Records are ordered by image number,
    their captions by annotation number; images without captions are dropped.

    Raises DatasetError if the file is missing or malformed, or names an image outside its folder.
    """
    if split not in ("train", "val"):
        raise DatasetError(f'COCO has captions for "train" and "val", not for "{split}"')
    data_dir = Path(data_dir)
    path = data_dir / "annotations" / f"captions_{split}2014.json"
    try:
        records, orphans = _parse_coco(json.loads(path.read_bytes()), data_dir, split)
        check_no_leak(records)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; {_COCO_REMEDY}") from error
    except KeyError as error:
        raise DatasetError(f"{path}: an entry has no {error}; {_COCO_REMEDY}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path}: {error}; {_COCO_REMEDY}") from error
    if orphans:
        logger.warning(f"{path}: {orphans} captions are of images not listed, and are skipped")
    return records


def read_folder(
    data_dir: str | os.PathLike[str], *, seed: int = 0, val_fraction: float = 0.1
) -> list[Record]:
    """Read a folder of images with one captions file, in a form that `captions_file` knows.

    `data_dir` may also be the captions file itself, where a folder has several. Images are looked
    for beside the captions file, in the folder, and in its `images/` and the like. If the file
    has splits, they are kept. If it has none, or no "val" among them, `val_fraction` of the
    training images, chosen by `select_subset` with `seed`, become "val". Blank captions, captions
    of images not listed, and missing images as long as there are others, are skipped with a
    warning.

    Raises DatasetError if there is no captions file or several, if it is malformed, or if all its
    images are missing; ValueError if `val_fraction` is not in [0, 1).
    """
    path, home = find_captions_file(Path(data_dir))
    content = read_captions_file(path)
    folders = [path.parent, *(home / name for name in _OWN_PHOTO_FOLDERS)]
    records = _locate(path, content, folders)
    if not any(file.split == "val" for file in content.files):
        train = [record for record in records if record.split == "train"]
        others = [record for record in records if record.split != "train"]
        records = select_subset(train, None, seed, val_fraction) + others
    return records


def read_karpathy(
    json_file: str | os.PathLike[str], images_dir: str | os.PathLike[str]
) -> list[Record]:
    """Read Karpathy's `dataset_flickr8k.json`, `dataset_flickr30k.json` or `dataset_coco.json`.

    COCO's images belong in `train2014/` and `val2014/` of `images_dir`, and their ids are COCO's
    numbers. "restval" counts as "train", as in all published results. Missing images are skipped
    with a warning. Raises DatasetError if the file is malformed or all its images are missing.
    """
    path = Path(json_file)
    return _locate(path, read_karpathy_file(path), [Path(images_dir)])


def sample_records(records: Iterable[Record], num_images: int | None, seed: int) -> list[Record]:
    """Pick `num_images` images (None, or more than there are: all), shuffled by `seed`.

    The order comes from a hash of seed and image id alone, so that it is the same on every machine
    and for every order of the input, and a larger sample begins with the smaller ones.

    Raises ValueError if `num_images` is less than 1.
    """
    if num_images is not None and num_images < 1:
        raise ValueError(f"the number of images must be 1 or more, not {num_images}")

    def position(record: Record) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}:{record.image_id}".encode()).digest(), record.image_id

    shuffled = sorted(records, key=position)
    if num_images is not None and num_images > len(shuffled):
        logger.info(f"{num_images} images asked for, using all {len(shuffled)} there are")
    return shuffled[:num_images]


def select_subset(
    records: Iterable[Record], num_images: int | None, seed: int, val_fraction: float = 0.2
) -> list[Record]:
    """Pick images by `sample_records` and divide them into "train" and "val", image by image.

    All captions stay with their image. The validation images are spread evenly over the sample's
    order, so that an image keeps its split in larger samples; of n images they are
    n * val_fraction, rounded.

    Raises ValueError if a number is out of range, DatasetError if an image id occurs twice.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"the validation fraction must be in [0, 1), not {val_fraction}")

    def num_val(num_images: int) -> int:
        return math.floor(num_images * val_fraction + 0.5)

    sample = sample_records(records, num_images, seed)
    subset = [
        replace(record, split="val" if num_val(index + 1) > num_val(index) else "train")
        for index, record in enumerate(sample)
    ]
    check_no_leak(subset)
    return subset


def read_dataset(
    name: str, data_dir: str | os.PathLike[str], *, num_images: int | None = None, seed: int = 0
) -> list[Record]:
    """Read the records to train with: "coco", "flickr8k" or "folder".

    COCO: `num_images` of the train2014 images (None: all), divided 80/20 into "train" and "val" by
    `select_subset`. Flickr8k: the official splits; `num_images` limits the training photos alone,
    so that scores on "val" and "test" stay comparable with published ones. Folder: `read_folder`'s
    splits, limited in the same way.

    Raises DatasetError if the data cannot be read or the name is another, ValueError if
    `num_images` is less than 1.
    """
    if name == "coco":
        return select_subset(read_coco(data_dir, "train"), num_images, seed)
    if name in ("flickr8k", "folder"):
        folder = name == "folder"
        records = read_folder(data_dir, seed=seed) if folder else read_flickr8k(data_dir)
        if num_images is None:
            return records
        train = [record for record in records if record.split == "train"]
        others = [record for record in records if record.split != "train"]
        return sample_records(train, num_images, seed) + others
    raise DatasetError(f'no data set "{name}"; there are "coco" and "flickr8k", and "folder"')


def check_no_leak(records: Sequence[Record]) -> None:
    """Raise DatasetError if an image, by id or by path, is in two splits."""
    splits: dict[str | Path, str] = {}
    for record in records:
        for key in (record.image_id, record.path):
            if splits.setdefault(key, record.split) != record.split:
                raise DatasetError(
                    f'{record.path}: image {record.image_id} is both in "{splits[key]}" and in '
                    f'"{record.split}"; remove it from one of them'
                )


def _locate(source: Path, content: CaptionsFile, folders: Iterable[Path]) -> list[Record]:
    """Records of the images that are in one of the folders, "train" where no split is given."""
    folders = list(dict.fromkeys(folders))
    records, missing = [], []
    for file in content.files:
        # Unlike Path.is_file, this is also False for a name that no file system takes.
        found = (folder / file.name for folder in folders if os.path.isfile(folder / file.name))
        if path := next(found, None):
            split = file.split or "train"
            records.append(Record(file.image_id, path, file.captions, split, by=file.by))
        else:
            missing.append(file.name)
    places = ", ".join(str(folder) for folder in folders if folder.is_dir())
    what = f"{source}: {len(missing)} of its {len(content.files)} images are missing in {places}"
    if not records:
        raise DatasetError(f"{what}: {abbreviate(missing)}; put them there, or correct the names")
    if missing:
        logger.warning(f"{what} and skipped: {abbreviate(missing)}")
    for rows, reason in ((content.empty, "are blank"), (content.orphans, "have no image listed")):
        if rows:
            logger.warning(
                f"{source}: {len(rows)} captions {reason} and are skipped: {abbreviate(rows)}"
            )
    if len({record.path for record in records}) < len(records):
        raise DatasetError(f"{source} names an image in two ways; write its name in one")
    check_no_leak(records)
    return records


def _find_flickr8k_text(data_dir: Path, name: str) -> Path:
    for folder in _FLICKR8K_TEXT_FOLDERS:
        if (data_dir / folder / name).is_file():
            return data_dir / folder / name
    raise DatasetError(
        f"{name} is neither in {data_dir} nor in its folders "
        f"{', '.join(filter(None, _FLICKR8K_TEXT_FOLDERS))}; {_FLICKR8K_REMEDY}"
    )


def _flickr8k_error(path: Path, line: int, what: str) -> DatasetError:
    return DatasetError(f"{path}, line {line}: {what}; {_FLICKR8K_REMEDY}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); {_FLICKR8K_REMEDY}") from error


def _read_flickr8k_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """File name to captions, from lines of the form NAME#NUMBER, tab, caption."""
    captions: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for number, line in _lines(path):
        match = re.fullmatch(r"([^\t#/\\]+)#(\d+)\t\s*(.+)", line)
        if match is None:
            what = f"not of the form NAME#NUMBER, tab, caption: {line[:60]!r}"
            raise _flickr8k_error(path, number, what)
        name, position, caption = match[1], int(match[2]), match[3]
        if position in captions[name]:
            raise _flickr8k_error(path, number, f"a second caption {name}#{position}")
        captions[name][position] = clean(caption)
    return {name: tuple(group[key] for key in sorted(group)) for name, group in captions.items()}


def _parse_coco(content: Any, data_dir: Path, split: str) -> tuple[list[Record], int]:
    """Records, and the number of captions whose image is not listed."""
    folder = f"{split}2014"
    captions: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for entry in content["annotations"]:
        if text := clean(entry["caption"]):
            captions[_number(entry["image_id"])].append((_number(entry["id"]), text))
    files: dict[int, tuple[str, str]] = {}
    for entry in content["images"]:
        image, name = _number(entry["id"]), _file_name(entry["file_name"])
        if image in files:
            raise ValueError(f"image {image} is listed a second time")
        url = entry.get("coco_url") or f"{COCO_URL}/{folder}/{quote(name)}"
        if not isinstance(url, str):
            raise ValueError(f"image {image} has the address {url!r}")
        files[image] = name, url
    if len({name for name, _ in files.values()}) < len(files):
        raise ValueError("two images have the same file name")
    records = []
    for image in sorted(files.keys() & captions.keys()):
        texts = tuple(text for _, text in sorted(captions[image]))
        name, url = files[image]
        records.append(Record(str(image), data_dir / folder / name, texts, split, url))
    orphans = sum(len(group) for image, group in captions.items() if image not in files)
    return records, orphans


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} should be a whole number")
    return value


def _file_name(value: Any) -> str:
    # Downloads are written under this name, so it must not lead out of the image folder.
    if not isinstance(value, str) or value in ("", ".") or re.search(r"[/\\:\0]|\.\.", value):
        raise ValueError(f"{value!r} is not a plain file name")
    return value
