"""SHA-256 of files, computed once for each state of a file and remembered from run to run."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from captioner.files import file_sha256

logger = logging.getLogger(__name__)

SETTLED = 2_000_000_000  # ns; the times of files tick in milliseconds, on some systems in seconds


class Digests:
    """SHA-256 (hex) of files, remembered in `path`, which may be deleted at any time.

    A file is hashed anew if its size, its time of modification or that of its status has changed:
    what a copy, a download or an editor leaves, but no decay of the disk below.
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
            except (ValueError, TypeError):  # the end of a run that was killed
                continue

    def of(self, file: Path, compute: Callable[[Path], str] = file_sha256) -> str | None:
        """The digest of a file, None if it cannot be read. Threads may call this at once.

        `compute` is what it is computed by, if need be: the same for the same file, always.
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
        # A file that has just changed may change again without its times showing it.
        if now - max(state[1:]) > SETTLED:
            self._known[name] = state, digest
            self._new.append(json.dumps([name, state, digest]))
        return digest

    def of_all(
        self, files: Sequence[Path], compute: Callable[[Path], str] = file_sha256
    ) -> list[str | None]:
        """`of` each file; those that have to be read are read by several threads."""
        unknown = [file for file in dict.fromkeys(files) if not self._knows(file)]
        with ThreadPoolExecutor(os.cpu_count(), "captioner hashing") as pool:
            read = dict(zip(unknown, pool.map(lambda f: self.of(f, compute), unknown), strict=True))
        return [read[file] if file in read else self.of(file, compute) for file in files]

    def save(self) -> None:
        """Adds to `path` what is new. Where that cannot be written, the next run hashes again."""
        new, self._new = self._new, []
        if not new:
            return
        try:
            # Without a buffer it is one write: other processes may add theirs. Each line begins
            # with an end of line, because the file may end in half a line.
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
