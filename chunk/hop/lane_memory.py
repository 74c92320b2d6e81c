"""The memory of a lane: made by the router, sealed, and handed over as descriptors.

Sealed, as a file that the other side could shorten would end whoever reads it (SIGBUS), and as
only one side may write into each direction. Source: memfd_create(2), fcntl(2), "File sealing".
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
from dataclasses import dataclass

import numpy as np

from packetcloud.chunk.hop.buffers import ByteArray
from packetcloud.chunk.hop.lane import Lane

_SEAL_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE, Linux 5.1: not in Python's fcntl before 3.12
_KEEPS_SIZE = fcntl.F_SEAL_SHRINK
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Bell:
    """Wakes the other side of a lane; nothing depends on its being heard.

    A datagram over loopback asks the kernel to run who gets it on this processor, as if we went to
    sleep. A bell does not. The other side gets no descriptor of the bell itself, only of an ear: it
    could fill the bell and have whoever rings it wait. Source: eventfd(2), epoll(7).
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        os.close(self._fd)

    def make_ear(self) -> int:
        """Return a descriptor that is readable when it was rung; the caller closes it."""
        with select.epoll() as ear:
            ear.register(self._fd, select.EPOLLIN | select.EPOLLET)
            return os.dup(ear.fileno())

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)


class Ear:
    """Hears a bell of another process.

    Args:
        fd: of its ear; the caller may close it.
        router_processors: what the router said of where it runs, beside it.
    """

    def __init__(self, fd: int, router_processors: bytes = b"") -> None:
        self.router_processors = router_processors
        self._ear = select.epoll.fromfd(os.dup(fd))

    def __del__(self) -> None:
        if hasattr(self, "_ear"):
            self._ear.close()

    def fileno(self) -> int:
        return self._ear.fileno()

    def was_rung(self) -> bool:
        """Tell whether it was rung since this was asked last."""
        return bool(self._ear.poll(0, 1))


@dataclass(frozen=True, slots=True)
class LaneMemory:
    """A lane, and what its other side maps it from."""

    lane: Lane
    descriptors: tuple[int, int, int]
    """What the maker writes; what the other side writes; an ear. The caller closes them."""
    bell: Bell


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
        bell = Bell()
        descriptors.append(bell.make_ear())
    except BaseException:  # whatever it was, the caller has no descriptors to close
        close_all(descriptors)
        raise
    return LaneMemory(Lane(written, read), (own, theirs, descriptors[-1]), bell)


def map_lane(theirs: int, own: int) -> Lane:
    """Map a lane that another process made, from the descriptors that it handed over.

    Raises:
        OSError: they are no such memory, or somebody could still make it shorter.
    """
    size = os.fstat(own).st_size
    seals = [fcntl.fcntl(fd, fcntl.F_GET_SEALS) for fd in (theirs, own)]
    if not size or os.fstat(theirs).st_size != size or not all(one & _KEEPS_SIZE for one in seals):
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
