"""What a process may use of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner import machine
from captioner.machine import cores, memory


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_that_are_not_ours_are_not_counted() -> None:
    mine = os.sched_getaffinity(0)
    assert 1 <= cores() <= len(mine)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, mine)


def test_a_container_has_less_than_the_machine(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "_LIMITS", tmp_path)
    whole = cores(), memory()
    for name, limit in (("cpu.max", "max 100000"), ("memory.max", "max")):
        (tmp_path / name).write_text(f"{limit}\n")
    assert (cores(), memory()) == whole
    for name, limit in (("cpu.max", "100000 100000"), ("memory.max", "4096")):
        (tmp_path / name).write_text(f"{limit}\n")
    assert (cores(), memory()) == (1, 4096)
