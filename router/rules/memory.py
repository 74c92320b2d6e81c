"""Gives memory back to the kernel after a large change.

A change of a million rules takes some hundred megabytes for seconds. The C library keeps what was
freed for the next one; a keeper mostly waits for hours until then.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable


def give_memory_back(trim: Callable[[int], int] | None = None) -> bool:
    """Collect garbage and give free memory back; takes some milliseconds. For a keeper.

    Args:
        trim: as glibc's `malloc_trim`; by default that, where there is one. Other C libraries give
            back by themselves, or not at all.

    Returns:
        Whether there was a way to.
    """
    gc.collect()
    trim = trim or _trim_of_glibc()
    if trim is None:
        return False
    trim(0)
    return True


def _trim_of_glibc() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim
