"""What a controller keeps over its restarts, as the core has it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.core.migration import Migration


class Awaited(StrEnum):
    """What ends an operation that somebody asked for."""

    RUNNING = "running"
    GONE = "gone"
    RESIZED = "resized"
    MIGRATED = "migrated"
    EVACUATED = "evacuated"


@dataclass(slots=True)
class Operation:
    """Something that somebody asked for and that is not done yet."""

    number: int
    awaited: Awaited
    vi: int = 0
    node: str = ""
    vi_type: str = ""
    """RESIZED: to become."""


@dataclass(slots=True)
class Saved:
    """All of it. The core changes it in place; the shell writes it down before it does anything."""

    epoch: int = 0
    """Of the last controller that ran."""
    version: int = 0
    """Of the last update of the router's table."""
    next_number: int = 1
    """For the next VI."""
    vis: dict[int, Vi] = field(default_factory=dict)
    migrations: dict[int, Migration] = field(default_factory=dict)
    """By the number of the old VI."""
    operations: dict[int, Operation] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """How many VIs each service should have."""
    evacuated: set[str] = field(default_factory=set)
    """Nodes that get no VI."""
