"""How many cores and how much memory this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LIMITS = Path("/sys/fs/cgroup")  # of the container, under Linux


def cores() -> int:
    """The CPU cores that this process may use. Containers often have fewer than the machine."""
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        found = os.cpu_count() or 1
    with suppress(OSError, ValueError):  # microseconds in each period, or "max" without a limit
        limit, period = (_LIMITS / "cpu.max").read_text().split()
        found = min(found, max(1, round(int(limit) / int(period))))
    return found


def memory() -> int:
    """The bytes of main memory that this process may use; 4 GiB if the system does not say."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        found = 2**32
    with suppress(OSError, ValueError):  # "max" without a limit
        found = min(found, int((_LIMITS / "memory.max").read_text()))
    return found
