"""The C library keeps freed memory, and returns the pieces that it should not keep."""

import subprocess
import sys
from pathlib import Path

import pytest

from captioner import allocator

# Prints how many MB stay in memory of as many that were in use for a moment.
HELD = """
import re, sys, time
from pathlib import Path
import numpy as np
from captioner.allocator import keep_freed_memory, return_freed_memory

def used():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000

count, size, *keep = map(int, sys.argv[1:])
if keep:
    keep_freed_memory(even_large=bool(keep[0]))
before = used()
pieces = [np.ones(size * 1_000_000, np.uint8) for _ in range(count)]
del pieces
print(used() - before)
return_freed_memory(every=0.1)
time.sleep(0.5)
print(used() - before)
"""


def held(*arguments: int) -> float:
    return measured(*arguments)[0]


def measured(*arguments: int) -> list[float]:
    """MB that are held at once, and after some freed memory was returned."""
    command = [sys.executable, "-c", HELD, *map(str, arguments)]
    root = Path(allocator.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, check=True)
    return list(map(float, done.stdout.split()))


needs_gnu = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(allocator.ctypes.CDLL(None), "mallopt"),
    reason="freed memory is kept with the GNU C library only",
)


@needs_gnu
def test_a_server_returns_freed_memory_from_time_to_time():
    kept, later = measured(20, 8, 0)
    assert kept > 120 and later < 40


@needs_gnu
def test_freed_memory_is_kept_but_large_pieces_may_be_given_back():
    assert held(20, 8) < 40  # by default
    assert held(20, 8, 1) > 120
    assert held(20, 8, 0) > 120
    assert held(2, 80, 1) > 120
    assert held(2, 80, 0) < 40
