"""Reads text files of any usual encoding, with errors that name the file and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from captioner.data.captions_file import DatasetError
from captioner.data.text import encoding_of
from captioner.files import system_fault


def unreadable(path: Path, error: OSError) -> DatasetError:
    return DatasetError(
        system_fault(error, path) or f"{path} cannot be opened ({error.strerror}). Check the path."
    )


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Opens a text file, and raises DatasetError if it cannot be opened or read."""
    try:
        with path.open(encoding=encoding_of(path), newline="") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, read one by one, because the file may exceed the memory. Raises
    DatasetError."""
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", line


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Other separators than ends of lines, such as U+2028, which
    `splitlines` takes for such, belong to the text. Raises DatasetError."""
    return re.split(r"\r\n?|\n", read_text(path))


def read_text(path: Path) -> str:
    """The content of a text file. Raises DatasetError."""
    with _opened(path) as file:
        return file.read()
