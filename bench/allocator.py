"""The C library's allocator."""

from __future__ import annotations

import ctypes
import os

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 1 << 25  # bytes: the highest threshold that glibc takes
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process, and those that it starts from then on, keep what they free, in blocks of
    up to 32 MiB; False unless on glibc.

    By default glibc gives large blocks back to the system when they are freed, so that the tensors
    of each call and each training step have their pages brought in anew. Allocators that services
    run under (jemalloc, tcmalloc) keep them. Source: mallopt(3).
    """
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(LARGEST)
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(NEVER)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # None names no library on Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, NEVER))
