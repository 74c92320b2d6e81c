"""When a launch got how far: what `vi show` and benchmarks of a cold start read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """What a launch has behind it, in order; a VI may call before its node says that it started."""

    CREATED = "created"
    """Its node made the container."""
    STARTED = "started"
    """Its node started it."""
    CALLED = "called"
    """The program in it called over the control link, with everything imported."""
    LAUNCHED = "launched"
    """It was given its service and key."""
    READY = "ready"
    """The service started."""
    ATTACHED = "attached"
    """It has a session with the router."""
    FIRST_CHUNK = "first_chunk"
    """It gave its first verdict."""


@dataclass(slots=True)
class LaunchTimes:
    """One launch of a VI: its first, or one after a failure."""

    began_at: float
    """On the controller's clock, which is its machine's monotonic one."""
    took_s: dict[Stage, float] = field(default_factory=dict)
    """From `began_at` to each stage that it has behind it."""

    def reached(self, stage: Stage, now: float) -> None:
        """Note that a stage is behind it; what comes again changes nothing."""
        self.took_s.setdefault(stage, now - self.began_at)
