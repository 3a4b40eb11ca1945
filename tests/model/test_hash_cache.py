"""Digests that are remembered, and when they are not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from captioner.model.hash_cache import Digests


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file had been written long ago."""
    monkeypatch.setattr("captioner.model.hash_cache.SETTLED", -(10**18))


class Reader:
    """Computes digests and notes what it has read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path) -> str:
        self.read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_for_each_of_its_states(settled: None, tmp_path: Path) -> None:
    file, memory, reader = tmp_path / "file", tmp_path / "memory", Reader()
    for content in (b"one", b"two", b"three"):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))  # "two" has the size and the times of "one", as after cp -p
        for _ in range(2):
            digests = Digests(memory)
            assert digests.of(file, reader) == digests.of(file, reader) == sha256(content)
            assert digests.of_all([file, file], reader) == [sha256(content)] * 2
            digests.save()
    assert reader.read == ["file"] * 3


def test_a_file_just_written_is_not_trusted_to_stay(tmp_path: Path) -> None:
    file, reader = tmp_path / "file", Reader()
    digests = Digests(tmp_path / "memory")
    for i in range(50):  # faster than the clock of the file system ticks
        file.write_bytes(bytes([i]))
        assert digests.of(file, reader) == sha256(bytes([i]))
    digests.save()
    assert not (tmp_path / "memory").exists()


def test_files_that_cannot_be_read_have_none(settled: None, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    files = [tmp_path / name for name in ("nothing", "file", "folder")]
    digests = Digests(tmp_path / "memory")
    assert digests.of_all(files) == [None, sha256(b"content"), None]


def test_a_damaged_memory_costs_nothing_but_time(settled: None, tmp_path: Path) -> None:
    memory, reader = tmp_path / "memory", Reader()
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(file.name.encode())
    digests = Digests(memory)
    digests.of_all(files, reader)
    digests.save()
    whole = memory.read_bytes()
    for content in (whole[:-20], b"\xff\xfe", b'[1]\n{"a": 1}\nnull\n[[], 2, 3]\n', b""):
        memory.write_bytes(content)
        digests = Digests(memory)
        assert digests.of_all(files, reader) == [sha256(b"a"), sha256(b"b")]
        digests.save()  # behind half a line, perhaps
    reader.read.clear()
    memory.write_bytes(whole[:-20])
    digests = Digests(memory)
    digests.of_all(files, reader)
    digests.save()
    assert Digests(memory).of_all(files, reader) == [sha256(b"a"), sha256(b"b")]
    assert len(reader.read) == 1


def test_a_memory_that_cannot_be_written_does_no_harm(settled: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    digests = Digests(tmp_path / "file" / "memory")
    assert digests.of(tmp_path / "file") == sha256(b"content")
    digests.save()
