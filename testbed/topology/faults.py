"""When what goes wrong in a turn, and what holds then. No I/O; times from the turn's beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packetcloud.testbed.topology.tables import FaultTable


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """A fault begins or ends."""

    at_s: float
    fault: FaultTable
    begins: bool

    def __str__(self) -> str:
        fault = self.fault
        if fault.kill is not None:
            return f"{fault.kill} is {'killed' if self.begins else 'started again'}"
        assert fault.link is not None
        name = "-".join(fault.link)
        if not self.begins:
            return f"{name} is well again"
        if fault.down:
            return f"{name} goes down"
        words = {"loss": fault.loss, "delay": fault.delay, "rate": fault.rate}
        said = ", ".join(f"{word} {value:g}" for word, value in words.items() if value is not None)
        return f"{name} gets {said}"


def schedule(faults: Sequence[FaultTable]) -> list[FaultEvent]:
    """Return what happens, in order; at the same moment, what ends comes first."""
    events = [FaultEvent(one.after, one, True) for one in faults]
    events += [
        FaultEvent(one.after + one.lasts, one, False) for one in faults if one.lasts is not None
    ]
    return sorted(events, key=lambda event: (event.at_s, event.begins))


def lasting(events: Sequence[FaultEvent], link: frozenset[str]) -> list[FaultTable]:
    """Return the faults of a link that have begun in `events` and not ended, in order."""
    active: list[FaultTable] = []
    for event in events:
        if event.fault.link is None or frozenset(event.fault.link) != link:
            continue
        if event.begins:
            active.append(event.fault)
        else:
            active.remove(event.fault)
    return active
