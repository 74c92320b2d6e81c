"""The room for what a host has outstanding: a stuck flow stops only itself."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from packetcloud.host.send import SendState
from packetcloud.host.send_window import SendWindow

KIB = 1 << 10


class Bench:
    """A window, and what it let out."""

    def __init__(self, max_bytes: int = 1000 * KIB, max_count: int = 1000) -> None:
        self.window = SendWindow(max_bytes, max_count)
        self.out: list[Any] = []
        self.let_out: list[Any] = []
        """Also what has ended."""
        self._next = 0

    def send(self, flow: int, size: int = 10 * KIB) -> Any:
        self._next += 1
        send: Any = SimpleNamespace(
            chunk_id=self._next,
            template=SimpleNamespace(flow=flow),
            payload_bytes=size,
            state=SendState.WAITING,
        )
        self.window.add(send)
        self._admit(flow)
        return send

    def end(self, send: Any) -> None:
        self.window.leave(send)
        if send.state is SendState.QUEUED:
            self.out.remove(send)
        send.state = SendState.ENDED
        self._admit(send.template.flow)

    def _admit(self, flow: int) -> None:
        for send in self.window.admit(flow):
            send.state = SendState.QUEUED
            self.out.append(send)
            self.let_out.append(send)

    def held(self, flow: int) -> int:
        return sum(s.payload_bytes for s in self.out if s.template.flow == flow)


def test_one_flow_alone_holds_half() -> None:
    """What is over waits."""
    bench = Bench()
    for _ in range(200):
        bench.send(1)
    assert bench.held(1) == 500 * KIB
    assert bench.window.waiting_count == 150


def test_flows_that_are_stuck_leave_room_for_whoever_comes_later() -> None:
    """Without shares the first flow would hold all of it: see the assertion on the rest."""
    bench = Bench()
    for flow in range(1, 8):
        for _ in range(600):
            bench.send(flow, KIB)
    stuck_bytes = sum(bench.held(flow) for flow in range(1, 8))
    assert stuck_bytes < 1000 * KIB
    late = bench.send(9, KIB)
    assert late in bench.out


def test_a_stuck_flow_does_not_slow_another_down() -> None:
    """Each send of the other goes at once."""
    bench = Bench()
    for _ in range(500):
        bench.send(1)
    for _ in range(100):
        send = bench.send(2)
        assert send in bench.out
        bench.end(send)


def test_flows_are_served_in_turn() -> None:
    """What waited together goes one by one of each flow, not one flow after the other."""
    bench = Bench()
    large = bench.send(0, 1000 * KIB)
    for flow in (1, 2, 3):
        for _ in range(3):
            bench.send(flow, KIB)
    assert bench.out == [large]
    bench.end(large)
    flows = [send.template.flow for send in bench.out]
    assert [sorted(flows[turn : turn + 3]) for turn in (0, 3, 6)] == [[1, 2, 3]] * 3


def test_each_flow_is_served_in_its_order() -> None:
    """With room for few: the first of each flow before its second, and in the end all."""
    bench = Bench(max_count=6)
    sends = {flow: [bench.send(flow) for _ in range(3)] for flow in range(4)}
    while bench.window.waiting_count:
        bench.end(bench.out[0])
    assert not any(send in bench.out for send in sends[0])
    for flow, mine in sends.items():
        assert [send for send in bench.let_out if send.template.flow == flow] == mine


def test_a_payload_larger_than_all_room_goes_when_nothing_else_is_outstanding() -> None:
    """It waits for what is out, and not for ever."""
    bench = Bench(max_bytes=5 * KIB)
    small, large = bench.send(1, KIB), bench.send(1, 50 * KIB)
    assert bench.out == [small]
    bench.end(small)
    assert bench.out == [large]


def test_room_is_asked_for_by_flow() -> None:
    """There is none for a flow at its share, nor for a new one while somebody waits."""
    bench = Bench()
    assert bench.window.has_room(10 * KIB)
    for _ in range(200):
        bench.send(1)
    assert not bench.window.has_room(10 * KIB, 1)
    assert bench.window.has_room(10 * KIB, 2)
    assert not bench.window.has_room(10 * KIB), "somebody waits"


def test_whatever_happens_the_books_are_right_and_nothing_is_forgotten() -> None:
    """What is held is the sum of what is out, and within both bounds."""
    rng = random.Random(7)
    bench = Bench(max_bytes=300 * KIB, max_count=40)
    live: list[Any] = []
    for _ in range(5000):
        if rng.random() < 0.5 or not live:
            live.append(bench.send(rng.choice((1, 1, 1, 2, 3)), rng.choice((1, 10, 60)) * KIB))
        else:
            bench.end(live.pop(rng.randrange(len(live))))
        held = [send for send in live if send.state is SendState.QUEUED]
        assert bench.window.held_bytes == sum(send.payload_bytes for send in held) <= 300 * KIB
        assert bench.window.held_count == len(held) <= 40
        assert bench.window.waiting_count == len(live) - len(held)
    for send in live:
        bench.end(send)
    assert not bench.window._lines
    assert not bench.window._turns
