"""The memory of a lane: made by the router, sealed, and handed over as descriptors.

Sealed, as a file that the other side could shorten would end whoever reads it (SIGBUS), and as
only one side may write into each direction. Source: memfd_create(2), fcntl(2), "File sealing".
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass

import numpy as np

from packetcloud.chunk.hop.buffers import ByteArray
from packetcloud.chunk.hop.lane import Lane

_SEAL_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE, Linux 5.1: not in Python's fcntl before 3.12
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class LaneMemory:
    """A lane, and what its other side maps it from."""

    lane: Lane
    descriptors: tuple[int, int]
    """What the maker writes; what the other side writes. The caller closes them."""


def make_lane(size: int) -> LaneMemory:
    """Make the memory of a lane, `size` bytes for each direction.

    Raises:
        OSError: there is no memory or descriptor for it, or the kernel cannot seal.
    """
    descriptors: list[int] = []
    try:
        for _ in range(2):
            fd = os.memfd_create("packetcloud-lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            descriptors.append(fd)
            os.ftruncate(fd, size)
        own, theirs = descriptors
        written = _map(own, size, mmap.PROT_READ | mmap.PROT_WRITE)
        fcntl.fcntl(own, fcntl.F_ADD_SEALS, _SIZE_SEALS | _SEAL_FUTURE_WRITE)
        fcntl.fcntl(theirs, fcntl.F_ADD_SEALS, _SIZE_SEALS)
        read = _map(theirs, size, mmap.PROT_READ)
    except BaseException:  # whatever it was, the caller has no descriptors to close
        close_all(descriptors)
        raise
    return LaneMemory(Lane(written, read), (own, theirs))


def map_lane(theirs: int, own: int) -> Lane:
    """Map a lane that another process made, from the descriptors that it handed over.

    Raises:
        OSError: they are no such memory.
    """
    size = os.fstat(own).st_size
    if not size or os.fstat(theirs).st_size != size:
        raise OSError("not the memory of a lane")
    read = _map(theirs, size, mmap.PROT_READ)
    return Lane(_map(own, size, mmap.PROT_READ | mmap.PROT_WRITE), read)


def close_all(descriptors: tuple[int, ...] | list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _map(fd: int, size: int, protection: int) -> ByteArray:
    """Return the memory as an array, which unmaps it when it goes."""
    memory = mmap.mmap(fd, size, mmap.MAP_SHARED, protection)
    return np.frombuffer(memory, np.uint8)
