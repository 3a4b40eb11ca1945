"""The content of one captions file, grouped by image. `caption_forms` reads the file formats."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.data.names import relative_name
from captioner.data.text import clean
from captioner.errors import CaptionerError

IMAGE_FIELDS = (
    "file_name", "image", "filename", "file", "image_name", "image_path", "filepath", "path",
    "image_id",
)  # fmt: skip
CAPTION_FIELDS = (
    "caption", "text", "sentence", "captions", "comment", "raw", "sentences", "description", "title"
)  # fmt: skip
CAPTION_FIELD = re.compile(rf"({'|'.join(CAPTION_FIELDS)})([ ._-]?\d+)?")  # also "caption_0"
ADDRESS_FIELDS = ("url", "image_url", "coco_url", "img_url", "photo_image_url")
DOWNLOAD = "download the photos first, for instance with img2dataset, and give its folder"
SPLIT_FIELDS = ("set", "subset", "partition")  # which may mean something else, unlike "split"
SPLITS = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's: the part of COCO's val2014 that published results train on
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}
AUTHORS = ("people", "model")  # the field "by" is one of them, or a list with one per caption
_SHOWN = 5  # names in a message


class DatasetError(CaptionerError, ValueError):
    """A data set that cannot be used; the message names the file and the remedy."""


class NoCaptionsError(DatasetError):
    """The file contains no captions. The files of hidden test sets are published in this way."""


class _NoField(ValueError):
    """An entry has none of the fields that it should have one of."""


@dataclass(frozen=True)
class CaptionedFile:
    """An image of a captions file.

    Attributes:
        image_id: The number of the image in Karpathy's COCO split. In other files it is `name`
            without its extension, or with it if two names differ only in the extension.
        name: The relative path of the image, with "/" between folders.
        captions: All captions of the image.
        split: "train", "val" or "test"; None if the file has no splits.
        by: Who wrote each caption, see `AUTHORS`; empty if the file does not say.
        rows: The entries of the file that describe the image.
    """

    image_id: str
    name: str
    captions: tuple[str, ...]
    split: str | None
    by: tuple[str, ...] = ()
    rows: tuple[Row, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class CaptionsFile:
    """All images of a captions file, and which of its captions were skipped."""

    files: list[CaptionedFile]  # in the order in which the file first mentions them
    empty: list[str]  # the places of blank captions, such as "line 7"
    orphans: list[str]  # the places of captions whose image the file does not list
    rejected: list[str]  # the places of captions that the file marks as unusable


@dataclass(frozen=True)
class Row:
    """An entry of a captions file: an image's relative name and some of its captions.

    `number` becomes the image's id, if there is one. `source` has all fields of the entry.
    """

    name: str
    captions: list[str]
    split: str | None
    number: int | None = None
    by: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)


class Orphan:
    """Takes the place of a `Row` for a caption whose image the file does not list."""


class Rejected:
    """Takes the place of a `Row` for a caption that the file marks as unusable."""


# The reader of a file format returns its raw entries, each with its place such as "line 7", and a
# function that parses one. That function raises ValueError, TypeError, KeyError or the like for an
# entry that it cannot parse.
Rows = Iterable[tuple[str, Any]]
Parse = Callable[[Any], Row | Orphan | Rejected]


def abbreviate(names: Iterable[str]) -> str:
    """The first names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def no_captions(path: Path) -> NoCaptionsError:
    """The error for a file that contains no captions."""
    return NoCaptionsError(f"{path} holds no captions; write an image's name and a caption into it")


def collect(path: Path, rows: Rows, parse: Parse) -> CaptionsFile:
    """Parses the entries of a captions file, and groups them by image.

    Args:
        path: The file, for messages.
        rows: The raw entries and their places.
        parse: Parses one raw entry.

    Raises:
        DatasetError: Entries are malformed (one error names all of them), there are no captions,
            only some images have a split, or two images have the same id.
    """
    groups, skipped = _grouped(path, rows, parse)
    if not groups and skipped[Orphan]:
        raise DatasetError(
            f"{path}: none of its {len(skipped[Orphan])} captions belongs to an image that it "
            'lists: no image_id of "annotations" is an id of "images". Take both from the same '
            "release"
        )
    if not groups:
        raise no_captions(path)
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in groups}
    shared = {stem for stem, count in Counter(stems.values()).items() if count > 1}
    files = []
    for name, group in groups.items():
        stem = name if stems[name] in shared else stems[name]
        files.append(_captioned(path, name, stem, group))
    _check_splits_and_ids(path, files)
    return CaptionsFile(files, skipped[Row], skipped[Orphan], skipped[Rejected])


def _grouped(
    path: Path, rows: Rows, parse: Parse
) -> tuple[dict[str, list[Row]], dict[type, list[str]]]:
    """The rows of each image, and the places of skipped captions by type: `Row` if blank."""
    groups: dict[str, list[Row]] = {}
    malformed: list[str] = []
    without = 0  # entries that have no field for captions
    skipped: dict[type, list[str]] = {Row: [], Orphan: [], Rejected: []}
    for where, raw in rows:
        try:
            row = parse(raw)
        except KeyError as error:
            malformed.append(f"{where} (no {error})")
            continue
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            without += isinstance(error, _NoField)
            # The line number in a JSON error is wrong here, because it counts within the entry.
            malformed.append(f"{where} ({getattr(error, 'msg', error)})")
            continue
        if not isinstance(row, Row) or not row.captions:
            skipped[type(row)].append(where)
            continue
        group = groups.setdefault(row.name, [])
        if len({r.split for r in (*group, row)} - {None}) > 1:
            malformed.append(f"{where} ({row.name} is in another split above)")
        group.append(row)
    if malformed:
        kind = NoCaptionsError if without == len(malformed) and not groups else DatasetError
        raise kind(
            f"{path}: {len(malformed)} entries cannot be used: {abbreviate(malformed)}; correct or "
            "remove them"
        )
    return groups, skipped


def _captioned(path: Path, name: str, stem: str, group: list[Row]) -> CaptionedFile:
    captions = tuple(caption for row in group for caption in row.captions)
    split = next((row.split for row in group if row.split), None)
    by = tuple(author for row in group for author in row.by)
    if len(by) not in (0, len(captions)):
        raise DatasetError(
            f'{path} says who wrote some captions of {name} ("by"), but not all; say it of all'
        )
    number = group[0].number
    image_id = stem if number is None else str(number)
    return CaptionedFile(image_id, name, captions, split, by, tuple(group))


def _check_splits_and_ids(path: Path, files: list[CaptionedFile]) -> None:
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


def row_of(fields: Mapping[str, Any], number: int | None = None) -> Row:
    """A row from the fields of an entry.

    Args:
        fields: One of `IMAGE_FIELDS`, one of `CAPTION_FIELDS` or several with numbers behind their
            names, and optionally "split" and "by".
        number: The image's id, if the file has one besides its name.

    Raises:
        ValueError: A field is missing or malformed.
    """
    captions = _captions(fields)
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise ValueError("its captions are not text")
    split = _split(fields)
    if number is not None and not isinstance(number, int):
        raise ValueError(f"its number is {number!r}: it must be a whole number")
    authors = _authors(fields.get("by"), len(captions))
    captions = [clean(text) for text in captions]
    texts = [text for text in captions if text]
    by = tuple(author for author, text in zip(authors, captions, strict=False) if text)
    return Row(_image(fields), texts, split, number, by, fields)


def _image(fields: Mapping[str, Any]) -> str:
    if {*IMAGE_FIELDS}.isdisjoint(fields) and not {*ADDRESS_FIELDS}.isdisjoint(fields):
        raise ValueError(f"it has only the image's address: {DOWNLOAD}")
    name = _first(fields, IMAGE_FIELDS)
    is_number = isinstance(name, int) and name is fields.get("image_id")
    return relative_name(str(name) if is_number else name)


def _split(fields: Mapping[str, Any]) -> str | None:
    split = fields.get("split")
    if split and not _is_missing(split):
        known = SPLITS.get(str(split).strip().lower())
        if known is None:
            raise ValueError(f"its split is {split!r}: it must be one of {', '.join(SPLITS)}")
        return known
    others = (str(fields.get(name)).strip().lower() for name in SPLIT_FIELDS)
    return next((SPLITS[other] for other in others if other in SPLITS), None)


def _captions(fields: Mapping[str, Any]) -> Any:
    """All captions of an entry: usually a list of text."""
    names = [name for name in fields if CAPTION_FIELD.fullmatch(name)]
    numbered = {_without_number(name) for name in names if name[-1].isdigit()}
    if numbered:
        several = [fields[name] for name in names if _without_number(name) in numbered]
        return [text for text in several if not _is_missing(text)]
    if names and all(_is_missing(fields[name]) for name in names):
        return []  # a blank cell, as pandas writes it
    captions = _first(fields, CAPTION_FIELDS)
    if isinstance(captions, list):
        texts = [text for text in captions if not _is_missing(text)]
        return [_first(t, CAPTION_FIELDS) if isinstance(t, dict) else t for t in texts]
    if not isinstance(captions, str):
        return captions
    if re.match(r"\[\s*['\"]", captions):  # a list, written as JSON or by Python into a cell
        for read in (json.loads, _python_list):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return read(captions)
    return [captions]


def _without_number(field: str) -> str:
    return re.sub(r"[ ._-]?\d+$", "", field)


def _is_missing(value: Any) -> bool:
    """Whether a value is none, or NaN, which pandas has in place of blank cells."""
    return value is None or value != value


def _python_list(text: str) -> Any:
    """A list as Python writes it, or an array of NumPy, which has no commas between its texts:
    Python would join them."""
    value = ast.literal_eval(text)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    texts = [token.string for token in tokens if token.type == tokenize.STRING]
    return [ast.literal_eval(t) for t in texts] if len(texts) > len(value) else value


def _authors(by: Any, captions: int) -> list[str]:
    """Who wrote each of a row's captions; an empty list if the row does not say."""
    if not by:
        return []
    authors = [by] * captions if isinstance(by, str) else by
    if not isinstance(authors, list) or len(authors) != captions or {*authors} - {*AUTHORS}:
        raise ValueError(
            f'"by" is {by!r}: it must be {" or ".join(AUTHORS)}, or a list with one per caption'
        )
    return authors


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of the fields that is not empty, or else the first that is there."""
    found = [fields[name] for name in names if not _is_missing(fields.get(name))]
    if not found:
        raise _NoField(f"none of {', '.join(names)}")
    return next((value for value in found if value != ""), found[0])
