"""The C library keeps what TensorFlow gives back, instead of handing it to the system."""

from __future__ import annotations

import ctypes
import sys

# mallopt(3): the numbers of the GNU C library's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_LARGE = 2**25  # bytes; the most that may be a threshold


def keep_freed_memory(even_large: bool = True) -> None:
    """From here on, memory that was freed is used again rather than returned and asked for anew.

    A training step on a CPU takes and gives back hundreds of megabytes, in pieces of about ten. By
    default each of these is a mapping of its own, whose pages the system first fills with zeros,
    which takes about as long as all the rest. The memory kept is at most the most that was in use.
    Without `even_large`, pieces of 32 MB and more are returned: a server's visitors may send photos
    that need far more memory than anything after them.

    Does nothing where the C library is another one than GNU's.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl, say
        return
    if even_large:
        mallopt(_MMAP_MAX, 0)
    else:
        mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
