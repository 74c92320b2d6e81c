"""Fillers of the caps of the router. Source: router/caps.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from packetcloud.chunk.hop.api import Buffer, Deferral, Refusal, Role, Settlement
from packetcloud.chunk.messages import BodyKind, VerdictCode
from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.core import RouterCore
from packetcloud.router.custody_book import MAX_DROPPING_NAMES_COUNT, MAX_HELD_COUNT, OTHER_NAME
from packetcloud.router.errors import TooManyCapturesError
from packetcloud.router.flow import MAX_VISIT_COUNT
from packetcloud.router.late_rules import (
    LONG_COUNT,
    MAX_KINDS_COUNT,
    MAX_LONG_CONTESTS_COUNT,
    LateContest,
    LateContests,
)
from packetcloud.router.routes import MAX_DETACHED_HOSTS_COUNT
from packetcloud.router.rules.answer import Contender, Contest, Late
from packetcloud.router.rules.rule import Action, Match, Rule
from packetcloud.router.service_table import MAX_UNLISTED_COUNT
from packetcloud.router.settings import RouterSettings, ServiceSettings, SpoolSettings
from packetcloud.router.spool import MAX_QUEUED_BYTES
from packetcloud.router.tap import MAX_CAPTURES_COUNT, MAX_RING_BYTES, Capture, Point, Wanted
from tests.unit.caps.filled import Filled, fills
from tests.unit.router.fake_bodies import PlainBody
from tests.unit.router.plain_table import PlainTable, installed, visiting
from tests.unit.router.router_fakes import (
    ROUTER,
    A,
    B,
    C,
    FakeNeighbour,
    FakeNetwork,
    S,
    T,
    chunk,
    service,
    settings,
)

MIB = 1 << 20
HEAD_BYTES = len(chunk(payload=b""))


def of_size(size: int, **changes: Any) -> bytes:
    """A chunk of `size` bytes with its header."""
    return chunk(payload=bytes(size - HEAD_BYTES), **changes)


def number_name(number: int) -> GUID:
    return GUID(number.to_bytes(20, "big"))


class _Neighbour:
    """A session that takes what it is given and settles nothing by itself."""

    def __init__(self, name: GUID, role: Role = Role.HOST) -> None:
        self.guid = name
        self.role = role
        self.instance = 0
        self.address = ("198.51.100.1", 4700)
        self.is_up = True
        self.queued_bytes = 0
        self.tokens: list[object] = []

    def send(
        self, kind: BodyKind, prefix: bytes, payload: Buffer, token: object, *, flow: int = 0
    ) -> None:
        self.tokens.append(token)

    def send_body(
        self, kind: BodyKind, body: Any, token: object, prefix: bytes = b"", *, flow: int = 0
    ) -> None:
        self.tokens.append(token)

    def is_busy(self, flow: int) -> bool:
        return False

    def decide(self, body: Any, refusal: Refusal | None = None) -> None:
        raise AssertionError("custody is never pending here")

    def cancel(self, token: object) -> None:
        raise AssertionError("nothing is cancelled here")

    def close(self, reason: str = "") -> None:
        self.is_up = False


class _Router:
    """A core and neighbours without the checks of the fakes."""

    def __init__(self, given: RouterSettings) -> None:
        self.core = RouterCore(given, 1000.0, first_chunk_id=1)
        self.now = 1000.0

    def attach(self, name: GUID, role: Role = Role.HOST) -> _Neighbour:
        neighbour = _Neighbour(name, role)
        self.core.neighbour_up(neighbour, self.now)
        return neighbour

    def take(self, neighbour: _Neighbour, data: bytes, kind: BodyKind = BodyKind.CHUNK) -> Any:
        return self.core.body_received(neighbour, kind, PlainBody(bytearray(data)), self.now)

    def settle_all(self, neighbour: _Neighbour) -> None:
        tokens, neighbour.tokens = neighbour.tokens, []
        for token in tokens:
            self.core.body_settled(neighbour, token, Settlement.ACCEPTED, 0, self.now)


def is_full(answers: Iterable[Refusal | None]) -> bool:
    return all(answer == Refusal(Reason.STORE_FULL) for answer in answers)


@fills("router", "bytes in custody")
def store_bytes() -> Filled:
    """A destination that settles nothing."""
    limit = MIB
    net = FakeNetwork(settings(store_bytes=limit))
    a, b, c = net.host(A), net.host(B), net.host(C)
    book, doors = net.core.book, net.core.door.refusals
    assert c.chunk(of_size(1024, source=C, destination=A)) is None
    for number in range(limit // 1024 - 1):
        assert a.chunk(of_size(1024, chunk_id=number)) is None
    at_cap, counted = book.held_bytes, doors[Reason.STORE_FULL]
    assert is_full(a.chunk(of_size(1024, chunk_id=5000 + number)) for number in range(50))
    beyond, counted_beyond = book.held_bytes, doors[Reason.STORE_FULL]
    goes_on = len(a.accept_all()) == 1  # what is held for others leaves
    goes_on &= c.chunk(of_size(1024, source=C, destination=A)) is None
    for neighbour in (a, b):
        neighbour.accept_all()
    net.check_idle()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, book.held_bytes)


@fills("router", "chunks in custody")
def store_count() -> Filled:
    """Chunks without payload to a destination that settles nothing."""
    router = _Router(settings(store_bytes=1 << 40))
    a, b, c = router.attach(A), router.attach(B), router.attach(C)
    book, doors = router.core.book, router.core.door.refusals
    small = chunk(payload=b"", wants_report=False)
    assert router.take(c, chunk(source=C, destination=A)) is None
    for _ in range(MAX_HELD_COUNT - 1):
        router.take(a, small)
    at_cap, counted = book.held_count, doors[Reason.STORE_FULL]
    assert is_full(router.take(a, small) for _ in range(100))
    beyond, counted_beyond = book.held_count, doors[Reason.STORE_FULL]
    assert len(book.wheel._ticks) == len(book.wheel._buckets) <= 2
    goes_on = len(a.tokens) == 1
    router.settle_all(a)
    goes_on &= router.take(c, chunk(source=C, destination=A)) is None
    router.settle_all(a)
    router.settle_all(b)
    assert book.conservation()["balance"] == 0
    left = book.held_count + book.held_bytes + book._entry_count
    return Filled(MAX_HELD_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "bytes that wait for one absent neighbour")
def absent_bytes() -> Filled:
    """Everybody sends to a host that went away."""
    limit = MIB
    net = FakeNetwork(settings(detached_hold_bytes=limit))
    a, b, c = net.host(A), net.host(B), net.host(C)
    b.go_down()
    doors = net.core.door.refusals
    (hop,) = (one for one in net.core.routes.hosts() if one.guid == B.value)
    for number in range(limit // 1024):
        assert a.chunk(of_size(1024, chunk_id=number)) is None
    at_cap, counted = hop.waiting_bytes, doors[Reason.STORE_FULL]
    assert is_full(a.chunk(of_size(1024, chunk_id=5000 + number)) for number in range(50))
    beyond, counted_beyond = hop.waiting_bytes, doors[Reason.STORE_FULL]
    goes_on = a.chunk(of_size(1024, destination=C)) is None and len(c.accept_all()) == 1
    b = net.host(B)
    b.accept_all()
    net.check_idle()
    left = hop.waiting_bytes + len(hop.waiting)
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


def _on_disk(limit: int, reason: str, given: SpoolSettings, size: int = 1024) -> Filled:
    """A router with durable custody is sent chunks for a host that is away."""
    to_disk = reason != "queue_full"
    net = FakeNetwork(settings(spool=given))
    a, b, c = net.host(A), net.host(B), net.host(C)
    b.go_down()
    spool = net.core.spool

    def press(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            a.chunk(of_size(size, chunk_id=number))
            if to_disk:
                net.disk_turns()
        used = spool.used_bytes if to_disk else spool.queued_bytes
        return used, spool.refused[reason]

    at_cap, counted = press(0, limit // size)
    beyond, counted_beyond = press(5000, 5050)
    net.disk_turns()
    goes_on = a.chunk(of_size(1024, destination=C)) is Deferral.PENDING or reason == "full"
    net.disk_turns()
    c.accept_all()
    net.disk_turns()
    b = net.host(B)
    while b.unsettled or net.disk.jobs:
        b.accept_all()
        net.disk_turns()
    goes_on &= a.chunk(of_size(1024, destination=C)) is Deferral.PENDING
    net.disk_turns()
    c.accept_all()
    net.disk_turns()
    net.check_idle()
    left = spool.used_bytes + spool.count + spool.queued_bytes + net.disk.log.live_bytes
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "bytes on disk")
def disk_bytes() -> Filled:
    """The whole spool."""
    given = SpoolSettings(MIB, 2 * MIB, is_durable=True)
    return _on_disk(MIB, "full", given)


@fills("router", "bytes of one flow on disk")
def disk_flow_bytes() -> Filled:
    """The share of one destination."""
    given = SpoolSettings(4 * MIB, MIB, is_durable=True)
    return _on_disk(MIB, "flow_full", given)


@fills("router", "bytes on their way to the disk")
def disk_queue() -> Filled:
    """A disk that does nothing for a while."""
    given = SpoolSettings(64 * MIB, 64 * MIB, is_durable=True)
    return _on_disk(MAX_QUEUED_BYTES, "queue_full", given, MIB // 2)


@fills("router", "absent hosts")
def absent_hosts() -> Filled:
    """Hosts with ever new keys come and go; a chunk waits for each."""
    router = _Router(settings())
    routes = router.core.routes
    a, c = router.attach(A), router.attach(C)

    def come_and_go(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            host = router.attach(number_name(number))
            host.is_up = False
            router.core.neighbour_down(host, router.now)
            answer = router.take(a, chunk(destination=number_name(number), wants_report=False))
            assert answer is None
        assert len(routes._hosts) == routes.detached_host_count + 2
        return routes.detached_host_count, routes.forgotten_count

    at_cap, counted = come_and_go(1, MAX_DETACHED_HOSTS_COUNT + 1)
    beyond, counted_beyond = come_and_go(10_000, 10_100)
    goes_on = router.take(a, chunk(destination=C)) is None and len(c.tokens) == 1
    assert router.core.book.held_count == MAX_DETACHED_HOSTS_COUNT + 1
    router.settle_all(c)
    router.core.handle_timeout(router.now + 200.0)
    left = router.core.book.held_count
    return Filled(MAX_DETACHED_HOSTS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


def _flows(role: Role, name: GUID, limit: int) -> Filled:
    router = _Router(settings())
    inventor, c = router.attach(name, role), router.attach(C)
    b = router.attach(B)
    mine, others = router.core.attachments[0], router.core.attachments[1]
    assert router.take(c, chunk(source=C, wants_report=False)) is None

    def invent(first: int, end: int) -> tuple[int, int]:
        """Return the flows kept, and those that were there and had to be decided again."""
        before = mine.flow_misses
        for number in range(first, end):
            parameters = {"payload_type": 0, "destination_na": NA(number)}
            data = chunk(source=A, wants_report=False, **parameters)
            assert router.take(inventor, data) is None
            router.settle_all(b)
        return len(mine.flows), mine.flow_misses - before

    at_cap, misses = invent(1, limit + 1)
    again = invent(1, 11)[1]
    counted = misses - limit + again
    invent(limit + 1, limit + 50)
    beyond, counted_beyond = len(mine.flows), invent(100, 110)[1]
    before = others.flow_misses
    assert router.take(c, chunk(source=C, wants_report=False)) is None
    goes_on = others.flow_misses == before
    router.settle_all(b)
    inventor.is_up = False
    router.core.neighbour_down(inventor, router.now)
    left = sum(one is mine for one in router.core.attachments)
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "flows of one host")
def flows_of_host() -> Filled:
    """A host makes every header a new one."""
    return _flows(Role.HOST, A, 256)


@fills("router", "flows of one router")
def flows_of_router() -> Filled:
    """A router brings ever new headers."""
    return _flows(Role.ROUTER, GUID(b"Q" * 20), 65_536)


@fills("router", "kinds of chunks of one flow")
def kinds_of_chunks() -> Filled:
    """A host sends chunks of ever new sizes, each of which some rule is about."""
    net = FakeNetwork(settings(service(S)))
    a, b, c, vi = net.host(A), net.host(B), net.host(C), net.vi(S)
    match = [Match(size_min=size, size_max=size) for size in range(100)]
    rules = installed(Rule(str(one.size_min), S, one) for one in match)
    net.core.install_rules(PlainTable(rules))
    counts = net.core.rule_counts

    def press(sizes: Iterable[int]) -> int:
        for size in sizes:
            assert a.chunk(chunk(payload=bytes(size))) is None
            for task in vi.accept_all():
                vi.verdict(task)
        b.accept_all()
        return sum(
            len(flow.late.flows)
            for attachment in net.core.attachments
            for flow in attachment.flows.values()
            if flow.late is not None
        )

    at_cap, counted = press(range(MAX_KINDS_COUNT)), counts.late_forgotten_count
    beyond, counted_beyond = press([MAX_KINDS_COUNT]), counts.late_forgotten_count
    goes_on = c.chunk(chunk(C, A, bytes(3))) is None
    for task in vi.accept_all():
        vi.verdict(task)
    goes_on &= len(a.accept_all()) == 1
    net.check_idle()
    c.go_down()
    net.core.install_rules(None)
    left = press([1])
    return Filled(MAX_KINDS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "services of one visit")
def services_of_a_visit() -> Filled:
    """Rules lead a chunk to ever more services."""
    services = [SID(number.to_bytes(20, "big")) for number in range(2, MAX_VISIT_COUNT + 3)]
    net = FakeNetwork(settings(*map(service, services)))
    a, b = net.host(A), net.host(B)
    vis = {one: net.vi(one) for one in services}
    doors = net.core.door.refusals

    def press(count: int) -> tuple[int, int]:
        net.core.install_rules(PlainTable(visiting(*services[:count])))
        a.chunk(chunk())
        visited = 0
        while turn := [vi for vi in vis.values() if vi.unsettled]:
            for vi in turn:
                for task in vi.accept_all():
                    visited += 1
                    vi.verdict(task)
        return visited, doors[Reason.UNSUPPORTED]

    at_cap, counted = press(MAX_VISIT_COUNT)
    beyond, counted_beyond = press(MAX_VISIT_COUNT + 1)
    goes_on = press(1) == (1, counted_beyond) and len(b.accept_all()) == 2
    net.check_idle()
    return Filled(MAX_VISIT_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("router", "long contests laid out")
def long_contests() -> Filled:
    """Flows meet ever other services with many late rules."""
    known = LateContests()
    late = Late(size_min=3)
    many = tuple(Contender(number, Action.VISIT, late) for number in range(LONG_COUNT + 1))

    def press(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            laid_out.append(known.of(Contest(number.to_bytes(20, "big"), many)))
        return known.count, known.forgotten_count

    laid_out: list[LateContest] = []
    cap = MAX_LONG_CONTESTS_COUNT
    at_cap, counted = press(0, cap)
    beyond, counted_beyond = press(cap, cap + 1)
    goes_on = all(known.of(one.contest).winner(3, set()) == many[0] for one in laid_out)
    known.forget()
    return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, known.count)


def _vi_window(given: RouterSettings, size: int, limit: int, unit: str) -> Filled:
    net = FakeNetwork(given)
    a, b, slow, quick = net.host(A), net.host(B), net.vi(S), net.vi(T)
    (vi,) = net.core.dispatch.services[S.value].vis
    waiting = net.core.dispatch.services[S.value].waiting

    def measure() -> int:
        return len(vi.tasks) if unit == "count" else vi.tasks_bytes

    def press(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            assert a.chunk(of_size(size, services=(S,), chunk_id=number)) is None
        return measure(), len(waiting)

    count = limit if unit == "count" else limit // size
    at_cap, counted = press(0, count)
    beyond, counted_beyond = press(count, count + 50)
    assert a.chunk(chunk(services=(T,))) is None
    goes_on = len(quick.accept_all()) == 1
    assert goes_on
    quick.verdict(quick.accepted[-1])
    goes_on = len(b.accept_all()) == 1
    while slow.unsettled:
        sent = slow.unsettled[0]
        slow.settle(sent)
        slow.verdict(sent)
        b.accept_all()
    net.check_idle()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, measure() + len(waiting))


@fills("router", "tasks of one VI")
def vi_tasks() -> Filled:
    """A VI gives no verdicts on small chunks."""
    limit = RouterSettings(ROUTER, NA(1)).vi_window_count
    return _vi_window(settings(service(S), service(T)), HEAD_BYTES + 1, limit, "count")


@fills("router", "bytes of tasks of one VI")
def vi_bytes() -> Filled:
    """A VI gives no verdicts on large chunks."""
    limit = 64 * 1024
    given = settings(service(S), service(T), vi_window_bytes=limit)
    return _vi_window(given, 1024, limit, "bytes")


@fills("router", "VIs of one service")
def replicas() -> Filled:
    """One VI of a service after the other attaches."""
    net = FakeNetwork(settings(service(S), service(T)))
    own = net.core.dispatch.services[S.value]
    limit = own.settings.max_replicas
    vis: list[FakeNeighbour] = []

    def attach(count: int) -> tuple[int, int]:
        for _ in range(count):
            if net.core.admit(GUID(S.value), Role.SERVICE) is None:
                vis.append(net.vi(S))
        return len(own.vis), net.core.refused_attachments[Role.SERVICE]

    at_cap, counted = attach(limit)
    beyond, counted_beyond = attach(5)
    assert len(own.slots) == limit
    goes_on = net.core.admit(GUID(T.value), Role.SERVICE) is None
    for vi in vis:
        vi.go_down()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, len(own.vis))


def _open_to_all() -> RouterSettings:
    unlisted = ServiceSettings(SID(bytes(20)), "unlisted", grace_s=10.0)
    return settings(service(S), unlisted_services=unlisted)


@fills("router", "services that no list names")
def unlisted() -> Filled:
    """VIs with ever new keys come and go, where services need not be listed."""
    router = _Router(_open_to_all())
    table = router.core.service_table.by_sid

    def come_and_go(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            if router.core.admit(number_name(number), Role.SERVICE) is None:
                vi = router.attach(number_name(number), Role.SERVICE)
                vi.is_up = False
                router.core.neighbour_down(vi, router.now)
        return len(table) - 1, router.core.refused_attachments[Role.SERVICE]

    at_cap, counted = come_and_go(1, MAX_UNLISTED_COUNT + 1)
    beyond, counted_beyond = come_and_go(10_000, 10_050)
    goes_on = router.core.admit(GUID(S.value), Role.SERVICE) is None
    router.core.handle_timeout(router.now + 11.0)
    left = len(table) - 1
    return Filled(MAX_UNLISTED_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "names of services in the count of drops")
def dropping_names() -> Filled:
    """Services with ever new names drop a chunk each."""
    net = FakeNetwork(_open_to_all())
    a, dropped = net.host(A), net.core.book.dropped

    def drop(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            name = SID(number.to_bytes(3, "big") * 6 + b"!!")
            vi = net.vi(name)
            assert a.chunk(chunk(services=(name,), wants_report=False)) is None
            (task,) = vi.accept_all()
            vi.verdict(task, VerdictCode.DROP)
            vi.go_down()
            net.pass_time(10.1)  # its grace time ends: the service is forgotten
        return len(dropped) - (OTHER_NAME in dropped), dropped[OTHER_NAME]

    at_cap, counted = drop(1, MAX_DROPPING_NAMES_COUNT + 1)
    del dropped[OTHER_NAME]  # looking at it made it
    beyond, counted_beyond = drop(5000, 5020)
    vi = net.vi(S)
    goes_on = a.chunk(chunk(services=(S,))) is None and len(vi.accept_all()) == 1
    vi.verdict(vi.accepted[-1], VerdictCode.DROP)
    net.end_turn()
    a.accept_all()
    net.check_idle()
    return Filled(
        MAX_DROPPING_NAMES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, net.sums["held"]
    )


@fills("router", "captures")
def captures() -> Filled:
    """Whoever reaches the management API begins captures and ends none."""
    net = FakeNetwork()
    a, b, tap = net.host(A), net.host(B), net.core.tap
    running: list[Capture] = []

    def press(count: int) -> tuple[int, int]:
        refused = 0
        for _ in range(count):
            try:
                running.append(tap.begin(Wanted(), lambda: None))
            except TooManyCapturesError:
                refused += 1
        return len(tap.captures), refused

    at_cap, counted = press(MAX_CAPTURES_COUNT)
    beyond, counted_beyond = press(10)
    goes_on = a.chunk(chunk()) is None and len(b.accept_all()) == 1
    for capture in running:
        tap.end(capture)
    left = len(tap.captures) + tap.is_on
    return Filled(MAX_CAPTURES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "bytes of one capture")
def capture_bytes() -> Filled:
    """A reader takes nothing out of its capture."""
    net = FakeNetwork(settings(store_bytes=1 << 30))
    a, b, tap = net.host(A), net.host(B), net.core.tap
    capture = tap.begin(Wanted(frozenset({Point.TAKEN}), snap_bytes=MIB), lambda: None)

    def press() -> tuple[int, int]:
        for number in range(MAX_RING_BYTES // (MIB // 2)):
            if capture.ring_bytes + granularity > MAX_RING_BYTES and not beyond_too:
                break
            assert a.chunk(of_size(MIB // 2, chunk_id=number)) is None
            b.accept_all()
        return capture.ring_bytes, tap.lost_count

    granularity, beyond_too = MIB // 2 + 1024, False
    at_cap, counted = press()
    beyond_too = True
    beyond, counted_beyond = press()
    goes_on = net.sums["delivered"] > 32
    capture.take(1 << 30)
    left = capture.ring_bytes
    net.check_idle()
    return Filled(
        MAX_RING_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, left, granularity
    )
