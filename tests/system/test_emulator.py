"""Emulated links under real sockets: what a link was asked to do is what its users see."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from packetcloud.testbed.bench.link_trial import LinkPlan, try_link
from packetcloud.testbed.emulator.link import (
    Emulator,
    Link,
    kernel_has_netem,
    start_link,
    start_tun_link,
)
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.namespaces import NetworkLab
from packetcloud.testbed.processes import Children

pytestmark = [pytest.mark.root, pytest.mark.alone]

PORT = 4444
PAYLOAD_BYTES = 972
"""An IP packet of 1000 bytes."""
PLAIN = Shape()


@dataclass
class Scene:
    """A link with a bound UDP socket at each end, connected to each other."""

    link: Link
    left: socket.socket
    right: socket.socket

    def received(self, quiet_s: float = 0.3) -> list[tuple[float, bytes]]:
        """Return what arrives at the right until nothing comes for so long."""
        self.right.settimeout(quiet_s)
        found = []
        try:
            while True:
                data = self.right.recv(65536)
                found.append((time.monotonic(), data))
        except TimeoutError:
            return found

    def send(self, count: int, pause_s: float = 0.0002) -> float:
        """Send numbered datagrams to the right; return when the first left."""
        began_s = time.monotonic()
        for number in range(count):
            self.left.send(number.to_bytes(4, "big") + bytes(PAYLOAD_BYTES - 4))
            time.sleep(pause_s)
        return began_s


@contextmanager
def _scene(to_right: Shape, to_left: Shape = PLAIN, seed: int = 5) -> Iterator[Scene]:
    with NetworkLab() as lab, Children() as children:
        a, b = lab.namespace("a"), lab.namespace("b")
        link = start_tun_link(lab, children, a, b, to_right, to_left, seed)
        ends = (link.left, link.right), (link.right, link.left)
        left, right = (own.namespace.run(_socket, own.address, peer.address) for own, peer in ends)
        with left, right:
            yield Scene(link, left, right)


def _socket(own: str, peer: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((own, PORT))
    sock.connect((peer, PORT))
    return sock


def _numbers(received: list[tuple[float, bytes]]) -> list[int]:
    return [int.from_bytes(data[:4], "big") for _, data in received]


def test_delay_is_seen_both_ways() -> None:
    """20 ms to the right and 5 ms to the left: answers take 25 ms, give or take this machine."""
    with _scene(Shape(delay_s=0.020), Shape(delay_s=0.005)) as scene:
        times = []
        for _ in range(20):
            began_s = time.monotonic()
            scene.left.send(b"ping")
            scene.right.settimeout(2.0)
            scene.right.send(scene.right.recv(100))
            scene.left.settimeout(2.0)
            scene.left.recv(100)
            times.append(time.monotonic() - began_s)
    assert min(times) >= 0.025
    assert statistics.median(times) < 0.035


def test_rate_and_queue_are_seen() -> None:
    """Of a burst, what the queue holds arrives, no faster than the rate; the rest is dropped."""
    with _scene(Shape(rate_bps=8e6, queue_packets=30)) as scene:
        began_s = scene.send(100, pause_s=0.0)
        received = scene.received()
        report = scene.link.report()
    # 1 ms each: the first ones leave while the burst is still coming in.
    assert 31 <= len(received) < 100
    assert report["to_right"]["dropped"] == {"queue_full": 100 - len(received)}
    assert report["to_right"]["busy_s"] == pytest.approx(len(received) * 0.001)
    assert received[-1][0] - began_s >= len(received) * 0.001


def test_the_same_seed_loses_the_same_datagrams() -> None:
    """A fifth of 1000 is lost; after a restart with the same seed, the same fifth."""
    found = []
    with _scene(PLAIN) as scene:
        for seed in (11, 11, 12):
            scene.link.restart(Shape(loss=0.2), PLAIN, seed)
            scene.send(1000)
            found.append(_numbers(scene.received()))
            assert scene.link.report()["to_right"]["dropped"]["lost"] == 1000 - len(found[-1])
    assert 740 <= len(found[0]) <= 860
    assert found[0] == found[1] != found[2]


def test_corruption_reaches_the_application() -> None:
    """Every datagram arrives, some of them with exactly one bit changed."""
    with _scene(Shape(corruption=0.3)) as scene:
        for _ in range(300):
            scene.left.send(bytes(PAYLOAD_BYTES))
        received = scene.received()
        report = scene.link.report()
    flipped = [int.from_bytes(data, "big").bit_count() for _, data in received]
    assert len(flipped) == 300
    assert set(flipped) == {0, 1}
    assert 50 <= sum(flipped) == report["to_right"]["corrupted"] <= 130


def test_corrupted_tcp_is_repaired_by_the_kernel() -> None:
    """Segments with a wrong checksum are dropped and sent again: the bytes arrive as they were."""
    with _scene(Shape(delay_s=0.001, corruption=0.05), Shape(delay_s=0.001)) as scene:
        link = scene.link
        server = link.right.namespace.run(socket.create_server, (link.right.address, PORT))
        client = link.left.namespace.run(socket.create_connection, (link.right.address, PORT))
        with server, client:
            accepted, _ = server.accept()
            wanted = bytes(range(256)) * 400
            client.sendall(wanted)
            client.shutdown(socket.SHUT_WR)
            accepted.settimeout(10.0)
            with accepted, accepted.makefile("rb") as stream:
                assert stream.read() == wanted
        assert link.report()["to_right"]["corrupted"] > 0


def test_duplicates_and_reordering_are_seen() -> None:
    """More arrive than were sent, and not in the order in which they were sent."""
    shape = Shape(delay_s=0.002, duplication=0.2, reordering=0.2, reordering_s=0.005)
    with _scene(shape) as scene:
        scene.send(300)
        numbers = _numbers(scene.received())
        sums = scene.link.report()["to_right"]
    assert set(numbers) == set(range(300))
    assert len(numbers) == 300 + sums["duplicated"]
    assert sums["duplicated"] > 20
    assert numbers != sorted(numbers)


def test_a_black_hole_and_the_way_out_of_it() -> None:
    """One direction goes dark while packets pass, and comes back; the other never notices."""
    with _scene(PLAIN) as scene:
        scene.link.change(to_right=Shape(loss=1.0))
        scene.send(20)
        scene.right.send(b"still here")
        scene.left.settimeout(2.0)
        assert scene.left.recv(100) == b"still here"
        assert scene.received() == []
        scene.link.change(to_right=PLAIN)
        scene.send(20)
        assert _numbers(scene.received()) == list(range(20))


def test_large_packets_vanish_without_a_word() -> None:
    """An MTU black hole: no error comes back, smaller ones pass."""
    with _scene(Shape(largest_bytes=1280)) as scene:
        scene.left.send(bytes(1253))
        scene.left.send(bytes(1252))
        assert [len(data) for _, data in scene.received()] == [1252]


def test_an_unknown_order_is_named() -> None:
    """What the control pipe does not understand is an error, not silence."""
    with _scene(PLAIN) as scene:
        scene.link.child.tell(do="melt")
        with pytest.raises(TestbedError, match="unknown order 'melt'"):
            scene.link.child.wait_event("changed", 5.0)


def test_the_hop_is_shown_second_by_second() -> None:
    """`packetcloud testbed link`: every row has its goodput, and the chunks arrive."""
    shape = Shape(rate_bps=20e6, delay_s=0.005, queue_packets=60, loss=0.01)
    rows = []
    plan = LinkPlan(shape, shape, seconds=2, payload_bytes=1 << 16)
    document = try_link(plan, rows.append)
    assert rows == document["rows"]
    assert [row["at_s"] for row in rows] == [1.0, 2.0]
    assert all(0 < row["goodput_mbps"] < 21 for row in rows)
    assert document["receiver"]["altered"] == 0
    assert document["link"]["to_right"]["dropped"]["lost"] > 0
    assert document["link"]["seed"] == 1


@pytest.mark.needs("tc")
def test_the_kernels_own_rate_and_queue_are_seen() -> None:
    """tbf between two bridges: what a burst leaves behind arrives no faster than the rate."""
    shape = Shape(rate_bps=8e6, queue_packets=30)
    with NetworkLab() as lab, Children() as children:
        a, b = lab.namespace("a"), lab.namespace("b")
        link = start_link(lab, children, a, b, shape, PLAIN, 1, emulator=Emulator.NETEM)
        left, right = (
            own.namespace.run(_socket, own.address, peer.address)
            for own, peer in ((link.left, link.right), (link.right, link.left))
        )
        with left, right:
            scene = Scene(link, left, right)
            began_s = scene.send(100, pause_s=0.0)
            received = scene.received()
        report = link.report()
        link.restart(shape, PLAIN, 2)
        # Counted anew; the kernel's own address resolution may come at any time.
        assert link.report()["to_right"]["in_packets"] < 10
    assert 30 <= len(received) < 100
    assert report["to_right"]["dropped"] == {"queue_full": 100 - len(received)}
    # The bucket lets the first two go at once.
    assert received[-1][0] - began_s >= (len(received) - 3) * 0.001


@pytest.mark.needs("tc")
def test_netem_delays_and_loses() -> None:
    """The same shape by the kernel, or an error that says what is missing."""
    shape = Shape(delay_s=0.020, loss=0.2)
    with NetworkLab() as lab, Children() as children:
        a, b = lab.namespace("a"), lab.namespace("b")
        if not kernel_has_netem():
            with pytest.raises(TestbedError, match="netem"):
                start_link(lab, children, a, b, shape, PLAIN, 1, emulator=Emulator.NETEM)
            return
        link = start_link(lab, children, a, b, shape, PLAIN, 1, emulator=Emulator.NETEM)
        left, right = (
            own.namespace.run(_socket, own.address, peer.address)
            for own, peer in ((link.left, link.right), (link.right, link.left))
        )
        with left, right:
            scene = Scene(link, left, right)
            began_s = scene.send(500)
            received = scene.received()
        assert 340 <= len(received) <= 460
        assert received[0][0] - began_s >= 0.020
        assert link.report()["to_right"]["dropped"] == {"lost": 500 - len(received)}
