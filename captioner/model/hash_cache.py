"""Computes the SHA-256 of files, and remembers it from run to run until a file changes."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from captioner.files import file_sha256
from captioner.machine import cores

logger = logging.getLogger(__name__)

# Nanoseconds. The times of files have a resolution of milliseconds, on some systems of seconds.
SETTLED = 2_000_000_000


class Digests:
    """The SHA-256 (hex) of files, remembered in the file `path`, which may be deleted at any time.

    A file is hashed again if its size, its modification time or its status-change time differ. That
    detects copies, downloads and editors, but not damage by the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[list[int], str]] = {}
        self._new: list[str] = []
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            try:
                name, state, digest = json.loads(line)
                self._known[name] = state, digest
            except (ValueError, TypeError):  # the last line of a run that was killed
                continue

    def of(self, file: Path, compute: Callable[[Path], str] = file_sha256) -> str | None:
        """The digest of a file, or None if it cannot be read. Several threads may call this.

        `compute` computes a digest that is not known yet. It must always be the same for a file.
        """
        now = time.time_ns()
        try:
            name, state = _state(file)
            known = self._known.get(name)
            if known and known[0] == state:
                return known[1]
            digest = compute(file)
        except OSError:
            return None
        # If a file has just changed, its times may not show that it changes again.
        if now - max(state[1:]) > SETTLED:
            self._known[name] = state, digest
            self._new.append(json.dumps([name, state, digest]))
        return digest

    def of_all(
        self, files: Sequence[Path], compute: Callable[[Path], str] = file_sha256
    ) -> list[str | None]:
        """`of` for each file; several threads read the files that must be hashed."""
        unknown = [file for file in dict.fromkeys(files) if not self._knows(file)]
        with ThreadPoolExecutor(cores(), "captioner hashing") as pool:
            read = dict(zip(unknown, pool.map(lambda f: self.of(f, compute), unknown), strict=True))
        return [read[file] if file in read else self.of(file, compute) for file in files]

    def save(self) -> None:
        """Appends the new digests to `path`. If that fails, the next run computes them again."""
        new, self._new = self._new, []
        if not new:
            return
        try:
            # Without a buffer, this is a single write, so that other processes can append, too.
            # Each line begins with an end of line, because the file may end in half a line.
            with self.path.open("ab", buffering=0) as file:
                file.write("".join(f"\n{line}" for line in new).encode())
        except OSError as error:
            logger.debug("%s cannot be written to (%s)", self.path, error)

    def _knows(self, file: Path) -> bool:
        try:
            name, state = _state(file)
        except OSError:
            return True
        return self._known.get(name, (None,))[0] == state


def _state(file: Path) -> tuple[str, list[int]]:
    stat = os.stat(file)
    return os.path.abspath(file), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
