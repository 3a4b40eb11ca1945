"""Reads captions that lie beside each photo, in a file of the photo's name.

`img2dataset` unpacks them so (`000000001.jpg`, `.txt` and `.json`), and those who train generators
of pictures have them so (`photo.png` and `photo.txt`, or `.caption`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioner.data.captions_file import CaptionsFile, Row, abbreviate, collect, row_of
from captioner.data.photo_search import picture_folders
from captioner.data.text import name_key
from captioner.data.text_files import read_lines, read_text

logger = logging.getLogger(__name__)

_ENDINGS = (".txt", ".caption", ".json")


def has_text_per_photo(home: Path) -> bool:
    """Whether a photo in `home` or below has its captions beside it."""
    return any(text for _, text in _pairs(home))


def read_text_per_photo(home: Path) -> CaptionsFile:
    """Reads the captions of all photos in `home` and below: one on each line of a text, or those of
    a JSON object. Photos without captions are skipped with a warning.

    Raises:
        DatasetError: A file is malformed, or there are no captions.
    """
    pairs = list(_pairs(home))
    if without := [name for name, text in pairs if not text]:
        logger.warning(
            f"{home}: {len(without)} photos have no captions beside them and are skipped: "
            f"{abbreviate(without)}"
        )

    def parse(pair: tuple[str, str]) -> Row:
        name, text = pair
        if not text.lower().endswith(".json"):
            return row_of({"image": name, "captions": read_lines(home / text)})
        entry: Any = json.loads(read_text(home / text))
        if not isinstance(entry, dict):
            raise ValueError("not a JSON object")
        return row_of({**entry, "file_name": name})

    return collect(home, ((text, (name, text)) for name, text in pairs if text), parse)


def _pairs(home: Path) -> Iterator[tuple[str, str]]:
    """The relative name of each photo, and that of the file with its captions; "" if it has none.
    img2dataset writes each caption into two files, of which the first is read."""
    for folder, pictures in picture_folders(home):
        on_disk = {name: name for name in os.listdir(folder)}
        similar = {name_key(name): name for name in on_disk}  # in another Unicode form or case
        inside = os.path.relpath(folder, home).replace(os.sep, "/")
        for picture in pictures:
            stem = os.path.splitext(picture)[0]
            names = [stem + end for end in _ENDINGS]
            texts = (on_disk.get(name) or similar.get(name_key(name)) for name in names)
            text = next(filter(None, texts), "")
            path = "" if inside == "." else f"{inside}/"
            yield path + picture, path + text if text else ""
