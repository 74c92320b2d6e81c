"""A service of the cloudlet controller's table: who serves in which slot, and what waits for whom.

A slot is held while its VI is, and while a VI that served in it before still has tasks: then only
its own chunks wait, in a line of their own, and go on in their order when somebody serves there.
Source: docs/decisions/0013.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

from packetcloud.chunk.messages import VerdictCode
from packetcloud.router.attachment import Attachment
from packetcloud.router.cloudlet_table import ServiceEntry, ViEntry, ViState
from packetcloud.router.conduct_account import ConductAccount, Violation
from packetcloud.router.custody import Custody
from packetcloud.router.recent_durations import RecentDurations
from packetcloud.router.service_pool import VI, Service
from packetcloud.router.tap import Tap
from packetcloud.router.vi_traffic import ViTraffic


class SizedLine(OrderedDict[Custody, None]):
    """Chunks in a line, and how many bytes they are."""

    def __init__(self) -> None:
        self.size_bytes = 0
        super().__init__()

    def __setitem__(self, entry: Custody, value: None) -> None:
        if entry not in self:
            self.size_bytes += entry.size_bytes
        super().__setitem__(entry, value)

    def __delitem__(self, entry: Custody) -> None:
        super().__delitem__(entry)
        self.size_bytes -= entry.size_bytes

    def pop(self, entry: Custody, default: Any = None) -> Any:
        if entry in self:
            del self[entry]
        return default

    def popitem(self, last: bool = True) -> tuple[Custody, None]:
        entry = next(reversed(self) if last else iter(self))
        del self[entry]
        return entry, None

    def clear(self) -> None:
        super().clear()
        self.size_bytes = 0


class CloudletVI(VI):
    """An attached VI of the table, and the account of what went to it and came from it."""

    __slots__ = (
        "account",
        "answered_count",
        "entry",
        "given_count",
        "recent",
        "traffic",
        "verdicts",
    )

    service: CloudletService

    def __init__(
        self, attachment: Attachment, service: CloudletService, entry: ViEntry, number: int
    ) -> None:
        super().__init__(attachment, service, entry.slot, number)
        self.account = service.account_of(entry.instance)
        self.entry: ViEntry | None = entry
        """None: the table does not list it any more."""
        self.given_count = 0
        self.answered_count = 0
        self.traffic = service.traffic_of(entry.instance)
        """Also of its earlier sessions."""
        self.verdicts: Counter[VerdictCode] = Counter()
        """What it said, also where it was not heeded."""
        self.recent = RecentDurations()

    @property
    def instance(self) -> int:
        return self.neighbour.instance

    @property
    def serves(self) -> bool:
        return self.entry is not None and self.entry.state.serves

    @property
    def is_leaving(self) -> bool:
        """It gets no new task, and others get the chunks of its slot."""
        return self.is_draining or self.entry is None or self.entry.state is ViState.DRAINING

    @property
    def keeps_slot(self) -> bool:
        """Nobody else gets the chunks of its slot while it has tasks."""
        return self.entry is None or self.entry.state is ViState.HELD


class CloudletService(Service):
    """One service of the table. What is kept per VI lives as long as the VI is attached."""

    waiting: SizedLine

    def __init__(self, entry: ServiceEntry, now: float) -> None:
        super().__init__(entry.settings, True, now)
        self.entry = entry
        self.waiting = SizedLine()
        """Chunks of the slots that are not held."""
        self.held: dict[int, SizedLine] = {}
        """By slot, those that are."""
        self.recent = RecentDurations()
        self.violations: Counter[Violation] = Counter()
        self._vis: dict[CloudletVI, None] = {}
        self.tap: Tap | None = None
        """Looks at the chunks to and from its VIs; None: nobody wants to see any."""
        self._by_instance: dict[int, ViEntry] = {}
        self._accounts: dict[int, ConductAccount] = {}
        """By instance; of VIs that are listed."""
        self._traffic: dict[int, ViTraffic] = {}
        """Of the same."""
        self.enlist(entry, now)

    @property
    def vis(self) -> list[VI]:
        return list(self._vis)

    @property
    def cloudlet_vis(self) -> list[CloudletVI]:
        return list(self._vis)

    @property
    def has_vi(self) -> bool:
        return any(not vi.is_leaving for vi in self._vis)

    @property
    def waiting_count(self) -> int:
        return len(self.waiting) + sum(map(len, self.held.values()))

    @property
    def waiting_bytes(self) -> int:
        return self.waiting.size_bytes + sum(line.size_bytes for line in self.held.values())

    @property
    def oldest_waiting(self) -> Custody | None:
        """The chunk that was taken first of those at the heads of the lines."""
        heads = (next(iter(line), None) for line in (self.waiting, *self.held.values()))
        return min((one for one in heads if one is not None), key=_serial, default=None)

    def enlist(self, entry: ServiceEntry, now: float) -> None:
        """Be as the table says from now on; VIs that it does not list are sent away."""
        had_vi = self.has_vi
        self.entry = entry
        self.configure(entry.settings)
        self._by_instance = {vi.instance: vi for vi in entry.vis}
        for instance in self._accounts.keys() - self._by_instance.keys():
            del self._accounts[instance]
        for instance in self._traffic.keys() - self._by_instance.keys():
            del self._traffic[instance]
        for vi in self._vis:
            vi.entry = self._by_instance.get(vi.instance) if vi.entry is not None else None
            if vi.entry is not None:
                vi.slot = vi.entry.slot
            elif not vi.is_draining or vi.neighbour.is_up:
                vi.is_draining = True
                vi.neighbour.close("the cloudlet's table does not list it any more")
        if had_vi and not self.has_vi:
            self.grace_ends_at = now + self.settings.grace_s
        self.settle()

    def account_of(self, instance: int) -> ConductAccount:
        """Return the account of a VI that is listed."""
        return self._accounts.setdefault(instance, ConductAccount())

    def traffic_of(self, instance: int) -> ViTraffic:
        """Return what went to and from a VI that is listed."""
        return self._traffic.setdefault(instance, ViTraffic())

    def retire(self, now: float) -> None:
        """Be a service that is not of the table any more: nothing waits for its VIs."""
        self.is_listed = False
        self.tap = None
        self.enlist(ServiceEntry(self.settings), now)
        self.grace_ends_at = now

    def settle(self) -> None:
        """See who serves in which slot now, and put each waiting chunk in its line."""
        held = self._held_slots()
        self.slots = [None] * self.entry.slots_count
        for vi in self._vis:
            if vi.serves and vi.slot not in held:
                self.slots[vi.slot] = vi
        entries = [entry for line in (*self.held.values(), self.waiting) for entry in line]
        self.waiting.clear()
        self.held = {slot: SizedLine() for slot in held}
        for entry in entries:
            self._line_of(entry)[entry] = None

    def is_held(self, flow_hash: int) -> bool:
        """Tell whether the slot of a flow is held."""
        return bool(self.held) and flow_hash % len(self.slots) in self.held

    def stand_aside(self, entry: Custody, first: bool) -> None:
        """Have a chunk that stands in line wait for its slot, if that is held."""
        line = self._line_of(entry)
        if line is not self.waiting:
            del self.waiting[entry]
            line[entry] = None
            if first:
                line.move_to_end(entry, last=False)

    def held_line(self, slot: int) -> SizedLine | None:
        return self.held.get(slot)

    def reason_to_refuse(self, instance: int) -> str | None:
        if instance in self._by_instance:
            return None
        return f"instance {instance} of service {self.name} is not in the cloudlet's table"

    def leave_line(self, entry: Custody) -> None:
        self._line_of(entry).pop(entry)

    def next_in_line(self) -> Custody | None:
        line = next((one for one in (self.waiting, *self.held.values()) if one), None)
        return line.popitem(last=False)[0] if line is not None else None

    def why_wait(self, flow_hash: int) -> str:
        if self.is_held(flow_hash):
            return f"slot {flow_hash % len(self.slots)} is held"
        return super().why_wait(flow_hash)

    def attach(self, attachment: Attachment, number: int) -> VI:
        """Give a VI the slot that the table says; an older session of it gives way."""
        entry = self._by_instance[attachment.neighbour.instance]
        for older in self._vis:
            if older.instance == entry.instance and older.entry is not None:
                older.entry = None
                older.is_draining = True
                older.neighbour.close("replaced by a newer session")
        vi = CloudletVI(attachment, self, entry, number)
        self._vis[vi] = None
        self.settle()
        return vi

    def detach(self, vi: VI, now: float) -> None:
        assert isinstance(vi, CloudletVI), "the table's services have no others"
        del self._vis[vi]
        if not self.has_vi:
            self.grace_ends_at = now + self.settings.grace_s if self.is_listed else now
        self.settle()

    def choose(
        self, flow_hash: int, failed: tuple[VI, ...], window_bytes: int, window_count: int
    ) -> VI | None:
        if self.is_held(flow_hash):
            return None
        return super().choose(flow_hash, failed, window_bytes, window_count)

    def _held_slots(self) -> set[int]:
        vacating = {vi.slot for vi in self._vis if vi.tasks and vi.keeps_slot}
        waited_for = {vi.slot for vi in self.entry.vis if vi.state is ViState.HELD}
        served = {vi.slot for vi in self.entry.vis if vi.state.serves}
        return {slot for slot in vacating | (waited_for - served) if slot < self.entry.slots_count}

    def _line_of(self, entry: Custody) -> SizedLine:
        if not self.held:
            return self.waiting
        return self.held.get(entry.flow.hash % len(self.slots), self.waiting)


def _serial(entry: Custody) -> int:
    return entry.serial
