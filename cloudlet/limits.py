"""What one VI may use of its node. Launch, resize and placement speak of it in these words."""

from __future__ import annotations

from dataclasses import dataclass

MAX_IO_PER_S = 1_000_000_000
"""Reads and writes of a node or a VI: as many as a report of the channel may say."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one VI. All of them can be changed while it runs."""

    vcpu: float
    """Shares of a core's time: 0.5 is 50 ms of each 100 ms."""
    memory_mib: int
    disk_mib: int
    """Size of its root; enforced where the node's pool has quotas."""
    disk_read_mib_s: int
    disk_write_mib_s: int
    processes_count: int
    """Processes and threads together, as the kernel counts them."""
