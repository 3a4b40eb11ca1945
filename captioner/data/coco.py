"""Reads the captions of MS-COCO 2014 in the official layout.

Chen et al., "Microsoft COCO Captions", 2015, https://arxiv.org/abs/1504.00325.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from captioner.data.archives import unpack_first
from captioner.data.caption_forms import read_coco_file
from captioner.data.captions_file import CaptionedFile, DatasetError
from captioner.data.folder import read_folder
from captioner.data.names import file_name
from captioner.data.records import Record, check_no_leak, sample_records, select_subset
from captioner.files import system_fault

logger = logging.getLogger(__name__)

MAX_VAL = 5000  # validation photos: as many as in Karpathy's split
COCO_URL = "http://images.cocodataset.org"
_ANNOTATIONS = (
    "annotations",
    "annotations/annotations",
    "annotations_trainval2014/annotations",
    "annotations_trainval2014",
)
_REMEDY = (
    "take it from the official annotations_trainval2014.zip, or move it away and let the trainer "
    "download it"
)


def read_coco(data_dir: str | os.PathLike[str], split: str = "train") -> list[Record]:
    """Reads the captions of MS-COCO's "train" or "val" images (2014) in the official layout.

    This needs only `annotations/captions_{split}2014.json`. The images belong in `{split}2014/`,
    but need not be there yet. Both may also lie where unpacking each archive into a folder of its
    name puts them, and the images in `images/{split}2014/`.

    Returns:
        Records ordered by image number, with their captions ordered by annotation number. Images
        without captions are dropped.

    Raises:
        DatasetError: The file is missing or malformed, or names an image outside its folder.
    """
    if split not in ("train", "val"):
        raise DatasetError(f'COCO has captions for "train" and "val", not for "{split}"')
    data_dir = Path(data_dir)
    check_release(data_dir)
    path, photos = captions_path(data_dir, split), _photo_folder(data_dir, split)
    try:
        content = read_coco_file(path)
        records = [_record(file, photos, split) for file in content.files]
        check_no_leak(records)
    except (ValueError, TypeError) as error:
        if system_fault(error.__cause__ or error, path):
            raise  # the file may be whole, and the message says what to do
        where = "" if str(path) in str(error) else f"{path}: "
        what = str(error).removesuffix(".")
        raise DatasetError(f"{where}{what}; {_REMEDY}") from error
    if content.orphans:
        logger.warning(
            f"{path}: {len(content.orphans)} captions are skipped, because the file does not list "
            "their images"
        )
    return sorted(records, key=lambda record: int(record.image_id))


def captions_path(data_dir: Path, split: str) -> Path:
    """Where the captions of a split are, or belong."""
    name = f"captions_{split}2014.json"
    places = [data_dir / folder / name for folder in _ANNOTATIONS]
    return next((path for path in places if path.is_file()), places[0])


def _photo_folder(data_dir: Path, split: str) -> Path:
    """Where the photos of a split are, or belong."""
    name = f"{split}2014"
    places = [data_dir / name, data_dir / "images" / name, data_dir / name / name]
    return next((folder for folder in places if any(folder.glob("*.jpg"))), places[0])


def read_coco_training(
    data_dir: str | os.PathLike[str], num_images: int | None, seed: int
) -> list[Record]:
    """The records of COCO to train on.

    If photos of val2014 are on disk, the official split is used, with at most `MAX_VAL` validation
    photos. Otherwise the records are those of `read_coco_subset`. Raises DatasetError.
    """
    if has_official_val(Path(data_dir)):
        return _read_official_splits(Path(data_dir), num_images, seed)
    return read_coco_subset(data_dir, num_images, seed)


def read_coco_subset(
    data_dir: str | os.PathLike[str], num_images: int | None = None, seed: int = 0
) -> list[Record]:
    """`num_images` of the train2014 images (None for all), whether or not they are on disk.

    `select_subset` divides them into 80% "train" and 20% "val". Raises DatasetError.
    """
    return select_subset(read_coco(data_dir, "train"), num_images, seed)


def read_coco_evaluation(data_dir: str | os.PathLike[str], seed: int) -> list[Record]:
    """The photos of val2014 that are on disk, to evaluate on, and the records of train2014, if its
    captions are there, to compare captions with. Raises DatasetError."""
    records = [r for r in read_coco(data_dir, "val") if r.path.is_file()]
    try:
        records += read_coco(data_dir, "train")
    except DatasetError as error:
        logger.warning("no training captions to compare with: %s", error)
    return records


def read_coco2017(data_dir: Path, seed: int) -> list[Record]:
    """The photos of COCO 2017 that are on disk. Raises DatasetError."""
    check_release(data_dir, "2017")
    return read_folder(data_dir, seed=seed, release="2017")


def check_release(data_dir: Path, year: str = "2014") -> None:
    """Raises DatasetError if COCO lies elsewhere, in archives, or in the other release alone, so
    that nothing is downloaded that is there, and the model card does not name this release."""
    names = {"2014": "coco", "2017": "coco2017"}
    if year == "2014":  # the other one is read from any of its folders and files
        _check_is_home(data_dir)
    places = (
        "annotations",
        "annotations/annotations",
        "annotations_*",
        "annotations_*/annotations",
    )
    forms = (f"{place}/captions_*20??.json" for place in places)
    found = {path.stem[-4:] for form in forms for path in data_dir.glob(form)}
    other = next(release for release in names if release != year)
    if found == {other}:
        raise DatasetError(
            f"{data_dir} has COCO {other}, and {names[year]} is COCO {year}; use --dataset "
            f"{names[other]}:{data_dir}"
        )
    if found:
        return
    if below := sorted(data_dir.glob(f"*/annotations/captions_*{year}.json")):
        raise DatasetError(f"COCO is not in {data_dir} itself; give the path {below[0].parents[1]}")
    if (data_dir / f"annotations_trainval{year}.zip").is_file():
        raise DatasetError(f"{data_dir} has archives of COCO; {unpack_first([data_dir])}")


def _check_is_home(data_dir: Path) -> None:
    if data_dir.is_file():
        raise DatasetError(
            f"{data_dir} is a file; {'unpack it, and ' * (data_dir.suffix == '.zip')}give the path "
            "of the folder that holds annotations and the folders of photos"
        )
    if any(data_dir.glob("captions_*2014.json")) and data_dir.name.startswith("annotations"):
        raise DatasetError(
            f"{data_dir} has only the captions; give the path of the folder above, which holds "
            f"the folders of photos too: --dataset coco:{data_dir.parent}"
        )


def has_official_val(data_dir: Path) -> bool:
    """Whether COCO's validation captions and some photos of val2014 are in `data_dir`."""
    photos = _photo_folder(data_dir, "val")
    return captions_path(data_dir, "val").is_file() and any(photos.glob("*.jpg"))


def _read_official_splits(data_dir: Path, num_images: int | None, seed: int) -> list[Record]:
    """The photos of train2014 and val2014 that are on disk; at most `MAX_VAL` of val2014."""
    records: list[Record] = []
    for split, most in (("train", num_images), ("val", MAX_VAL)):
        listed = read_coco(data_dir, split)
        here = [r for r in listed if r.path.is_file()]
        if not here:
            raise DatasetError(f"{data_dir} has no photo of {split}2014. Put them there.")
        if len(here) < len(listed):
            logger.warning(
                "%s: %d of the %d photos of %s2014 are there; the others are left out",
                data_dir,
                len(here),
                len(listed),
                split,
            )
        chosen = here if most is None or most >= len(here) else sample_records(here, most, seed)
        records += [replace(r, split=split) for r in chosen]
    return records


def _record(file: CaptionedFile, folder: Path, split: str) -> Record:
    rows = sorted(file.rows, key=lambda row: _number(row.source["annotation"].get("id")))
    image = rows[0].source["image"]
    url = image.get("coco_url") or f"{COCO_URL}/{folder.name}/{quote(file.name)}"
    if not isinstance(url, str):
        raise ValueError(f"image {image['id']} has the address {url!r}")
    captions = tuple(caption for row in rows for caption in row.captions)
    # Downloads are written under this name, so it must not lead out of the image folder.
    path = folder / file_name(file.name)
    return Record(str(_number(image["id"])), path, captions, split, url)


def _number(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if not isinstance(value, int):
        raise ValueError(f"{value!r} should be a whole number")
    return value
