"""Finds the photos of a data set, also those that lie in none of the folders where their publishers
put them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from captioner.data.captions_file import SPLITS, abbreviate
from captioner.data.names import FileFinder, is_picture, name_key, picture_id, without_release

logger = logging.getLogger(__name__)

_DEPTH = 4  # folders inside each other, so that a search ends soon even in somebody's home folder


def find_photos(
    folders: Iterable[Path],
    names: Iterable[str],
    home: Path | None = None,
    split: str | None = None,
) -> dict[str, Path]:
    """Where photos are: in some folders, or else anywhere in the data set.

    Args:
        folders: Where to look first, in this order.
        names: The relative names of the photos, as a captions file gives them.
        home: The folder of the data set, in which `search_photos` looks if none of the photos is in
            `folders`; None to look nowhere else.
        split: See `search_photos`.

    Returns:
        The photos that were found, by the given name.
    """
    finder, names, folders = FileFinder(), list(names), list(folders)
    found = {}
    for name in names:
        paths = (finder.find(folder, name) for folder in folders)
        if path := next((path for path in paths if path), None):
            found[name] = path
    if not found and home:
        found = search_photos(home, names, split)
        if found:
            places = abbreviate(sorted({str(path.parent) for path in found.values()}))
            logger.info(f"{home}: its photos are in {places}")
    return found


def search_photos(home: Path, names: Iterable[str], split: str | None = None) -> dict[str, Path]:
    """Looks for photos in all folders below one.

    Args:
        home: The folder.
        names: The relative names of the photos, as a captions file gives them. Folders in them
            only decide between several files of one name.
        split: "train", "val" or "test": folders that are named after another split are left out,
            because they may have other photos of the same names.

    Returns:
        The photos that were found, by the given name. A name that several files have is missing.
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        last = PurePosixPath(name).name
        wanted.setdefault(_key(last) if "." in last else picture_id(last), []).append(name)
    found: dict[str, list[Path]] = {}
    for folder, pictures in picture_folders(home, split):
        for picture in pictures:
            stem = os.path.splitext(picture)[0]
            for key in dict.fromkeys((_key(picture), picture_id(stem))):
                for name in wanted.get(key, ()):
                    found.setdefault(name, []).append(Path(folder, picture))
    chosen = {name: _best(name, paths) for name, paths in found.items()}
    return {name: path for name, path in chosen.items() if path}


def _key(name: str) -> str:
    return without_release(name_key(name))


def _best(name: str, paths: list[Path]) -> Path | None:
    if len(paths) > 1:
        parts = [name_key(part) for part in PurePosixPath(name).parts]
        paths = [p for p in paths if [name_key(part) for part in p.parts[-len(parts) :]] == parts]
    return paths[0] if len(paths) == 1 else None


def picture_folders(home: Path, split: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """`home` and the folders below it, each once, with the names of their pictures.

    Args:
        home: The folder.
        split: Folders that are named after another split are left out; None for all.
    """
    return _folders(str(home), split, set())


def _folders(
    folder: str, split: str | None, visited: set[str], depth: int = 0
) -> Iterator[tuple[str, list[str]]]:
    here = os.path.realpath(folder)
    if here in visited:  # links may form a circle
        return
    visited.add(here)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    yield folder, [entry.name for entry in entries if is_picture(entry.name) and entry.is_file()]
    for entry in entries if depth < _DEPTH else ():
        named = SPLITS.get(entry.name.lower().rstrip("0123456789"), split)
        if split in (None, named) and not is_picture(entry.name) and entry.is_dir():
            yield from _folders(entry.path, split, visited, depth + 1)
