"""The services of this router's cloudlet and the VIs that run them.

A VI gets a window of tasks; what does not fit waits here for whichever VI has room first, so that a
slow or crashed VI holds few chunks. A flow keeps to one VI (its slot is the flow's hash) while that
VI has room, or lives where the service keeps flows; a VI that comes back gets its old slot, hence
its old flows.
Source: design, section 6, step 4.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from packetcloud.chunk.hop.api import Body
from packetcloud.chunk.messages import TASK_ID_BYTES, TaskHeader, VerdictCode, VerdictHeader
from packetcloud.chunk.reasons import Reason
from packetcloud.router.attachment import Attachment
from packetcloud.router.custody import Custody
from packetcloud.router.histogram import LogHistogram
from packetcloud.router.settings import ServiceSettings

if TYPE_CHECKING:
    from packetcloud.router.flow import Step

MAX_LOOKED_AT_COUNT = 1024
"""Chunks in line that are looked at for one whose VI has room, where flows stay with their VI. So
many that wait for a full VI hold up those behind them; to look at them takes half a millisecond."""


class VI:
    """One attached VI and the tasks it has."""

    __slots__ = (
        "attachment",
        "has_missed",
        "is_draining",
        "neighbour",
        "number",
        "service",
        "slot",
        "tasks",
        "tasks_bytes",
    )

    def __init__(self, attachment: Attachment, service: Service, slot: int, number: int) -> None:
        self.attachment = attachment
        self.neighbour = attachment.neighbour
        self.service = service
        self.slot = slot
        self.number = number
        """Which VI this is, counted from the router's start; a restarted VI is a new one."""
        self.tasks: dict[int, Custody] = {}
        """By task id, in the order in which they were given."""
        self.tasks_bytes = 0
        self.has_missed = False
        """Missed a deadline and has answered nothing since: used only if there is no other."""
        self.is_draining = False
        """Refused a task because it shuts down."""

    @property
    def may_keep_flows(self) -> bool:
        """Tell whether it lives and goes on."""
        return self.neighbour.is_up and not self.is_draining


class Visit:
    """A chunk's way through the services of one router."""

    __slots__ = (
        "attempts",
        "executed_before",
        "failed_vis",
        "failure",
        "first_sent_at",
        "has_missed",
        "is_redirected",
        "service_name",
        "step_index",
        "task_id",
        "turn_at",
        "verdict",
        "vi",
    )

    def __init__(self, executed_before: frozenset[bytes] = frozenset()) -> None:
        self.executed_before = executed_before
        """SIDs of services of this visit that ran before the chunk's present steps were decided,
        or had a part in making it: none of them runs again."""
        self.step_index = 0
        self.task_id = 0
        self.turn_at = 0.0
        """When the chunk's turn at this service came."""
        self.vi: VI | None = None
        self.failed_vis: tuple[VI, ...] = ()
        """VIs that gave no verdict on this chunk in this step."""
        self.attempts = 0
        self.failure = (Reason.SERVICE_FAILED, "")
        """Why the last attempt failed."""
        self.has_missed = False
        """The task missed its deadline and is being cancelled."""
        self.first_sent_at: float | None = None
        """When a VI of this service was first given the chunk: it may have waited for one with
        room."""
        self.verdict: tuple[VerdictHeader, Body] | None = None
        """A verdict that overtook the settlement of its task, and its body."""
        self.is_redirected = False
        self.service_name = ""

    def executed(self, steps: Iterable[Step]) -> frozenset[bytes]:
        """Return the SIDs of all services that ran in this visit when these steps are done."""
        return self.executed_before.union(step.service.sid.value for step in steps)

    def start_again(self, executed: frozenset[bytes]) -> None:
        """Go to the first of other steps."""
        self.executed_before = executed
        self.step_index = 0

    def next_step(self) -> None:
        self.step_index += 1
        self.vi = None
        self.failed_vis = ()
        self.attempts = 0
        self.first_sent_at = None


class Service:
    """One service: its settings, its VIs by slot, and the chunks that wait for one of them."""

    def __init__(self, settings: ServiceSettings, is_listed: bool, now: float) -> None:
        self.is_listed = is_listed
        self.slots: list[VI | None] = []
        self.waiting: OrderedDict[Custody, None] = OrderedDict()
        self.grace_ends_at = now + settings.grace_s
        """While no VI is attached: until when chunks wait for one."""
        self.penalty = LogHistogram()
        """From a chunk's turn at this service until the whole verdict is back; paper, 4.2. What it
        waits for a VI with room is part of it: in the paper a chunk that cannot be forwarded yet is
        buffered, and delivery "is caused by data transmission and chunk buffering"."""
        self.processing = LogHistogram()
        self.delivery = LogHistogram()
        self.wait = LogHistogram()
        """The part of delivery before a VI was given the chunk."""
        self.verdicts: Counter[VerdictCode] = Counter()
        self.tasks_count = 0
        self.missed_count = 0
        self.retried_count = 0
        """Tasks given to a second, third ... VI."""
        self.late_count = 0
        """Verdicts on tasks that had been given to somebody else, or given up."""
        self.skipped_count = 0
        """Chunks that went on without the service, by its policy fail-open."""
        self.emitted_count = 0
        self.left_out_count = 0
        """Chunks sent beside another that went no further, while that went on as its verdict said:
        there was no room for them, or their VI is restricted."""
        self.configure(settings)

    def configure(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.sid = settings.sid
        self.name = settings.name
        # The task header behind the task id is the same for every task of a service.
        self.task_tail = TaskHeader(0, settings.deadline_ms).to_bytes()[TASK_ID_BYTES:]
        self.deadline_s = settings.deadline_ms / 1000

    @property
    def vis(self) -> list[VI]:
        return [vi for vi in self.slots if vi is not None]

    @property
    def waiting_count(self) -> int:
        """Chunks that wait for a VI, for whatever reason."""
        return len(self.waiting)

    @property
    def has_vi(self) -> bool:
        return any(vi is not None and not vi.is_draining for vi in self.slots)

    def may_serve(self, now: float) -> bool:
        """Tell whether a VI is attached, or may still come back in time."""
        return self.has_vi or now < self.grace_ends_at

    def reason_to_refuse(self, instance: int) -> str | None:
        """Return why no VI of this instance may attach, None if it may."""
        if len(self.vis) >= self.settings.max_replicas:
            return f"service {self.name} has its {self.settings.max_replicas} VIs already"
        return None

    def leave_line(self, entry: Custody) -> None:
        """Take a chunk out of the line, if it stands there."""
        self.waiting.pop(entry, None)

    def next_in_line(self) -> Custody | None:
        """Take the next chunk out of the line, whatever it waits for; None: nobody waits."""
        return self.waiting.popitem(last=False)[0] if self.waiting else None

    def why_wait(self, flow_hash: int) -> str:
        """Return what a chunk of this flow waits for while VIs are attached and none takes it."""
        return "its VI has no room" if self.settings.keeps_flows else "no VI has room"

    def attach(self, attachment: Attachment, number: int) -> VI:
        """Give a new VI the first free slot."""
        slot = self.slots.index(None) if None in self.slots else len(self.slots)
        if slot == len(self.slots):
            self.slots.append(None)
        vi = VI(attachment, self, slot, number)
        self.slots[slot] = vi
        return vi

    def detach(self, vi: VI, now: float) -> None:
        """Free the slot of `vi`; when no other is left, the grace time begins."""
        if self.slots[vi.slot] is vi:
            self.slots[vi.slot] = None
        if not self.has_vi:
            self.grace_ends_at = now + self.settings.grace_s

    def drain(self, vi: VI, now: float) -> None:
        """Give `vi` nothing more; when no other is left, the grace time begins."""
        if not vi.is_draining:
            vi.is_draining = True
            if not self.has_vi:
                self.grace_ends_at = now + self.settings.grace_s

    def choose(
        self, flow_hash: int, failed: tuple[VI, ...], window_bytes: int, window_count: int
    ) -> VI | None:
        """Return the VI for the next task of a flow; None when none has room.

        The flow's own slot first, then the VI with the least bytes in hand; where the service keeps
        flows, the VI of the flow alone.
        """
        slots = self.slots
        if not slots:
            return None
        if self.settings.keeps_flows:
            keeper = self.keeper_of(flow_hash)
            if keeper is None or keeper in failed:
                return None
            has_room = keeper.tasks_bytes < window_bytes and len(keeper.tasks) < window_count
            return keeper if has_room else None
        vi = slots[flow_hash % len(slots)]
        if (
            vi is not None
            and vi.tasks_bytes < window_bytes
            and len(vi.tasks) < window_count
            and vi.neighbour.is_up
            and not vi.is_draining
            and not vi.has_missed
            and vi not in failed
        ):
            return vi
        open_vis = [
            vi
            for vi in slots
            if vi is not None
            and vi.tasks_bytes < window_bytes
            and len(vi.tasks) < window_count
            and vi.neighbour.is_up
            and not vi.is_draining
            and vi not in failed
        ]
        return min(open_vis, key=lambda vi: (vi.has_missed, vi.tasks_bytes), default=None)

    def keeper_of(self, flow_hash: int) -> VI | None:
        """Return the VI of a flow: that of its slot, or the same other one while that is away."""
        slots = self.slots
        own = slots[flow_hash % len(slots)]
        if own is not None and own.may_keep_flows and not own.has_missed:
            return own
        there = [vi for vi in slots if vi is not None and vi.may_keep_flows]
        sound = [vi for vi in there if not vi.has_missed] or there
        return sound[flow_hash // len(slots) % len(sound)] if sound else None

    def is_exhausted(self, flow_hash: int, failed: tuple[VI, ...]) -> bool:
        """Tell whether VIs are attached and every one that may have this chunk failed over it."""
        if self.settings.keeps_flows and self.slots:
            return self.keeper_of(flow_hash) in failed
        open_vis = [vi for vi in self.slots if vi is not None and not vi.is_draining]
        return bool(open_vis) and all(vi in failed for vi in open_vis)
