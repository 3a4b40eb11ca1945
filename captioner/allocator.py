"""Makes the C library keep the memory that TensorFlow frees, for TensorFlow's next request."""

from __future__ import annotations

import ctypes
import sys

# The numbers of mallopt(3), from the GNU C library's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_LARGE = 2**25  # bytes; the largest threshold that mallopt accepts


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
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return
    if even_large:
        mallopt(_MMAP_MAX, 0)
    else:
        mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
