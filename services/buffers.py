"""Output buffers that are used again, so that a 1 MiB update allocates nothing per chunk.

A buffer is lent to one task, travels in its verdict, and comes back when the verdict is settled.
Sizes are powers of two: what a buffer has beyond its use is never touched, so it costs address
space and no memory.
"""

from __future__ import annotations

import threading
from collections import defaultdict

from packetcloud.services.errors import ServiceMisuseError

SMALLEST_BUFFER_BYTES = 4096
DEFAULT_KEPT_BYTES = 32 << 20
"""Idle buffers kept: what 24 MiB of unsettled verdicts (a neighbour's credit) use, rounded up."""


class BufferPool:
    """Lends buffers of at least the size asked for; any thread may take and give back.

    Args:
        largest_bytes: a larger request is the service's mistake, not memory to be spent.
        kept_bytes: how much is kept idle; what comes back beyond it is freed.
    """

    def __init__(self, largest_bytes: int, kept_bytes: int = DEFAULT_KEPT_BYTES) -> None:
        self.largest_bytes = largest_bytes
        self.kept_bytes = kept_bytes
        self.idle_bytes = 0
        self.allocated_count = 0
        """Buffers ever made; stands still in a steady state."""
        self.freed_count = 0
        """Buffers that came back and were not kept."""
        self._lock = threading.Lock()
        self._idle: defaultdict[int, list[bytearray]] = defaultdict(list)

    def take(self, count: int) -> bytearray:
        """Return a buffer with room for `count` bytes; its old content is still in it.

        Raises:
            ServiceMisuseError: `count` is negative or over the largest allowed.
        """
        if not 0 <= count <= self.largest_bytes:
            raise ServiceMisuseError(
                f"an output buffer of {count} bytes; allowed 0..{self.largest_bytes}"
            )
        size = max(SMALLEST_BUFFER_BYTES, 1 << (count - 1).bit_length() if count else 0)
        with self._lock:
            idle = self._idle[size]
            if idle:
                self.idle_bytes -= size
                return idle.pop()
            self.allocated_count += 1
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """Take back a buffer that `take` lent; the caller must not use it any more."""
        size = len(buffer)
        with self._lock:
            if self.idle_bytes + size <= self.kept_bytes:
                self.idle_bytes += size
                self._idle[size].append(buffer)
            else:
                self.freed_count += 1
