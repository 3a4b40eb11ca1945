"""Reads the file formats of captions: CSV, JSON Lines, COCO's, Karpathy's, and others.

Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR
2015, https://arxiv.org/abs/1412.2306. TextCaps: Sidorov et al., ECCV 2020, arXiv 2003.12462.
VizWiz-Captions: Gurari et al., ECCV 2020, arXiv 2002.08565. Localized Narratives: Pont-Tuset et
al., ECCV 2020, arXiv 1912.03098.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from captioner.data.archives import is_packed
from captioner.data.caption_tables import read_table, read_token
from captioner.data.captions_file import (
    CaptionsFile,
    DatasetError,
    NoCaptionsError,
    Orphan,
    Parse,
    Rejected,
    Row,
    Rows,
    collect,
    no_captions,
    row_of,
)
from captioner.data.names import relative_name
from captioner.data.text_files import lines_of, unreadable
from captioner.files import LFS_POINTER

_OBJECTS = frozenset(("bbox", "category_id", "segmentation", "segments_info", "keypoints"))
FORMS = "captions.txt, *.csv, *.tsv, *.jsonl, *.token or *.json"


def read_captions_file(path: Path) -> CaptionsFile:
    """Reads a captions file. The file name's extension and the content tell the format.

    Raises:
        DatasetError: The file is malformed (the message names the lines or entries), contains no
            captions, or gives splits to only some of its images.
    """
    _check_content(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return collect(path, *read_table(path))
    if suffix == ".token":
        return collect(path, *read_token(path))
    if suffix == ".jsonl":
        return collect(path, *_json_lines(path))
    if suffix != ".json":
        raise DatasetError(f"{path} is none of {FORMS}; save the captions as one of them")
    content = _json(path)
    if isinstance(content, list) and content:  # as BLIP's and pandas'
        return collect(path, _entries("entries", content), lambda entry: _row(_object(entry)))
    if _is_karpathy(content):
        return collect(path, *_karpathy(content))
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return collect(path, *_coco(path, content))
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        return collect(path, *_textcaps(content))
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        raise NoCaptionsError(
            f'{path} lists photos without captions: it has neither "annotations", as COCO\'s files '
            'do, nor "sentences", as Karpathy\'s do; take the file that has the captions'
        )
    raise DatasetError(
        f'{path} has neither "images" and "annotations", as COCO\'s files do, nor "images" with '
        '"sentences", as Karpathy\'s do; write other formats as JSON lines, one object per line, '
        "and name the file *.jsonl"
    )


def read_coco_file(path: Path) -> CaptionsFile:
    """Reads a file in COCO's format. Raises DatasetError if it has another format."""
    _check_content(path)
    content = _json(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise DatasetError(f'{path} has no "images" and "annotations", as COCO\'s files do')
    return collect(path, *_coco(path, content))


def _check_content(path: Path) -> None:
    """Raises DatasetError if the file cannot be opened, or is not there yet."""
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
    except OSError as error:
        raise unreadable(path, error) from error
    if head == LFS_POINTER:
        raise DatasetError(
            f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
        )
    if is_packed(path.name, head):
        raise DatasetError(
            f"{path} is an archive or a spreadsheet; unpack it and give the path of the folder, or "
            "save the table as CSV in UTF-8"
        )


def _json_lines(path: Path) -> tuple[Rows, Parse]:
    def parse(line: str) -> Row:
        entry = json.loads(line)
        if isinstance(entry, list):
            raise ValueError("not a JSON object; name a file with one list of them *.json")
        entry = _object(entry)
        narrative = "dataset_id" in entry and "image_id" in entry
        return _narrative(entry) if narrative else _row(entry)

    return lines_of(path), parse


def _row(entry: dict) -> Row:
    """`row_of` for fields in upper or lower case."""
    return row_of({name.lower(): value for name, value in entry.items()})


def _narrative(entry: dict) -> Row:
    """An entry of Localized Narratives. It names the image by its number in another data set."""
    source, image = str(entry["dataset_id"]).lower(), str(entry["image_id"])
    if source.startswith("mscoco"):
        image = f"{image:0>12}"
    fields: dict[str, Any] = {"image": f"{image}.jpg", "caption": entry["caption"]}
    if match := re.search(r"train|val|test", source):  # also "validation", and "train2017"
        fields["split"] = match[0]
    return row_of(fields)


def _is_karpathy(content: Any) -> bool:
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and any(
        isinstance(i, dict) and "sentences" in i for i in images
    )


def _karpathy(content: dict) -> tuple[Rows, Parse]:
    def parse(entry: Any) -> Row:
        entry = _object(entry)
        name = relative_name(entry["filename"])
        if folder := entry.get("filepath"):
            name = f"{relative_name(folder)}/{name}"
        captions = [sentence["raw"] for sentence in entry["sentences"]]
        fields = {"image": name, "captions": captions, "split": entry["split"]}
        return row_of(fields, entry.get("cocoid"))

    return _entries("images", content["images"]), parse


def _coco(path: Path, content: dict) -> tuple[Rows, Parse]:
    """COCO's format. nocaps has it too; VizWiz adds marks for captions that are unusable."""
    images: dict[int | str, dict] = {}
    names = set()
    for where, entry in _entries("images", content.get("images") or []):
        try:
            if images.setdefault(_coco_id(entry["id"]), _object(entry)) is not entry:
                raise ValueError(f"a second image {entry['id']!r}")
            name = entry.get("file_name")
            if isinstance(name, str) and name in names:
                raise ValueError(f"a second image with the file name {name!r}")
            names.add(str(name))
        except KeyError as error:
            raise DatasetError(f"{path}: {where} has no {error}") from error
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{path}: {where}: {error}") from error

    first = next(filter(lambda a: isinstance(a, dict), content["annotations"]), {})
    if "caption" not in first and not _OBJECTS.isdisjoint(first):
        raise NoCaptionsError(
            f"{path} says what objects are where in the photos, and has no captions; take the file "
            "of the same release whose name begins with captions_"
        )

    def parse(annotation: Any) -> Row | Orphan | Rejected:
        image = images.get(_coco_id(_object(annotation)["image_id"]))
        if image is None:
            return Orphan()
        if annotation.get("is_rejected") or annotation.get("is_precanned"):
            return Rejected()
        if annotation["caption"] is None:  # published files have none of these
            raise ValueError("its caption is not text")
        fields = {"file_name": image["file_name"], "caption": annotation["caption"]}
        more = {"image": image, "annotation": annotation}
        return row_of({**fields, "split": image.get("split"), **more})

    return _entries("annotations", content["annotations"]), parse


def _coco_id(value: Any) -> int | str:
    """An id, which is a number or text; "7" becomes 7."""
    if isinstance(value, str) and value.strip():
        return int(value) if value.strip().isdecimal() else value.strip()
    if not isinstance(value, int):
        raise ValueError(f"the id {value!r} should be a whole number or text")
    return value


def _textcaps(content: dict) -> tuple[Rows, Parse]:
    def parse(entry: Any) -> Row:
        entry = _object(entry)
        captions = entry.get("caption_str", entry.get("reference_strs"))
        if captions is None:  # a test photo, whose captions are secret
            captions = []
        fields = {"image": f"{entry['image_id']}.jpg", "captions": captions}
        return row_of({**fields, "split": entry.get("set_name")})

    return _entries("data", content["data"]), parse


def _entries(key: str, entries: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{key}[{index}]", entry) for index, entry in enumerate(entries))


def _object(value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _json(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if not content.strip():
        raise no_captions(path)
    try:
        return json.loads(content)
    except UnicodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        lines = getattr(error, "msg", "") == "Extra data"
        remedy = (
            "if it has an object in each line, name it *.jsonl"
            if lines
            else "correct it there, or download it again"
        )
        raise DatasetError(f"{path} is not JSON ({error}); {remedy}") from error
