"""What an application on a host does: the chunks that it sends, and how fast it takes others."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_HOLD_S = 2.0
"""An application that keeps chunks longer stands still."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One chunk that an application is to send."""

    op: int
    at_s: float
    source: str
    destination: str
    size: int
    services: tuple[str, ...]
    lifetime_s: float
    wants_report: bool


@dataclass(frozen=True, slots=True)
class Tempo:
    """How fast an application takes what arrives."""

    hold_s: float = 0.0
    """It keeps each chunk so long before it gives the buffer back."""
    defers: bool = False
    """It says "taken" only then, not at once."""
    refuses_every: int = 0
    """It refuses operations whose number divides by this; 0 = none."""

    def refuses(self, op: int) -> bool:
        return bool(self.refuses_every) and op % self.refuses_every == 0

    def may_refuse(self, op: int) -> bool:
        """Tell whether the application may not take it: it refuses, or stands still too long."""
        return self.refuses(op) or self.hold_s > LONGEST_HOLD_S
