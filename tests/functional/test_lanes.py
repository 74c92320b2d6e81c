"""Memory shared between a router and services of its machine: real sockets, one process."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from packetcloud.chunk.hop import lane_door
from packetcloud.chunk.hop.api import HopConfig, Role, Settlement
from packetcloud.chunk.hop.buffers import BufferPool
from packetcloud.chunk.hop.lane import LANE_BYTES
from packetcloud.chunk.hop.lane_door import GREETING, GUESTS_COUNT, MAPPED, LaneDoor, Lanes
from packetcloud.chunk.hop.lane_memory import Ear, close_all, make_lane, map_lane
from packetcloud.chunk.hop.lane_place import door_path
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from tests.functional.test_hop_udp import run, wait_for
from tests.unit.chunk.hop.hop_link import Upper

MEBIBYTE = 1 << 20
SIZES = [1, 1000, 8 << 10, 70_000, MEBIBYTE, MEBIBYTE + 2000] * 3
LOOPBACK = ("127.0.0.0/8",)


@pytest.fixture
def lanes() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="lanes-", dir="/tmp") as folder:
        yield Path(folder, "own", "lanes")


class Pair:
    """A router and a service that is attached to it."""

    def __init__(self, reactor: Any, lanes: Path | None, **config: Any) -> None:
        self.reactor = reactor
        self.at_router, self.at_service = Upper(), Upper()
        settings = HopConfig(**config)
        identity = Identity.generate()
        self.router = HopNode(reactor, identity, Role.ROUTER, settings, self.at_router, lanes=lanes)
        self.service = HopNode(
            reactor, Identity.generate(), Role.SERVICE, settings, self.at_service, lanes=lanes
        )

    async def attach(self) -> None:
        address = self.router.listen("127.0.0.1", 0)
        self.service.listen("127.0.0.1", 0)
        self.to_router: Any = await self.service.connect(address, self.router.guid)
        await wait_for(self.reactor, lambda: bool(self.router.neighbours))
        (self.to_service,) = self.router.neighbours

    async def share(self) -> None:
        """Attach, and wait until both sides lend."""
        await self.attach()
        sessions: Any = (self.to_router, self.to_service)
        await wait_for(
            self.reactor, lambda: all(s.sender.departures.lane is not None for s in sessions)
        )

    async def close(self) -> None:
        await self.service.close()
        await self.router.close()

    def lent(self) -> tuple[int, int]:
        """Bodies that the router and the service lent."""
        return self.router.stats()["lent_bodies"], self.service.stats()["lent_bodies"]


def bodies() -> list[bytes]:
    return [os.urandom(size) for size in SIZES]


async def exchange(pair: Pair) -> None:
    """Send bodies of all sizes both ways; each arrives once and as it was."""
    there, back = bodies(), bodies()
    for number, body in enumerate(there):
        pair.to_service.send(BodyKind.TASK, body[:1], body[1:], number)
    for number, body in enumerate(back):
        pair.to_router.send(BodyKind.VERDICT, body[:1], body[1:], number)
    await wait_for(
        pair.reactor,
        lambda: (
            len(pair.at_router.settled) == len(there) and len(pair.at_service.settled) == len(back)
        ),
    )
    assert sorted(pair.at_service.bodies) == sorted(there)
    assert sorted(pair.at_router.bodies) == sorted(back)
    for upper in (pair.at_router, pair.at_service):
        assert {settlement for _, settlement, _ in upper.settled} == {Settlement.ACCEPTED}


@pytest.mark.parametrize("links", [LOOPBACK, ()], ids=["open", "sealed"])
def test_bodies_go_through_shared_memory(lanes: Path, links: tuple[str, ...]) -> None:
    """Those that are worth it, both ways, in open and in sealed sessions; all of it comes free."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes, private_links=links)
        await pair.share()
        await exchange(pair)
        assert min(pair.lent()) > 0
        for session in (pair.to_router, pair.to_service):
            assert session.sender.departures.lane.free_bytes == LANE_BYTES
            assert session.sender.queued_bytes == 0
        await pair.close()

    run(test)


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_router_says_where_its_door_is(lanes: Path, is_shown: bool) -> None:
    """Its folder, which stays when the router ends where containers have it mounted."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        pair.router._lanes = Lanes(reactor, lanes, is_shown=is_shown)
        await pair.attach()
        folder = pair.router.lanes
        assert folder is not None and [one.name for one in folder.iterdir()] == ["door"]
        inode = folder.stat().st_ino
        assert pair.service.lanes is None
        await pair.close()
        assert pair.router.lanes is None
        if is_shown:
            assert list(folder.iterdir()) == [] and folder.stat().st_ino == inode
        else:
            assert list(lanes.iterdir()) == []

    run(test)


def test_what_killed_routers_left_is_removed_by_the_next_one(lanes: Path) -> None:
    """Not what lives, what has just begun, or what containers may have."""

    async def test(reactor: Any) -> None:
        living = Pair(reactor, lanes)
        await living.attach()
        assert living.router.lanes is not None
        left = {}
        for name, mode in (("dead", 0o700), ("empty", 0o700), ("young", 0o700), ("shown", 0o755)):
            left[name] = lanes / name
            left[name].mkdir(mode)
            left[name].chmod(mode)
            if name != "empty":
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
                    door.bind(str(left[name] / "door"))
        for folder in (*left.values(), living.router.lanes):
            if folder != left["young"]:
                os.utime(folder, (0, 0))
        next_one = Pair(reactor, lanes)
        await next_one.share()
        found = {folder.name for folder in lanes.iterdir()}
        assert next_one.router.lanes is not None
        lives = {living.router.lanes.name, next_one.router.lanes.name}
        assert found == {"young", "shown", *lives}
        await exchange(living)
        await next_one.close()
        await living.close()

    run(test)


def test_without_a_door_bodies_go_in_datagrams(lanes: Path) -> None:
    """Where router and service do not meet, nothing is lent and nothing is lost."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, None)
        pair.service._lanes = Lanes(reactor, lanes)
        await pair.attach()
        await exchange(pair)
        assert pair.lent() == (0, 0)
        await pair.close()

    run(test)


def door_at(pair: Pair) -> LaneDoor | None:
    lanes = pair.router._lanes
    return lanes.door if lanes is not None else None


def door_of(pair: Pair, lanes: Path) -> socket.socket:
    """Return a connection to the router's door."""
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    guest.connect(str(door_path(lanes, pair.router.guid)))
    return guest


async def visitor(reactor: Any, pair: Pair, lanes: Path) -> socket.socket:
    """Return a connection to a door that may rest just now."""
    found: list[socket.socket] = []

    def has_come() -> bool:
        with contextlib.suppress(BlockingIOError):
            found.append(door_of(pair, lanes))
        return bool(found)

    await wait_for(reactor, has_come)
    return found[0]


async def turn(reactor: Any) -> None:
    """Let the reactor look at its sockets."""
    for _ in range(3):
        pause: Deferred[None] = Deferred()
        reactor.callLater(0, pause.callback, None)
        await pause


async def answer(reactor: Any, guest: socket.socket) -> tuple[bytes, list[int]]:
    """Return what comes back: bytes and descriptors; nothing when the door closes."""
    got: list[tuple[bytes, list[int]]] = []

    def has_come() -> bool:
        try:
            said, descriptors, _, _ = socket.recv_fds(guest, 100, 4)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            said, descriptors = b"", []
        got.append((said, descriptors))
        return True

    await wait_for(reactor, has_come)
    return got[0]


def test_only_the_token_of_a_service_opens_the_door(lanes: Path) -> None:
    """Noise, another token, a host's token and a second claim get nothing; the session goes on."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        await pair.share()
        host = HopNode(reactor, Identity.generate(), Role.HOST, HopConfig(), Upper())
        host.listen("127.0.0.1", 0)
        assert pair.router._opened is not None
        address = pair.router._opened.sock.getsockname()
        to_host: Any = await host.connect(address)
        for said in (
            b"?",
            GREETING,
            GREETING + bytes(32),
            GREETING + to_host.lane_token,
            GREETING + pair.to_service.lane_token,
        ):
            with door_of(pair, lanes) as guest:
                guest.send(said)
                assert await answer(reactor, guest) == (b"", [])
        await exchange(pair)
        await host.close()
        await pair.close()

    run(test)


def test_guests_that_say_nothing_keep_nobody_out(lanes: Path) -> None:
    """As many as there may be, and more: the oldest gives way, and a service gets its memory."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        pair.service._lanes = None
        await pair.attach()
        silent = []
        for _ in range(GUESTS_COUNT + 3):
            silent.append(await visitor(reactor, pair, lanes))
        with await visitor(reactor, pair, lanes) as guest:
            guest.send(GREETING + pair.to_router.lane_token)
            said, descriptors = await answer(reactor, guest)
            assert said.startswith(GREETING) and len(descriptors) == 3
            close_all(descriptors)
        door = door_at(pair)
        assert door is not None and len(door._guests) <= GUESTS_COUNT
        for one in silent:
            one.close()
        await pair.close()

    run(test)


def test_a_service_at_a_thronged_door_asks_again(
    lanes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned away by others' connections, it has its memory when they have gone."""
    monkeypatch.setattr(lane_door, "PAUSES_S", (0.05,) * 100)

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        assert door_at(pair) is None
        pair.router.listen("127.0.0.1", 0)
        door = door_at(pair)
        assert door is not None
        reactor.removeReader(door)  # nobody is let in
        crowd = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(4 * GUESTS_COUNT):
                crowd.append(door_of(pair, lanes))
        pair.service.listen("127.0.0.1", 0)
        address = pair.router._opened.sock.getsockname()  # type: ignore[union-attr]  # it listens
        pair.to_router = await pair.service.connect(address)
        await turn(reactor)
        assert not pair.to_router.has_lane
        reactor.addReader(door)
        for one in crowd:
            one.close()
        await wait_for(reactor, lambda: pair.to_router.has_lane)
        await pair.close()

    run(test)


def test_nothing_is_lent_before_the_other_side_has_mapped_it(lanes: Path) -> None:
    """A service that takes the memory and dies, or never says so, costs no chunk."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        pair.service._lanes = None
        await pair.attach()
        with door_of(pair, lanes) as guest:
            guest.send(GREETING + pair.to_router.lane_token)
            _, descriptors = await answer(reactor, guest)
            close_all(descriptors)
            await exchange(pair)
            assert pair.lent() == (0, 0)
            guest.send(MAPPED)
            await wait_for(reactor, lambda: pair.to_service.sender.departures.lane is not None)
        await pair.close()

    run(test)


def test_a_door_that_a_killed_router_left_is_replaced(lanes: Path) -> None:
    """The next router of the key has it, and one that ends late does not take it away again."""

    async def test(reactor: Any) -> None:
        first = Pair(reactor, lanes)
        path = door_path(lanes, first.router.guid)
        first.router.listen("127.0.0.1", 0)
        identity = first.router._identity
        second = HopNode(reactor, identity, Role.ROUTER, HopConfig(), Upper(), lanes=lanes)
        second.listen("127.0.0.1", 0)
        await first.router.close()
        assert path.is_socket()
        await second.close()
        assert not path.exists()
        assert list(lanes.iterdir()) == []

    run(test)


def test_a_folder_of_somebody_else_is_not_used(lanes: Path) -> None:
    """Open to others, so anybody might have put a socket there: bodies go in datagrams."""

    async def test(reactor: Any) -> None:
        lanes.parent.mkdir(mode=0o755)
        pair = Pair(reactor, lanes)
        await pair.attach()
        assert door_at(pair) is None
        await exchange(pair)
        assert pair.lent() == (0, 0)
        await pair.close()

    run(test)


SIZE = 64 << 10


def test_each_side_can_only_read_what_the_other_writes() -> None:
    """And nobody can make it shorter, which would end whoever looks at it."""
    memory = make_lane(SIZE)
    ours, theirs, _ = memory.descriptors
    lane = map_lane(ours, theirs)
    assert not lane._theirs.flags.writeable and lane._own.flags.writeable
    with pytest.raises(PermissionError):
        mmap.mmap(ours, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        os.pwrite(ours, b"x", 0)
    for fd in (ours, theirs):
        for size in (0, SIZE // 2, 2 * SIZE):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    loan = lane.lend(b"a", b"bc", None)
    assert loan is not None
    assert memory.lane.borrow(loan.start, loan.size, BufferPool()) == b"abc"
    close_all(memory.descriptors)


SHORTENED = """
import os
from packetcloud.chunk.hop import lane_memory
if {is_sealed}:
    pass
else:
    lane_memory.fcntl.fcntl = lambda *_: 0
memory = lane_memory.make_lane({size})
try:
    os.ftruncate(memory.descriptors[1], 0)
except PermissionError:
    pass
print(bytes(memory.lane._theirs[:10]))
"""


@pytest.mark.parametrize("is_sealed", [True, False])
def test_without_seals_a_neighbour_could_end_the_router(is_sealed: bool) -> None:
    """The control: the same memory, not sealed, is shortened, and reading it is fatal (SIGBUS)."""
    code = SHORTENED.format(is_sealed=is_sealed, size=SIZE)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    if is_sealed:
        assert (ended.returncode, ended.stdout.strip()) == (0, repr(bytes(10)).encode())
    else:
        assert ended.returncode == -signal.SIGBUS


def test_what_changes_after_it_was_lent_is_one_thing_to_the_router(lanes: Path) -> None:
    """A service that writes over a body that it has lent: what the router has does not change."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        await pair.share()
        pair.at_router.keeps = True
        body = os.urandom(MEBIBYTE)
        pair.to_router.send(BodyKind.VERDICT, b"", body, 1)
        await wait_for(reactor, lambda: bool(pair.at_router.settled or pair.at_router.keep))
        pair.to_router.sender.departures.lane._own[:] = 0
        (kept,) = pair.at_router.keep
        assert bytes(kept.contiguous()) == body
        kept.release()
        await pair.close()

    run(test)


def test_a_service_hears_the_bell(lanes: Path) -> None:
    """It stays awake for what is about to come; a bell that nobody heard rings once."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        await pair.share()
        opened = pair.service._opened
        assert opened is not None
        await wait_for(reactor, lambda: opened.ear is not None)
        warned: list[float] = []
        opened.core.vigil.warned = warned.append  # type: ignore[method-assign]  # to see it called
        for _ in range(3):
            pair.to_service._ring()
        await wait_for(reactor, lambda: bool(warned))
        await turn(reactor)
        assert len(warned) == 1
        await exchange(pair)
        await pair.close()

    run(test)


@pytest.mark.parametrize(
    ("ours", "said", "left"),
    [
        ({0, 1, 2}, b"0", {1, 2}),
        ({0, 1, 2}, b"0,2", {1}),
        ({0, 1}, b"0,1", None),
        ({0}, b"0", None),
        ({0, 1}, b"", None),
        ({0, 1}, b"none", None),
    ],
)
def test_a_service_leaves_its_routers_processors_alone(
    monkeypatch: pytest.MonkeyPatch, ours: set[int], said: bytes, left: set[int] | None
) -> None:
    """Where others are left to it; a router that is bound to nothing has them all."""
    bound: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(ours))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, mask: bound.append(set(mask)))
    lane_door.stay_off(said, ours)
    assert bound == ([left] if left is not None and left != ours else [])


def test_a_router_says_where_it_is_bound(lanes: Path) -> None:
    """The reply at its door names its processors."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        pair.service._lanes = None
        await pair.attach()
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            with door_of(pair, lanes) as guest:
                guest.send(GREETING + pair.to_router.lane_token)
                said, descriptors = await answer(reactor, guest)
                close_all(descriptors)
        finally:
            os.sched_setaffinity(0, before)
        assert said == GREETING + str(min(before)).encode()
        await pair.close()

    run(test)


@pytest.mark.parametrize("answers_soon", [True, False])
def test_a_quick_answer_leaves_before_the_ack_of_its_question(
    lanes: Path, answers_soon: bool
) -> None:
    """After a rest, from who says that it answers soon; else the ACK goes out at once."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes, private_links=LOOPBACK)
        await pair.share()
        opened = pair.service._opened
        assert opened is not None
        sent: list[int] = []
        send = opened.outlet.send

        def watch(address: Any, buffers: list[Any], row_bytes: int) -> bool:
            sent.append(bytes(buffers[0])[0] & 15)
            return send(address, buffers, row_bytes)

        def work(neighbour: Any, kind: BodyKind, body: Any) -> None:
            def process() -> None:
                neighbour.send(BodyKind.VERDICT, b"", b"answer" * 2000, 1)
                pair.service.send_now()

            body.release()
            reactor.callLater(0, process)

        opened.outlet.send = watch  # type: ignore[method-assign]  # to see what leaves
        pair.at_service.body_received = work  # type: ignore[method-assign]  # its layer above
        pair.service.answers_soon = answers_soon
        bundle, control = 2, 3
        was_first = False
        for number in range(1, 21):  # a slow machine takes its rest in the middle at times
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.05, pause.callback, None)  # the rest
            await pause
            sent.clear()
            pair.to_service.send(BodyKind.TASK, b"", bytes(MEBIBYTE), number)
            await wait_for(reactor, lambda: len(pair.at_router.bodies) == number)  # noqa: B023
            was_first = was_first or sent.index(bundle) < sent.index(control)
            if was_first:
                break
        assert was_first is answers_soon
        await pair.close()

    run(test)


def test_who_hears_a_bell_cannot_stop_it() -> None:
    """The ear is no way to the bell: a full one, made to block, would hold up who rings it."""
    memory = make_lane(SIZE)
    ear = memory.descriptors[2]
    fcntl.fcntl(ear, fcntl.F_SETFL, 0)
    with pytest.raises(OSError):
        os.eventfd_write(ear, 1)
    hears = Ear(ear)
    for _ in range(2):
        memory.bell.ring()
        assert hears.was_rung() and not hears.was_rung()
    assert not os.get_blocking(memory.bell._fd)
    close_all(memory.descriptors)
    # The control: a descriptor of the bell itself shares whether it blocks.
    given = os.dup(memory.bell._fd)
    fcntl.fcntl(given, fcntl.F_SETFL, 0)
    assert os.get_blocking(memory.bell._fd)
    os.close(given)


def test_a_lane_that_nobody_mapped_is_handed_out_again(lanes: Path) -> None:
    """A service that was too slow to say that it mapped it asks again, and has it."""

    async def test(reactor: Any) -> None:
        pair = Pair(reactor, lanes)
        seeking, pair.service._lanes = pair.service._lanes, None
        await pair.attach()
        with door_of(pair, lanes) as guest:
            guest.send(GREETING + pair.to_router.lane_token)
            _, descriptors = await answer(reactor, guest)
            close_all(descriptors)
        assert pair.to_service.has_lane and not pair.to_service.lends
        assert seeking is not None
        seeking.seek(pair.to_router, lambda ear: None)
        await wait_for(reactor, lambda: pair.to_service.lends and pair.to_router.lends)
        await exchange(pair)
        assert min(pair.lent()) > 0
        seeking.close()
        await pair.close()

    run(test)


def test_memory_that_could_be_shortened_is_not_mapped() -> None:
    """A service looks at the seals: whoever answers at the door may be no router."""
    descriptors = [os.memfd_create("tested", os.MFD_ALLOW_SEALING) for _ in range(2)]
    for fd in descriptors:
        os.ftruncate(fd, SIZE)
    with pytest.raises(OSError, match="not the memory of a lane"):
        map_lane(*descriptors)
    close_all(descriptors)
