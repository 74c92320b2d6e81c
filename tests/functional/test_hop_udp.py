"""The UDP shell over loopback: real sockets, one process, its own event loop."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, ensureDeferred

from packetcloud.chunk.hop import udp
from packetcloud.chunk.hop.api import HopConfig, Refusal, Role, Settlement
from packetcloud.chunk.hop.batch import BATCH_COUNT, BatchReceiver, load_recvmmsg
from packetcloud.chunk.hop.outlet import Outlet
from packetcloud.chunk.hop.udp import HopConnectError, HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import Upper

LIMIT_S = 30.0


def run(test: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on a reactor of its own."""
    loop = asyncio.new_event_loop()
    try:
        reactor = AsyncioSelectorReactor(loop)
        reactor.getThreadPool().start()  # as reactor.run() would
        deferred = ensureDeferred(test(reactor))
        loop.run_until_complete(asyncio.wait_for(deferred.asFuture(loop), LIMIT_S))
    finally:
        reactor.getThreadPool().stop()
        loop.close()


async def wait_for(reactor: Any, condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail after 20 s."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "condition did not come true"
        pause: Deferred[None] = Deferred()
        reactor.callLater(0.005, pause.callback, None)
        await pause


def node(
    reactor: Any, upper: Upper, config: HopConfig | None = None, **more: Any
) -> tuple[HopNode, tuple[str, int]]:
    made = HopNode(reactor, Identity.generate(), Role.ROUTER, config or HopConfig(), upper, **more)
    return made, made.listen("127.0.0.1", 0)


@pytest.mark.parametrize("datagram_bytes", [1200, 1472, 65_507])
def test_bodies_cross_real_sockets(datagram_bytes: int) -> None:
    """Bodies of all sizes arrive once and intact, with and without segmentation."""

    async def test(reactor: Any) -> None:
        config = HopConfig(max_datagram_bytes=datagram_bytes)
        upper_a, upper_b = Upper(), Upper()
        a, _ = node(reactor, upper_a, config)
        b, address = node(reactor, upper_b, config)
        neighbour = await a.connect(address, b.guid)
        bodies = [bytes([n]) * size for n, size in enumerate([1, 1000, 5000, 100_000, 1 << 20] * 4)]
        for number, body in enumerate(bodies):
            neighbour.send(BodyKind.CHUNK, body[:1], body[1:], number)
        await wait_for(reactor, lambda: len(upper_a.settled) == len(bodies))
        assert upper_b.bodies == bodies
        assert {s for _, s, _ in upper_a.settled} == {Settlement.ACCEPTED}
        await a.close()
        await wait_for(reactor, lambda: bool(upper_b.down))
        await b.close()
        await b.close()

    run(test)


def test_connecting_to_nobody_or_to_another_says_so() -> None:
    """The error names the address and the reason; a refused admission carries its text."""

    async def test(reactor: Any) -> None:
        a, _ = node(reactor, Upper())
        b, address = node(reactor, Upper(), admit=lambda guid, role, instance: "not on the list")
        with pytest.raises(HopConnectError, match="not on the list"):
            await a.connect(address)
        with pytest.raises(HopConnectError, match="the node there is"):
            await a.connect(address, GUID(bytes(20)))
        await a.close()
        await b.close()

    run(test)


def test_a_neighbour_whose_port_closed_is_down_soon() -> None:
    """A killed process is noticed by its closed port, long before the idle time-out."""

    async def test(reactor: Any) -> None:
        upper = Upper()
        a, _ = node(reactor, upper)
        b, address = node(reactor, Upper())
        neighbour = await a.connect(address)
        b.abandon()
        began = time.monotonic()
        neighbour.send(BodyKind.CHUNK, b"", bytes(100), "x")
        await wait_for(reactor, lambda: bool(upper.down))
        assert upper.settled == [("x", Settlement.LOST, 0)]
        assert upper.down == ["port closed"]
        assert time.monotonic() - began < HopConfig().idle_timeout_s / 2
        await a.close()

    run(test)


def test_a_fault_above_does_not_close_the_port() -> None:
    """An exception in the layer above costs one chunk, not the node."""

    async def test(reactor: Any) -> None:
        upper_a, upper_b = Upper(), Upper()
        a, _ = node(reactor, upper_a)
        b, address = node(reactor, upper_b)
        neighbour = await a.connect(address)

        def answer(data: bytes) -> Refusal | None:
            if data == b"bad":
                raise RuntimeError("a fault of the layer above")
            return None

        upper_b.answer = answer
        neighbour.send(BodyKind.CHUNK, b"", b"bad", 1)
        neighbour.send(BodyKind.CHUNK, b"", b"good", 2)
        await wait_for(reactor, lambda: upper_b.bodies.count(b"good") == 1)
        await wait_for(reactor, lambda: len(upper_a.settled) == 2)
        assert (1, Settlement.REFUSED, Reason.INTERNAL_ERROR) in upper_a.settled
        assert b.dropped["internal_error"] == 1
        await a.close()
        await b.close()

    run(test)


def test_timers_do_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's reactor counts time monotonically, whatever is done to the wall clock."""

    async def test(reactor: Any) -> None:
        a, _ = node(reactor, Upper())
        assert abs(reactor.seconds() - time.monotonic()) < 1
        fired: list[float] = []
        began = time.monotonic()
        reactor.callLater(0.1, lambda: fired.append(time.monotonic() - began))
        monkeypatch.setattr(time, "time", lambda: 1.0)
        await wait_for(reactor, lambda: bool(fired))
        assert 0.09 < fired[0] < 5
        await a.close()

    run(test)


def test_a_batch_of_single_datagrams_is_received_in_place_and_in_groups() -> None:
    """recvmmsg fills consecutive rows; a mixed batch comes back as groups, nothing is cut."""
    import numpy as np

    recvmmsg = load_recvmmsg()
    assert recvmmsg is not None
    receiver = BatchReceiver(recvmmsg)
    rows = np.zeros(50 * 1000, np.uint8)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        target.bind(("127.0.0.1", 0))
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        assert receiver.receive(target.fileno(), rows, 1000) is None
        for number in range(5):
            one.sendto(bytes([number]) * (1000 if number < 4 else 10), target.getsockname())
        result = receiver.receive(target.fileno(), rows, 1000)
        assert result is not None and result[0]
        (array, start, length, size, address) = next(result[1])
        assert (start, length, size, address) == (0, 4010, 1000, one.getsockname())
        assert bytes(array[3999:4001]) == b"\x03\x04"
        one.sendto(b"a" * 1000, target.getsockname())
        two.sendto(b"b" * 1000, target.getsockname())
        two.sendto(b"c" * 5000, target.getsockname())
        one.sendto(b"d" * 10, target.getsockname())
        result = receiver.receive(target.fileno(), rows, 1000)
        assert result is not None and not result[0]
        groups = [
            (bytes(array[start : start + length]), address)
            for array, start, length, _, address in result[1]
        ]
        assert groups == [
            (b"a" * 1000, one.getsockname()),
            (b"b" * 1000, two.getsockname()),
            (b"c" * 5000, two.getsockname()),
            (b"d" * 10, one.getsockname()),
        ]
        for _ in range(BATCH_COUNT + 3):
            one.sendto(b"x", target.getsockname())
        assert receiver.receive(target.fileno(), rows, 1000) is not None
        assert receiver.receive(target.fileno(), rows, 1000) is not None
        assert receiver.receive(target.fileno(), rows, 1000) is None


@pytest.mark.parametrize(("own", "called"), [("::1", "::1"), ("127.0.0.1", "localhost")])
def test_a_neighbour_is_reached_by_ipv6_and_by_name(own: str, called: str) -> None:
    """What the socket reports is not what was called; it is the same neighbour."""

    async def test(reactor: Any) -> None:
        upper = Upper()
        a = HopNode(reactor, Identity.generate(), Role.HOST, HopConfig(), Upper())
        a.listen(own, 0)
        b = HopNode(reactor, Identity.generate(), Role.ROUTER, HopConfig(), upper)
        _, port = b.listen(own, 0)
        neighbour = await a.connect((called, port), b.guid)
        neighbour.send(BodyKind.CHUNK, b"", bytes(300_000), 1)
        await wait_for(reactor, lambda: len(upper.bodies) == 1)
        await a.close()
        await b.close()

    run(test)


def test_a_name_that_nobody_has_is_an_error_with_the_name() -> None:
    """Said at once, and what is allowed with it."""

    async def test(reactor: Any) -> None:
        a, _ = node(reactor, Upper())
        with pytest.raises(HopConnectError, match=r"nobody\.invalid.*allowed: an IPv4 address"):
            await a.connect(("nobody.invalid", 4700))
        await a.close()

    run(test)


def test_a_fault_while_sending_does_not_close_the_port() -> None:
    """An exception on the way out costs one turn; the node goes on to hear and to speak."""

    async def test(reactor: Any) -> None:
        upper = Upper()
        a, _ = node(reactor, Upper())
        b, address = node(reactor, upper)
        neighbour = await a.connect(address)
        assert a._opened is not None
        good, faults = a._opened.outlet.send, [1, 2]

        def send(*arguments: Any) -> bool:
            if faults:
                faults.pop()
                raise RuntimeError("a fault of ours")
            return good(*arguments)

        a._opened.outlet.send = send  # type: ignore[method-assign]  # it fails twice
        neighbour.send(BodyKind.CHUNK, b"", bytes(300_000), 1)
        await wait_for(reactor, lambda: len(upper.bodies) == 1)
        assert a.dropped["internal_error"] == 2
        await a.close()
        await b.close()

    run(test)


def test_what_cannot_be_sent_is_counted_and_hurts_no_other_neighbour() -> None:
    """A datagram too large for any link is an error each time; the next one goes out."""
    dropped: Counter[str] = Counter()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target,
    ):
        target.bind(("127.0.0.1", 0))
        target.settimeout(5)
        outlet = Outlet(sender, True, lambda: None, dropped)
        assert outlet.send(target.getsockname(), [bytes(70_000), b""], 70_000)
        assert dropped["send_failed"] == 1
        assert outlet.send(target.getsockname(), [b"small"], 5)
        assert target.recv(100) == b"small"


def test_a_device_that_cannot_cut_trains_gets_datagrams() -> None:
    """The kernel offers segmentation, the driver refuses: plain datagrams from then on."""

    class Refusing:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def sendmsg(self, buffers: Any, option: Any, flags: int, address: Any) -> int:
            if option:
                raise OSError(errno.EIO, "Input/output error")
            return self.sock.sendmsg(buffers, option, flags, address)

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target,
    ):
        target.bind(("127.0.0.1", 0))
        target.settimeout(5)
        dropped: Counter[str] = Counter()
        refusing: Any = Refusing(sender)
        outlet = Outlet(refusing, True, lambda: None, dropped)
        burst = bytearray(b"a" * 1000 + b"b" * 1000 + b"c" * 10)
        assert outlet.send(target.getsockname(), [memoryview(burst)], 1000)
        assert [target.recv(2000)[:1] for _ in range(3)] == [b"a", b"b", b"c"]
        assert not dropped


def test_a_node_that_stays_awake_lets_the_reactor_do_its_other_work() -> None:
    """It looks for what is about to come for a moment, then others have a go, then it looks on."""

    async def test(reactor: Any) -> None:
        a, _ = node(reactor, Upper())
        end = time.monotonic() + 20
        looks: list[float] = []
        vigil: Any = a.core.vigil
        vigil.until = lambda now: end
        vigil.spent = lambda seconds, now: looks.append(seconds)
        a._take_turns()
        before = len(looks)
        pause: Deferred[None] = Deferred()
        reactor.callLater(0.01, pause.callback, None)
        await pause
        assert len(looks) > before
        assert time.monotonic() < end
        await a.close()

    run(test)


class Clock:
    """In place of the module `time`: goes on by a bit with each look at it."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        self.now += 1e-5
        return self.now


@pytest.mark.parametrize("has_sent", [True, False])
def test_a_turn_in_vain_counts_as_staying_awake(
    has_sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was spent on it is part of the share; a turn in which something was sent is not."""
    turn_s = 0.01

    async def test(reactor: Any) -> None:
        a, _ = node(reactor, Upper())
        clock = Clock()
        looks: list[float] = []
        vigil: Any = a.core.vigil
        vigil.until = lambda now: clock.now + 1.0
        vigil.spent = lambda seconds, now: looks.append(seconds)

        def take_nothing(limit_bytes: int) -> bool:
            clock.now += turn_s
            return False

        with monkeypatch.context() as patch:
            patch.setattr(udp, "time", clock)
            patch.setattr(udp._Open, "send_out", lambda self: has_sent)
            assert a._opened is not None
            patch.setattr(a._opened.intake, "take_turn", take_nothing)
            a._take_turns()
        assert len(looks) == 1
        assert (looks[0] < turn_s) is has_sent
        await a.close()

    run(test)


class Nat(threading.Thread):
    """Passes datagrams on between a client and a server, from a port that it may exchange."""

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._inside, self._outside = self._socket(), self._socket()
        self._left: list[socket.socket] = []
        self._client: Any = None
        self._is_over = threading.Event()
        self.address = self._inside.getsockname()

    def _socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        return made

    def rebind(self) -> None:
        """Use another port from now on; what goes to the old one is lost."""
        self._left.append(self._outside)
        self._outside = self._socket()

    def run(self) -> None:
        while not self._is_over.is_set():
            inside, outside = self._inside, self._outside
            for ready in select.select([inside, outside], [], [], 0.02)[0]:
                data, source = ready.recvfrom(65_536)
                if ready is inside:
                    self._client = source
                    outside.sendto(data, self._server)
                else:
                    inside.sendto(data, self._client)

    def close(self) -> None:
        self._is_over.set()
        self.join()
        for sock in (self._inside, self._outside, *self._left):
            sock.close()


def test_a_session_goes_on_when_a_nat_gives_it_another_port() -> None:
    """Amid transfers in both directions: the same session, each body once, none LOST."""

    async def test(reactor: Any) -> None:
        upper_a, upper_b = Upper(), Upper()
        config = HopConfig(max_datagram_bytes=1472)
        a, _ = node(reactor, upper_a, config)
        b, address = node(reactor, upper_b, config)
        nat = Nat(address)
        nat.start()
        neighbour = await a.connect(nat.address, b.guid)
        await wait_for(reactor, lambda: bool(upper_b.up))
        back = upper_b.up[0]
        before = back.address
        for number in range(6):
            neighbour.send(BodyKind.CHUNK, b"", bytes([number]) * 500_000, number)
            back.send(BodyKind.CHUNK, b"", bytes([number]) * 500_000, number)
        await wait_for(reactor, lambda: bool(upper_b.bodies))
        nat.rebind()
        await wait_for(reactor, lambda: len(upper_a.settled) == len(upper_b.settled) == 6)
        for upper in (upper_a, upper_b):
            assert sorted(body[0] for body in upper.bodies) == list(range(6))
            assert {how for _, how, _ in upper.settled} == {Settlement.ACCEPTED}
            assert not upper.down
        assert upper_b.up == [back] and back.address != before
        await a.close()
        await b.close()
        nat.close()

    run(test)


def test_stamps_of_handshakes_outlive_the_process(tmp_path: Path) -> None:
    """The second life knows who proved what in the first."""

    async def test(reactor: Any) -> None:
        path = tmp_path / "stamps"
        client, _ = node(reactor, Upper())
        newest = []
        for _ in range(2):
            b, address = node(reactor, Upper(), stamp_file=path)
            newest.append(b.core.stamps.newest(client.guid, 0))
            await client.connect(address)
            await b.close()
        assert newest[0] == 0 and newest[1] > 0
        await client.close()

    run(test)


def test_what_is_sent_now_and_finds_the_socket_full_is_sent_when_it_has_room() -> None:
    """The node is told of room then, and needs no timer for it."""

    async def test(reactor: Any) -> None:
        upper = Upper()
        a, _ = node(reactor, Upper())
        b, address = node(reactor, upper)
        neighbour = await a.connect(address, b.guid)
        opened = a._opened
        assert opened is not None
        send_part = opened.outlet._send_part
        outside: Deferred[None] = Deferred()
        reactor.callLater(0, outside.callback, None)  # who connected is still inside of a turn
        await outside
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(opened.outlet, "_send_part", lambda *_: False)
            neighbour.send(BodyKind.CHUNK, b"", b"now", 1)
            a.send_now()
            assert not opened.outlet.is_open and not upper.bodies
            assert any(event & select.EPOLLOUT for _, event in opened.poll.poll(0))
        assert opened.outlet._send_part == send_part
        await wait_for(reactor, lambda: upper.bodies == [b"now"])
        await a.close()
        await b.close()

    run(test)
