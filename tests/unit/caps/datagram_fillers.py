"""Fillers of the caps of the hop's datagrams and timers. Source: chunk/hop/caps.py."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from typing import Any

import numpy as np

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.hop.batch import ADDRESSES_KEPT_COUNT, BatchReceiver
from packetcloud.chunk.hop.outlet import FAILURES_LOGGED_COUNT, Outlet
from packetcloud.chunk.hop.repair import ASKER_MEMORY_S, DIGESTS_PAUSE_S
from packetcloud.chunk.hop.timers import TIMER_SLACK_COUNT
from packetcloud.chunk.hop.train_headers import MAX_TRAIN_ROWS
from packetcloud.chunk.messages import BodyKind
from tests.unit.caps.filled import Filled, fills
from tests.unit.caps.hostile import VICTIM, Hostile, Scene

MIB = 1 << 20


class _SealedScene(Scene):
    """Only a sealed body has digests."""

    def config_of(self, config: HopConfig | None) -> HopConfig:
        return config or HopConfig()


@fills("hop", "answers to DIGESTS_WANTED")
def digests() -> Filled:
    """One neighbour asks as often as a node answers; then eight do, as often as they can."""
    cap = round(1 / DIGESTS_PAUSE_S)
    scene = _SealedScene()
    assert scene.honest_goes_on()
    victim, budget = scene.victim, scene.victim._surroundings.digest_budget
    hostile = [scene.hostile(number) for number in range(1, 9)]
    for neighbour in hostile:
        neighbour.theirs.send(BodyKind.CHUNK, b"", bytes(50_000), object())
    scene.step(0.01)
    question = wire.DigestsWantedFrame(0, 0).to_bytes()

    def answers(askers: list[Hostile], times: int, every_s: float) -> list[int]:
        answered = [0] * len(askers)
        began = scene.now
        for at in range(times):
            scene.now = began + at * every_s
            for number, one in enumerate(askers):
                before = victim.dropped["digests_rate"]
                scene.receive(VICTIM, one.address, [one.ours._envelope.control([question])])
                answered[number] += victim.dropped["digests_rate"] == before
        return answered

    at_cap = sum(answers(hostile[:1], cap, DIGESTS_PAUSE_S + 1e-9))
    counted = victim.dropped["digests_rate"]
    scene.now += 2 * ASKER_MEMORY_S
    shares = answers(hostile, 1000, 0.001)
    each_has_some = min(shares) > 0
    counted_beyond = victim.dropped["digests_rate"]
    scene.now += 2 * ASKER_MEMORY_S
    alone = answers(hostile[:1], 1, 0.0)
    left = len(budget._asked_at) - sum(alone)
    goes_on = scene.honest_goes_on() and each_has_some
    return Filled(cap, at_cap, counted, sum(shares), counted_beyond, goes_on, left)


@fills("hop", "replaced timers")
def timers() -> Filled:
    """Neighbours send so that a timer is set, fires, and is set late and then early again."""
    scene = Scene()
    assert scene.honest_goes_on()
    victim = scene.victim
    hostile = [scene.hostile(number) for number in range(1, 13)]

    def stale() -> int:
        return victim._timers.replaced_count

    largest = [0, 0]
    for index in range(1000):
        for neighbour in hostile:
            neighbour.data(index // 700, MIB, index % 700)
        scene.pump()  # an ACK is due soon
        at = victim.next_timeout()
        assert at is not None
        scene.now = max(scene.now, at)
        victim.handle_timeout(scene.now)
        scene.pump()  # the ACK leaves: nothing is due for long
        scene.heard.clear()
        counted = victim.counters()["dead_timers"]
        if not counted:
            largest[0] = max(largest[0], stale())
        largest[1] = max(largest[1], stale())
    goes_on = scene.honest_goes_on()
    scene.step(30.0)
    return Filled(
        TIMER_SLACK_COUNT,
        largest[0],
        0,
        largest[1],
        victim.counters()["dead_timers"],
        goes_on,
        stale(),
        len(hostile),
    )


@fills("hop", "time without any ACK")
def withheld_acks() -> Filled:
    """A neighbour says that it is there, and acknowledges nothing."""
    limit_s = int(HopConfig().idle_timeout_s)
    scene = Scene()
    assert scene.honest_goes_on()
    hostile = scene.hostile()
    theirs, victim = hostile.theirs, scene.victim
    for _ in range(200):
        theirs.send(BodyKind.CHUNK, b"", bytes(MIB), object())
    began, largest = scene.now, 0

    def counted() -> int:
        return victim.counters()["withheld_acks"]

    while theirs.is_up and scene.now - began < limit_s - 1:
        hostile.control(wire.ProbeFrame(0).to_bytes())
        scene.step(0.5)
        largest = max(largest, len(theirs.sender.flight._bursts))
    at_cap, counted_at_cap = round(scene.now - began + 1), counted()
    assert largest < 64, "bursts and probes on their way"
    while theirs.is_up and scene.now - began < limit_s + 5:
        hostile.control(wire.ProbeFrame(0).to_bytes())
        scene.step(0.1)
    beyond = int(scene.now - began)
    goes_on = scene.honest_goes_on()
    left = len(theirs.sender.flight._bursts) if theirs in victim.sessions.values() else 0
    return Filled(limit_s, at_cap, counted_at_cap, beyond, counted(), goes_on, left)


@fills("hop", "datagrams looked at in one piece")
def long_trains() -> Filled:
    """A train of more datagrams than there are rows to look at."""
    scene = Scene(config=HopConfig(max_body_bytes=2 * MIB))
    hostile = scene.hostile()
    victim, received = scene.victim, hostile.theirs.receiver

    def train(transfer: int, count: int) -> int:
        before = received.acks.received_bytes
        row = np.zeros(1472, np.uint8)
        head = wire.DATA_HEADER.pack(
            wire.DATA_BYTE, BodyKind.CHUNK, 0, hostile.theirs.local_id, transfer, 2 * MIB, 0, 1, 0
        )
        row[: len(head)] = np.frombuffer(head, np.uint8)
        rows = np.tile(row, (count, 1))
        rows[:, 20:24] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
        array = rows.reshape(-1)
        victim.receive_elsewhere(array, len(array), 1472, hostile.address, scene.now)
        return (received.acks.received_bytes - before) // 1472

    at_cap, counted = train(0, MAX_TRAIN_ROWS), victim.dropped["short_segment"]
    beyond, counted_beyond = train(1, MAX_TRAIN_ROWS + 1), victim.dropped["short_segment"]
    goes_on = scene.honest_goes_on()
    hostile.forget({0: 2 * MIB})
    return Filled(
        MAX_TRAIN_ROWS, at_cap, counted, beyond, counted_beyond, goes_on, received.credit.held_bytes
    )


@fills("hop", "CONTROL datagram")
def long_control() -> Filled:
    """A CONTROL datagram of more and more probes."""
    scene = Scene()
    hostile = scene.hostile()
    victim = scene.victim
    head = wire.PREFIX.pack(wire.CONTROL_BYTE, 0, 0, hostile.theirs.local_id)

    def probes(size: int) -> int:
        """Return how long the datagram was if it was taken."""
        hostile.theirs.receiver.acks.due_now = False
        probe, filler = wire.ProbeFrame(0).to_bytes(), wire.ForgetFrame(()).to_bytes()
        datagram = head + probe * 8
        datagram += filler * ((size - len(datagram)) // len(filler))
        datagram += bytes(size - len(datagram))  # what is over is no frame, if it is looked at
        hostile.send(datagram)
        return size if hostile.theirs.receiver.acks.due_now else 0

    at_cap, counted = probes(wire.MAX_CONTROL_BYTES), victim.dropped["long_control"]
    beyond, counted_beyond = probes(wire.MAX_CONTROL_BYTES + 1), victim.dropped["long_control"]
    goes_on = scene.honest_goes_on()
    return Filled(wire.MAX_CONTROL_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("hop", "addresses decoded")
def addresses() -> Filled:
    """Datagrams from ever new addresses come in by batches."""
    batch = BatchReceiver(lambda *_: -1)

    def come(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            raw = socket.AF_INET.to_bytes(2, "little") + b"\0\x50" + number.to_bytes(4, "big")
            batch._address(np.frombuffer(raw.ljust(28, b"\0"), np.uint8))
        return len(batch._addresses), batch.forgotten_count

    at_cap, counted = come(0, ADDRESSES_KEPT_COUNT)
    beyond, counted_beyond = come(ADDRESSES_KEPT_COUNT, 3 * ADDRESSES_KEPT_COUNT)
    known = np.frombuffer(
        (socket.AF_INET.to_bytes(2, "little") + b"\0\x50\xc0\0\x02\x01").ljust(28, b"\0"), np.uint8
    )
    goes_on = batch._address(known) == ("192.0.2.1", 80)
    return Filled(ADDRESSES_KEPT_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("hop", "failures to send in the log")
def failures_logged() -> Filled:
    """Answers to ever new addresses that the network says cannot be reached."""

    class Unreachable:
        sent = 0

        def sendmsg(self, pieces: Any, option: Any, flags: int, address: Any) -> None:
            if address[0].startswith("203."):
                raise OSError(errno.EHOSTUNREACH, "no route to host")
            self.sent += 1

    sock = Unreachable()
    dropped: Counter[str] = Counter()
    outlet = Outlet(sock, False, lambda: None, dropped)  # type: ignore[arg-type]  # a fake

    def send(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            outlet.send((f"203.0.113.{number}", 4000), [b"answer"], 6)
        return len(outlet._logged), dropped["send_failed"] - len(outlet._logged)

    at_cap, counted = send(0, FAILURES_LOGGED_COUNT)
    beyond, counted_beyond = send(FAILURES_LOGGED_COUNT, 200)
    goes_on = outlet.send(("192.0.2.1", 4000), [b"answer"], 6) and sock.sent == 1
    return Filled(FAILURES_LOGGED_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)
