"""Neighbours, a disk and a network in memory, around a real router core."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from packetcloud.chunk.header import ChunkHeader, ServiceSequence, decode_header
from packetcloud.chunk.hop.api import Body, Buffer, Refusal, Role, Settlement
from packetcloud.chunk.messages import (
    TASK_BYTES,
    BodyKind,
    DeliveryReport,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
    decode_reports,
)
from packetcloud.chunk.names import GUID, NA, SID, SID_SEQUENCE, SID_ZERO, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.chunk_record import Found
from packetcloud.router.core import RouterCore
from packetcloud.router.disk_jobs import Job, run_group
from packetcloud.router.settings import (
    RouterNeighbour,
    RouterSettings,
    ServiceSettings,
    SpoolSettings,
)
from packetcloud.router.spool import Spool
from tests.unit.router.fake_bodies import FakeBody
from tests.unit.router.forgetful_storage import ForgetfulStorage

ROUTER_NA = NA(1)


def guid(text: str) -> GUID:
    """A GUID that reads as its letter: guid("a") is 20 times `a`."""
    return GUID(text.encode() * 20)


def sid(text: str) -> SID:
    return SID(text.encode() * 20)


ROUTER, OTHER_ROUTER = guid("R"), guid("Q")
A, B, C = guid("a"), guid("b"), guid("c")
S, T, U = sid("s"), sid("t"), sid("u")


@dataclass
class Sent:
    """One body that the router gave to a neighbour."""

    kind: BodyKind
    data: bytes
    token: object
    body: FakeBody | None = None

    @property
    def header(self) -> ChunkHeader:
        return decode_header(self.data[self.offset :])

    @property
    def payload(self) -> bytes:
        start = self.offset + int.from_bytes(self.data[self.offset + 2 : self.offset + 4], "big")
        return self.data[start:]

    @property
    def offset(self) -> int:
        return TASK_BYTES if self.kind is BodyKind.TASK else 0

    @property
    def task(self) -> TaskHeader:
        return TaskHeader.from_bytes(self.data)


class FakeNeighbour:
    """A session whose other end is the test."""

    def __init__(self, network: FakeNetwork, name: GUID, role: Role, instance: int = 0) -> None:
        self.network = network
        self.guid = name
        self.role = role
        self.instance = instance
        self.address = ("198.51.100.1", 4700)
        self.is_up = True
        self.unsettled: list[Sent] = []
        self.accepted: list[Sent] = []
        self.closed_because: str | None = None
        self.busy: set[int] = set()
        """Labels of flows that it has no room for."""
        self.decisions: list[Refusal | None] = []
        """What the router said of bodies whose custody was pending."""

    @property
    def queued_bytes(self) -> int:
        return sum(len(sent.data) for sent in self.unsettled)

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        self._queue(Sent(kind, bytes(prefix) + bytes(payload), token))

    def send_body(
        self,
        kind: BodyKind,
        body: Body,
        token: object,
        prefix: bytes = b"",
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        assert isinstance(body, FakeBody)
        assert not body.is_released and body.reader is None
        body.reader = self
        self._queue(Sent(kind, bytes(prefix) + bytes(body.data), token, body))

    def is_busy(self, flow: int) -> bool:
        return flow in self.busy

    def decide(self, body: Body, refusal: Refusal | None = None) -> None:
        self.decisions.append(refusal)
        assert isinstance(body, FakeBody)
        if refusal is None:
            self.network.bodies.append(body)
        else:
            body.release()

    def cancel(self, token: object) -> None:
        for sent in self.unsettled:
            if sent.token is token:
                self.settle(sent, Settlement.CANCELLED)
                return

    def close(self, reason: str = "") -> None:
        """As the hop does it: up no more from now, the end is told in a later turn."""
        if self.is_up:
            self.is_up = False
            self.closed_because = reason
            self.network.closing.append(self)

    # What the test makes happen:

    def settle(
        self, sent: Sent, settlement: Settlement = Settlement.ACCEPTED, reason: int = 0
    ) -> None:
        self.unsettled.remove(sent)
        if sent.body is not None:
            sent.body.reader = None
        if settlement is Settlement.ACCEPTED:
            self.accepted.append(sent)
        network = self.network
        network.core.body_settled(self, sent.token, settlement, reason, network.now)
        network.check()

    def accept_all(self) -> list[Sent]:
        """Take custody of everything queued, and of what that leads to; return what was taken."""
        taken: list[Sent] = []
        while self.unsettled:
            taken.append(self.unsettled[0])
            self.settle(self.unsettled[0])
        return taken

    def chunk(self, data: bytes) -> Any:
        return self.body(BodyKind.CHUNK, data)

    def body(self, kind: BodyKind, data: bytes) -> Any:
        body = FakeBody(data)
        network = self.network
        answer = network.core.body_received(self, kind, body, network.now)
        if answer is None:
            network.bodies.append(body)
        else:
            assert not body.is_released, "a refused body stays the hop's"
        network.check()
        return answer

    def verdict(
        self,
        sent: Sent,
        code: VerdictCode = VerdictCode.FORWARD,
        payload: bytes = b"",
        *,
        detail: bytes = b"",
        emit_count: int = 0,
        keep: bool = False,
        updates: bool = False,
        again: bool = False,
        processing_ns: int = 1000,
        payload_type: int | None = None,
    ) -> Refusal | None:
        task_id = sent.task.task_id
        header = VerdictHeader(
            task_id, code, processing_ns, detail, emit_count, keep, payload_type, updates, again
        )
        return self.body(BodyKind.VERDICT, header.to_bytes() + payload)

    def go_down(self, reason: str = "gone") -> None:
        """End the session: LOST for everything unsettled, then down."""
        self.is_up = False
        if self in self.network.closing:
            self.network.closing.remove(self)
        while self.unsettled:
            self.settle(self.unsettled[0], Settlement.LOST)
        self.network.core.neighbour_down(self, self.network.now)
        self.network.check()

    def _queue(self, sent: Sent) -> None:
        assert self.is_up, "sent to a session that has ended"
        assert all(other.token is not sent.token for other in self.unsettled)
        self.unsettled.append(sent)


class FakeDisk:
    """What a disk worker does, when the test says so; it outlives the router's process."""

    def __init__(self, seed: int = 1) -> None:
        self.storage = ForgetfulStorage(seed)
        self.wall_ms = 1_700_000_000_000
        self.log = ChunkLog(self.storage, 4096)
        self.jobs: list[Job] = []
        self._number = 1

    def open(self) -> list[Found]:
        """Begin another process with what is there."""
        self.log = ChunkLog(self.storage, 4096)
        self.jobs.clear()
        self._number += 1_000_000
        return self.log.open()

    def spool(self, given: SpoolSettings | None) -> Spool:
        return Spool(given, self.jobs.append, self._number, lambda: self.wall_ms)

    def turn(self, core: RouterCore, now: float) -> None:
        """Do the jobs there are as one group, and tell the router."""
        jobs, self.jobs[:] = list(self.jobs), []
        if jobs:
            core.disk_done(run_group(self.log, jobs, lambda: 0.0), now)

    def settle(self, core: RouterCore, now: float) -> None:
        while self.jobs:
            self.turn(core, now)


@dataclass
class FakeNetwork:
    """One router core and its neighbours. `check` asserts the conservation sum."""

    settings: RouterSettings = field(
        default_factory=lambda: RouterSettings(guid=ROUTER, na=ROUTER_NA)
    )
    now: float = 1000.0
    disk: FakeDisk = field(default_factory=FakeDisk)
    core: RouterCore = field(init=False)
    bodies: list[FakeBody] = field(default_factory=list)
    """Every body that the router took."""
    closing: list[FakeNeighbour] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = self.disk.open()
        spool = self.disk.spool(self.settings.spool)
        self.core = RouterCore(
            self.settings,
            self.now,
            first_chunk_id=1,
            spool=spool,
            wall_s=lambda: self.disk.wall_ms / 1000,
        )
        self.core.restore(found, self.disk.wall_ms, self.now)

    def host(self, name: GUID) -> FakeNeighbour:
        return self.attach(name, Role.HOST)

    def vi(self, name: SID, instance: int = 0) -> FakeNeighbour:
        return self.attach(GUID(name.value), Role.SERVICE, instance)

    def router(self, name: GUID = OTHER_ROUTER) -> FakeNeighbour:
        return self.attach(name, Role.ROUTER)

    def attach(self, name: GUID, role: Role, instance: int = 0) -> FakeNeighbour:
        neighbour = FakeNeighbour(self, name, role, instance)
        self.core.neighbour_up(neighbour, self.now)
        self.check()
        return neighbour

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and every timer fire when it is due."""
        end = self.now + seconds
        self.disk.wall_ms += int(seconds * 1000)
        while self.core.next_timeout <= end:
            self.now = max(self.now, self.core.next_timeout)
            self.core.handle_timeout(self.now)
            self.check()
        self.now = end

    def disk_turns(self) -> None:
        """Let the disk do all it has to do."""
        self.disk.settle(self.core, self.now)
        self.check()

    def end_turn(self) -> None:
        """Do what the shell does at the end of a turn of the loop."""
        for neighbour in list(self.closing):
            neighbour.go_down(neighbour.closed_because or "")
        self.core.flush_reports(self.now)
        self.check()

    def check(self) -> None:
        sums = self.core.book.conservation()
        assert sums["balance"] == 0, sums
        held = {id(entry) for entry in self.core.book.wheel}
        assert len(held) == sums["held"], "a chunk lies in the wheel twice"

    def check_idle(self) -> None:
        """Nothing is held, and every body's memory went back to the hop."""
        self.check()
        book = self.core.book
        assert (book.held_count, book.held_bytes) == (0, 0)
        assert all(body.is_released for body in self.bodies)

    @property
    def sums(self) -> dict[str, int]:
        return self.core.book.conservation()


def service(name: SID, **changes: Any) -> ServiceSettings:
    return ServiceSettings(sid=name, name=name.value[:1].decode(), **changes)


def settings(*services: ServiceSettings, **changes: Any) -> RouterSettings:
    """Settings with one neighbour router (NA 2) behind which NA 3 lies as well."""
    values: dict[str, Any] = {
        "guid": ROUTER,
        "na": ROUTER_NA,
        "services": services,
        "neighbours": (RouterNeighbour(OTHER_ROUTER, "q", NA(2), (NA(3),)),),
    }
    return RouterSettings(**(values | changes))


def chunk(
    source: GUID = A,
    destination: GUID = B,
    payload: bytes = b"payload",
    services: tuple[SID, ...] = (),
    chunk_id: int = 7,
    **changes: Any,
) -> bytes:
    """The bytes of a chunk that asks for `services`."""
    values: dict[str, Any] = {
        "source": source,
        "destination": destination,
        "chunk_id": ChunkId(chunk_id),
        "payload_bytes": len(payload),
        "sid": services[0] if len(services) == 1 else SID_SEQUENCE if services else SID_ZERO,
        "sequence": ServiceSequence(services) if len(services) > 1 else None,
        "lifetime_ms": 60_000,
        "wants_report": True,
    }
    return ChunkHeader(**(values | changes)).to_bytes() + payload


def reports_in(sent: Sent) -> list[DeliveryReport]:
    return decode_reports(sent.payload)


def reason_of(answer: Refusal | None) -> Reason | None:
    return None if answer is None else Reason(answer.reason)
