"""Makes the C library keep the memory that TensorFlow frees, for TensorFlow's next request.

A server returns it to the system from time to time.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable

# The numbers of mallopt(3), from the GNU C library's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
_LARGE = 2**25  # bytes; the largest threshold that mallopt accepts
# Each arena keeps freed memory of its own. By default there are eight for each core, and the many
# threads of a server use them all.
_ARENAS = 2


def keep_freed_memory(even_large: bool = True) -> None:
    """Makes the process reuse freed memory, and not return it to the system.

    A training step on a CPU allocates and frees hundreds of megabytes, in pieces of about ten. By
    default, each piece is a memory mapping of its own, whose pages the system fills with zeros,
    which takes about as long as the rest of the step. The process keeps at most as much memory as
    it needed at its peak.

    This does nothing if the C library is not GNU's.

    Args:
        even_large: Whether to keep pieces of 32 MB and more, too. A server should not, because one
            visitor's photo may need far more memory than anything after it.
    """
    mallopt = _of_gnu_library("mallopt")
    if mallopt is None:
        return
    if even_large:
        mallopt(_MMAP_MAX, 0)
    else:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_ARENA_MAX, _ARENAS)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)


def return_freed_memory(every: float) -> None:
    """Starts a thread that returns freed memory to the system, again and again, until the end.

    What a server has freed lies scattered in small pieces, which a later photo of another size
    often cannot use. Without this, the memory of a server that gets photos of all sizes grows for
    hours. The next request after it takes some hundredths of a second longer.

    This does nothing if the C library is not GNU's.

    Args:
        every: Seconds between two times.
    """
    trim = _of_gnu_library("malloc_trim")
    if trim is None:
        return

    def work() -> None:
        while True:
            time.sleep(every)
            trim(0)

    threading.Thread(target=work, name="freed memory", daemon=True).start()


def _of_gnu_library(name: str) -> Callable[..., int] | None:
    """A function of the GNU C library; None on other systems, and with others such as musl."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
