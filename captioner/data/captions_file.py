"""One captions file, in any of the usual forms, read into one list.

CSV, JSON lines (as in Hugging Face's imagefolder), COCO's JSON, and the splits of Karpathy and
Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR 2015,
https://arxiv.org/abs/1412.2306.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.data.text import clean
from captioner.errors import CaptionerError

IMAGE_FIELDS = ("file_name", "image", "filename", "file", "image_name")
CAPTION_FIELDS = ("caption", "text", "sentence", "captions", "comment")
SPLITS = {
    "train": "train",
    "restval": "train",  # Karpathy's: the part of COCO's val2014 that published results train on
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
AUTHORS = ("people", "model")  # the field "by": one of them, or a list with one for each caption
FOLDERS = ("annotations", "captions", "text", "images")
_FORMS = "captions.txt, *.csv, *.tsv, *.jsonl or *.json"


class DatasetError(CaptionerError, ValueError):
    """A data set that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class CaptionedFile:
    """An image's relative name, "/" between folders, and what the captions file says of it.

    `image_id` is the number that Karpathy's COCO split gives, else the name without its extension
    (with it, where two images differ in nothing else). `split` is "train", "val", "test" or, where
    the file gives none, None. `by` is empty, or says of each caption who wrote it: see `AUTHORS`.
    """

    image_id: str
    name: str
    captions: tuple[str, ...]
    split: str | None
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptionsFile:
    """All images of a captions file in the order of their first mention, and what was skipped."""

    files: list[CaptionedFile]
    empty: list[str]  # where captions are blank
    orphans: list[str]  # where captions are of images that the file does not list


@dataclass(frozen=True)
class _Row:
    name: str
    captions: list[str]
    split: str | None
    number: int | None = None
    by: tuple[str, ...] = ()


# What a form yields: its rows with the places they stand in, and how to understand one. A row that
# cannot be understood is a ValueError, TypeError, KeyError or the like; None is an orphan.
_Rows = Iterable[tuple[str, Any]]
_Parse = Callable[[Any], _Row | None]


def find_captions_file(data_dir: Path) -> tuple[Path, Path]:
    """The captions file of a data set and the folder that its images are looked for in.

    `data_dir` is the folder, with the file in it or in one of `FOLDERS`, or the file itself.
    """
    if data_dir.is_file():
        home = data_dir.parent
        return data_dir, home.parent if home.name in FOLDERS else home
    for folder in (data_dir, *(data_dir / name for name in FOLDERS)):
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        found = [folder / name for name in names if _may_hold_captions(folder / name)]
        if len(found) > 1:
            raise DatasetError(
                f"{folder} has several files that may hold the captions: "
                f"{abbreviate(path.name for path in found)}; give the path of the right one in "
                "place of the folder's"
            )
        if found:
            return found[0], data_dir
    raise DatasetError(
        f"no captions file is in {data_dir} or its folders {', '.join(FOLDERS)}; put one there, "
        f"named {_FORMS}"
    )


def read_captions_file(path: Path) -> CaptionsFile:
    """Read a captions file; its name's ending and its content tell the form.

    Raises DatasetError if it is malformed, naming the lines or entries, if it holds no captions,
    or if it gives splits to some of its images only.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return _collect(path, *_csv(path))
    if suffix == ".jsonl":
        return _collect(path, *_json_lines(path))
    if suffix != ".json":
        raise DatasetError(f"{path} is none of {_FORMS}; save the captions as one of them")
    content = _json(path)
    if _is_karpathy(content):
        return _collect(path, *_karpathy(content))
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _collect(path, *_coco(path, content))
    raise DatasetError(
        f'{path} has neither "images" and "annotations", as COCO\'s files do, nor "images" with '
        '"sentences", as Karpathy\'s do; write other forms as JSON lines, one object a line, and '
        "name the file *.jsonl"
    )


def read_karpathy_file(path: Path) -> CaptionsFile:
    """Read one of Karpathy's `dataset_*.json`; raises DatasetError if it is something else."""
    content = _json(path)
    if not _is_karpathy(content):
        raise DatasetError(f'{path} has no "images" with "sentences", as Karpathy\'s splits do')
    return _collect(path, *_karpathy(content))


def abbreviate(names: Iterable[str], limit: int = 5) -> str:
    """The first `limit` names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _no_captions(path: Path) -> DatasetError:
    return DatasetError(f"{path} holds no captions; write an image's name and a caption into it")


def _may_hold_captions(path: Path) -> bool:
    name = path.name.lower()
    known = name == "captions.txt" or name.endswith((".csv", ".tsv", ".jsonl", ".json"))
    return known and not name.startswith(".") and path.is_file()


def _collect(path: Path, rows: _Rows, parse: _Parse) -> CaptionsFile:
    """The rows put together by image; all malformed ones are named in one error."""
    images: dict[str, list[_Row]] = {}
    malformed: list[str] = []
    empty: list[str] = []
    orphans: list[str] = []
    for where, raw in rows:
        try:
            row = parse(raw)
        except KeyError as error:
            malformed.append(f"{where} (no {error})")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            # A JSON error counts lines anew; its `msg` is the part that is of use here.
            malformed.append(f"{where} ({getattr(error, 'msg', error)})")
        else:
            if row is None:
                orphans.append(where)
            elif not row.captions:
                empty.append(where)
            else:
                group = images.setdefault(row.name, [])
                splits = {r.split for r in (*group, row)} - {None}
                if len(splits) > 1:
                    malformed.append(f"{where} ({row.name} is in another split before)")
                group.append(row)
    if malformed:
        raise DatasetError(
            f"{path}: {len(malformed)} entries cannot be used: {abbreviate(malformed)}; mend or "
            "remove them"
        )
    if not images:
        raise _no_captions(path)

    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in images}
    shared = {stem for stem, count in Counter(stems.values()).items() if count > 1}
    files = []
    for name, group in images.items():
        number = group[0].number
        stem = name if stems[name] in shared else stems[name]
        captions = tuple(caption for row in group for caption in row.captions)
        split = next((row.split for row in group if row.split), None)
        by = tuple(author for row in group for author in row.by)
        if len(by) not in (0, len(captions)):
            raise DatasetError(
                f'{path} says of some captions of {name} who they are "by"; say it of all'
            )
        image_id = stem if number is None else str(number)
        files.append(CaptionedFile(image_id, name, captions, split, by))
    undivided = [file.name for file in files if file.split is None]
    if 0 < len(undivided) < len(files):
        raise DatasetError(
            f"{path} gives a split to some images, but none to {len(undivided)} others: "
            f"{abbreviate(undivided)}; give one to all or to none"
        )
    ids = Counter(file.image_id for file in files)
    repeated = [image_id for image_id, count in ids.items() if count > 1]
    if repeated:
        raise DatasetError(
            f"{path} has several images with the same id: {abbreviate(repeated)}; give each its own"
        )
    return CaptionsFile(files, empty, orphans)


def _row(fields: Mapping[str, Any], number: int | None = None) -> _Row:
    captions = _first(fields, CAPTION_FIELDS)
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise ValueError("its captions are not text")
    split = fields.get("split") or None
    if split is not None:
        split = SPLITS.get(str(split).strip().lower())
        if split is None:
            raise ValueError(f"its split is {fields['split']!r}, none of {', '.join(SPLITS)}")
    if number is not None and not isinstance(number, int):
        raise ValueError(f"its number is {number!r}")
    authors = _authors(fields.get("by"), len(captions))
    captions = [clean(text) for text in captions]
    said = [bool(text) for text in captions]
    texts = [text for text in captions if text]
    by = tuple(author for author, some in zip(authors, said, strict=False) if some)
    return _Row(_relative(_first(fields, IMAGE_FIELDS)), texts, split, number, by)


def _authors(by: Any, captions: int) -> list[str]:
    """Who wrote each of so many captions; nobody, if the row does not say."""
    if not by:
        return []
    authors = [by] * captions if isinstance(by, str) else by
    if not isinstance(authors, list) or len(authors) != captions or {*authors} - {*AUTHORS}:
        raise ValueError(f'"by" is {by!r}: {" or ".join(AUTHORS)}, or a list with one a caption')
    return authors


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if fields.get(name) is not None:
            return fields[name]
    raise ValueError(f"none of {', '.join(names)}")


def _relative(name: Any) -> str:
    """`name` without "." parts; what could lead out of the data set's folder is refused."""
    text = name.strip() if isinstance(name, str) else ""
    leads_out = re.search(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]", text)
    if leads_out or not PurePosixPath(text).name:
        raise ValueError(f'{name!r} is not a relative path of an image with "/" between folders')
    return str(PurePosixPath(text))


def _csv(path: Path) -> tuple[_Rows, _Parse]:
    text = _text(path)
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    if not first:
        raise _no_captions(path)
    for delimiter in ",;\t|":
        columns = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter))]
        if not {*columns}.isdisjoint(IMAGE_FIELDS) and not {*columns}.isdisjoint(CAPTION_FIELDS):
            rows = islice(_csv_rows(path, text, delimiter), 1, None)
            break
    else:
        cells = next(csv.reader([first]))
        columns = ["image", "caption"]
        if len(cells) != 2 or not PurePosixPath(cells[0].strip()).suffix:
            raise DatasetError(
                f"{path}: its first line neither names columns (one of {', '.join(IMAGE_FIELDS)} "
                f"and one of {', '.join(CAPTION_FIELDS)}) nor is an image's name and a caption: "
                f"{first.strip()[:60]!r}"
            )
        rows = _csv_rows(path, text, ",")

    def parse(cells: list[str]) -> _Row:
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            raise ValueError(
                f"{len(cells)} cells in place of {len(columns)}: text with separators in it "
                "belongs in quotes"
            )
        return _row(dict(zip(columns, cells, strict=False)))

    return rows, parse


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    # Strict, because a quote that is not closed would otherwise swallow the rest of the file.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DatasetError(
                f"{path}, line {line}: {error}; in quoted text, write each quote twice"
            ) from error
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield f"line {line}", cells


def _json_lines(path: Path) -> tuple[_Rows, _Parse]:
    lines = enumerate(_text(path).split("\n"), start=1)
    return (
        ((f"line {number}", line) for number, line in lines if line.strip()),
        lambda line: _row(_object(json.loads(line))),
    )


def _is_karpathy(content: Any) -> bool:
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and any(
        isinstance(i, dict) and "sentences" in i for i in images
    )


def _karpathy(content: dict) -> tuple[_Rows, _Parse]:
    def parse(entry: Any) -> _Row:
        entry = _object(entry)
        name = _relative(entry["filename"])
        if folder := entry.get("filepath"):
            name = f"{_relative(folder)}/{name}"
        captions = [sentence["raw"] for sentence in entry["sentences"]]
        fields = {"image": name, "captions": captions, "split": entry["split"]}
        return _row(fields, entry.get("cocoid"))

    return _entries("images", content["images"]), parse


def _coco(path: Path, content: dict) -> tuple[_Rows, _Parse]:
    images: dict[Any, dict] = {}
    for where, entry in _entries("images", content.get("images") or []):
        try:
            if images.setdefault(entry["id"], _object(entry)) is not entry:
                raise ValueError(f"a second image {entry['id']!r}")
        except KeyError as error:
            raise DatasetError(f"{path}: {where} has no {error}") from error
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{path}: {where}: {error}") from error

    def parse(annotation: Any) -> _Row | None:
        image = images.get(_object(annotation)["image_id"])
        if image is None:
            return None
        fields = {"file_name": image["file_name"], "caption": annotation["caption"]}
        return _row({**fields, "split": image.get("split")})

    return _entries("annotations", content["annotations"]), parse


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
        raise DatasetError(f"{path}: {error.strerror}") from error
    if not content.strip():
        raise _no_captions(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({error})") from error


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
