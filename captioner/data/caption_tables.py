"""Reads tables of captions, with any separator and with or without a line that names the columns,
and Flickr's lines of the form NAME#NUMBER, tab, caption."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from captioner.data.captions_file import (
    ADDRESS_FIELDS,
    CAPTION_FIELD,
    CAPTION_FIELDS,
    DOWNLOAD,
    IMAGE_FIELDS,
    DatasetError,
    NoCaptionsError,
    Parse,
    Row,
    Rows,
    no_captions,
    row_of,
)
from captioner.data.names import is_picture
from captioner.data.text_files import read_lines, read_text

_KAGGLE = ["image_name", "comment_number", "comment"]
_TOKEN = re.compile(r"([^\t]+)#\d+\t(.*)")
_QUOTES = "in quoted text, write each quote twice"


def read_table(path: Path) -> tuple[Rows, Parse]:
    """The rows of a table, and what parses one. Raises DatasetError."""
    text = read_text(path)
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    if not first:
        raise no_captions(path)
    if _TOKEN.match(first.rstrip("\r\n")):
        return read_token(path)
    for delimiter in ",;\t|":
        columns = [cell.strip().lower() for cell in _cells(path, first, delimiter)]
        if not {*columns}.isdisjoint(IMAGE_FIELDS) and any(map(CAPTION_FIELD.fullmatch, columns)):
            # Kaggle's Flickr30k does not quote its cells: quotes in it belong to the captions.
            quoted = columns != _KAGGLE or delimiter != "|"
            rows = islice(_rows(path, text, delimiter, quoted), 1, None)
            break
    else:
        columns = ["image", "caption"]
        rows = _rows(path, text, _delimiter_without_columns(path, first))

    def parse(cells: list[str]) -> Row:
        if columns == _KAGGLE and len(cells) == 2:
            # One row of Kaggle's Flickr30k lacks the separator after the caption's number.
            cells = [cells[0], *re.split(r"(?<=\d)\s+", cells[1], maxsplit=1)]
        if len(cells) < len(columns):
            raise ValueError(
                f"{len(cells)} cells instead of {len(columns)}: a separator is missing"
            )
        if any(cells[len(columns) :]):
            raise ValueError(
                f"{len(cells)} cells instead of {len(columns)}: text with separators in it "
                "belongs in quotes"
            )
        return row_of(dict(zip(columns, cells, strict=False)))

    return rows, parse


def _delimiter_without_columns(path: Path, first: str) -> str:
    """The separator of a table whose first line is an image's name and a caption already."""
    for delimiter in "\t;|":
        cells = _cells(path, first, delimiter)
        if len(cells) == 2 and is_picture(cells[0].strip()):
            return delimiter
    cells = _cells(path, first, ",")
    if len(cells) == 2 and PurePosixPath(cells[0].strip()).suffix:
        return ","
    words = {word for word in re.split(r"[,;\t|\s]", first.lower())}
    if "://" in first or not words.isdisjoint(ADDRESS_FIELDS):
        raise DatasetError(f"{path} has the addresses of photos: {DOWNLOAD}")
    hidden = not {c.strip().lower() for c in cells}.isdisjoint(IMAGE_FIELDS)
    raise (NoCaptionsError if hidden else DatasetError)(
        f"{path}: its first line neither names columns (one of {', '.join(IMAGE_FIELDS)} "
        f"and one of {', '.join(CAPTION_FIELDS)}) nor is an image's name and a caption: "
        f"{first.strip()[:60]!r}"
    )


def _cells(path: Path, line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:  # a cell of more than 128 KB
        raise DatasetError(
            f"{path}, line 1: {error}; is it a table with captions? If so, close each quote"
        ) from error


def _rows(
    path: Path, text: str, delimiter: str, quoted: bool = True
) -> Iterator[tuple[str, list[str]]]:
    quoted = quoted and (delimiter != "\t" or _is_quoted(text))
    # Strict, because a quote that is not closed would otherwise swallow the rest of the file.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=True,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            long = "limit" in str(error)  # more than 128 KB
            remedy = "shorten the text, or close the quote in front of it" if long else _QUOTES
            raise DatasetError(f"{path}, line {line}: {error}; {remedy}") from error
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield f"line {line}", cells


def _is_quoted(text: str) -> bool:
    """Whether the quotes in a table with tabs enclose cells, as Excel writes them. In other such
    tables, they are part of the text."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True):
            pass
    except csv.Error:
        return False
    return True


def read_token(path: Path) -> tuple[Rows, Parse]:
    """The format of Flickr8k and Flickr30k: NAME#NUMBER, tab, caption."""
    lines = enumerate(read_lines(path), start=1)

    def parse(line: str) -> Row:
        match = _TOKEN.fullmatch(line)
        if match is None:
            raise ValueError(f"not of the form NAME#NUMBER, tab, caption: {line[:60]!r}")
        return row_of({"image": match[1], "caption": match[2]})

    return ((f"line {number}", line) for number, line in lines if line.strip()), parse
