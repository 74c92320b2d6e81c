"""A plan: a topology, its links, the load and the faults.

A `Plan` is the whole of what a run depends on. It prints as a list of options, so that whoever
looks into a failing seed sees what happens when before running it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from packetcloud.testbed.simulation.application import Operation, Tempo
from packetcloud.testbed.simulation.journal import Entry
from packetcloud.testbed.simulation.network import LinkOptions

LOAD_BEGINS_S = 1.0
"""The sessions are up by then on every link that works."""
LOAD_LASTS_S = 6.0
LONGEST_LIFETIME_S = 40.0
PROBE_LIFETIME_S = 30.0
LONGEST_AIM_S = 2.0
AWAY_AFTER_S = 15.0
"""A neighbour that is silent is away after so long: the idle time-out of a session."""
FIRST_PROBE = 1_000_000
"""Operations from here on are sent after the last fault has healed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong for a while."""

    kind: str
    """cut, cut_one_way, degrade, narrow, kill, power_cut, pause, step_clock, move, disk_full or
    disk_error."""
    target: str
    """A machine, or a link as ONE-OTHER, or a direction as ONE>OTHER."""
    at_s: float
    for_s: float = 0.0
    amount: float = 0.0
    """By how many seconds a clock is set forward; the largest IP packet that a link now carries."""
    after: Entry | None = None
    """It comes right after such a line of the target's journal, the first from `at_s` on; without
    one if none comes for `LONGEST_AIM_S`."""

    def __str__(self) -> str:
        amount = f", {self.amount:+g}" if self.amount else ""
        lasting = f" for {self.for_s:.3f} s" if self.for_s else ""
        aim = f" after the next {self.after.value!r}" if self.after is not None else ""
        return f"{self.kind} {self.target} at {self.at_s:.3f} s{aim}{lasting}{amount}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    scenario: str
    topology: str
    links: dict[str, tuple[LinkOptions, LinkOptions]]
    """By name, ONE-OTHER: there and back."""
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...] = ()
    tempos: dict[str, Tempo] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    """By machine: the service that runs there."""
    joins_datagrams: bool = True
    rekey_after_s: float = 3600.0
    spool: str = ""
    """Of all routers: none, "spill" (what memory has no room for) or "durable" (custody too)."""
    spool_bytes: int = 2 << 20
    """What may lie in it."""
    waiting_bytes: int = 200_000
    """What may wait in memory before it goes there."""
    must_spill: bool = False
    """A run in which nothing was on disk only proves nothing."""
    isolated_flows: tuple[tuple[str, str], ...] = ()
    """Source and destination of what nothing that goes wrong elsewhere may hold up."""
    is_private: bool = False
    """All links are private: the sessions are open."""
    has_fast_aes: bool = True
    """The suite that all machines prefer."""
    store_bytes: int = 4 << 20
    max_unanswered_count: int = 64
    """Chunks that an application may leave unanswered before its endpoint takes no more."""
    detached_hold_s: float = 30.0
    faults_overlap: bool = False
    """One fault may hide another: it is enough that one of them is felt."""

    @property
    def healed_at_s(self) -> float:
        """From here on nothing goes wrong any more."""
        ends = [
            fault.at_s + fault.for_s + (LONGEST_AIM_S if fault.after is not None else 0.0)
            for fault in self.faults
        ]
        return max([LOAD_BEGINS_S + LOAD_LASTS_S, *ends])

    @property
    def keeps_custody(self) -> bool:
        """Whether whatever a router acknowledged gets to its destination in time.

        Memory lasts where nobody is killed. Where a neighbour may be away, what waits for it is
        given up after `detached_hold_s`.
        """
        if self.spool == "durable":
            return True
        ends_alive = all(fault.kind not in ("kill", "power_cut") for fault in self.faults)
        away_s = sum(fault.for_s for fault in self.faults)
        if self.is_private and any(fault.kind == "move" for fault in self.faults):
            away_s += AWAY_AFTER_S
        return ends_alive and (away_s < AWAY_AFTER_S / 2 or away_s < self.detached_hold_s / 2)

    def lines(self) -> list[str]:
        """Return the options as people read them."""
        text = [
            f"seed {self.seed}, scenario {self.scenario}, topology {self.topology}",
            f"joins_datagrams {self.joins_datagrams}, is_private {self.is_private}, "
            f"rekey_after_s {self.rekey_after_s:g}, spool {self.spool!r} of {self.spool_bytes} "
            f"bytes above {self.waiting_bytes} in memory, "
            f"has_fast_aes {self.has_fast_aes}, store_bytes {self.store_bytes}, "
            f"max_unanswered_count {self.max_unanswered_count}, "
            f"detached_hold_s {self.detached_hold_s:g}",
        ]
        for name, (there, back) in self.links.items():
            text.append(f"link {name}: {_changed(there)}")
            if back != there:
                text.append(f"link {name}, the way back: {_changed(back)}")
        text += [f"machine {name} runs service {what}" for name, what in self.services.items()]
        text += [f"application of {name}: {tempo}" for name, tempo in self.tempos.items()]
        text += [f"fault: {fault}" for fault in self.faults]
        sizes = [operation.size for operation in self.operations]
        text.append(f"{len(sizes)} operations, {sum(sizes)} bytes, largest {max(sizes)}")
        return text


def _changed(options: LinkOptions) -> str:
    """Return the options that are not at their default."""
    default = LinkOptions()
    return (
        ", ".join(
            f"{item.name} {getattr(options, item.name):g}"
            for item in fields(options)
            if getattr(options, item.name) != getattr(default, item.name)
        )
        or "defaults"
    )
