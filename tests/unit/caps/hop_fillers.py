"""Fillers of the caps of the hop protocol. Source: chunk/hop/caps.py."""

from __future__ import annotations

import errno
import math
import socket
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.address_rate import ADDRESSES_COUNT
from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.hop.batch import ADDRESSES_KEPT_COUNT, BatchReceiver
from packetcloud.chunk.hop.buffers import KEPT_FREE_BYTES, rows_class
from packetcloud.chunk.hop.flow_credit import MAX_FLOWS_COUNT
from packetcloud.chunk.hop.handshake import HALF_OPEN_COUNT
from packetcloud.chunk.hop.incoming_transfers import MAX_PARTIALS_COUNT
from packetcloud.chunk.hop.outlet import FAILURES_LOGGED_COUNT, Outlet
from packetcloud.chunk.hop.replies import MAX_REPLIES_COUNT
from packetcloud.chunk.hop.resets import RESETS_PER_S
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.stamps import PEERS_COUNT
from packetcloud.chunk.hop.timers import TIMER_SLACK_COUNT
from packetcloud.chunk.hop.train_headers import MAX_TRAIN_ROWS
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID
from tests.unit.caps.filled import Filled, fills
from tests.unit.caps.hostile import TWO_SEGMENTS, VICTIM, Hostile, Scene

MIB = 1 << 20


def _frames(datagram: bytes) -> list[wire.Frame]:
    return list(wire.decode_control(datagram))


@fills("hop", "neighbours")
def neighbours() -> Filled:
    """One key attaches as one instance after the other."""
    config = HopConfig(max_neighbours_count=16)
    scene = Scene(config=config)
    assert scene.honest_goes_on()
    first = scene.hostile()

    def attach(instance: int) -> Session | str:
        address = (f"198.51.100.{100 + instance}", 4000)
        scene.uppers[address] = type(scene.uppers[VICTIM])()
        mine = replace(config, instance=instance)
        core = scene.core(address, Role.HOST, mine, 1472, first.identity)
        scene.cores[address] = core
        result: list[Session | str] = []
        core.connect(VICTIM, None, result.append, scene.now)
        scene.run(lambda: bool(result))
        scene.step(0.05)
        del scene.cores[address]
        return result[0]

    for instance in range(1, 15):
        assert isinstance(attach(instance), Session)
    at_cap, counted = len(scene.victim.sessions), scene.victim.dropped["neighbours_full"]
    refused = [attach(instance) for instance in range(15, 20)]
    assert all(isinstance(one, str) and "neighbours" in one for one in refused)
    beyond, counted_beyond = len(scene.victim.sessions), scene.victim.dropped["neighbours_full"]
    goes_on = scene.honest_goes_on()
    scene.step(20.0)
    left = len(scene.victim.sessions) - 1
    return Filled(16, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("hop", "half-open handshakes")
def half_open() -> Filled:
    """Strangers with addresses of their own, who bring their cookies back, never say CONFIRM."""
    scene = Scene()
    assert scene.honest_goes_on()

    def knock(number: int) -> None:
        address = (f"203.0.{number >> 8}.{number & 255}", 4000)
        stranger = scene.core(VICTIM, Role.HOST, None, 1472)
        stranger.connect(VICTIM, None, lambda _: None, scene.now)
        for _ in range(2):  # HELLO to anybody, and HELLO again with name and cookie
            for _, buffers, _ in list(stranger.datagrams_to_send(scene.now)):
                hello = bytes(buffers[0])
                if wire.DatagramType(hello[0] & 15) is wire.DatagramType.HELLO:
                    scene.receive(VICTIM, address, [hello])
            scene.pump()
            for to, answer in scene.heard:
                if to == address:
                    buffer = stranger.landing()[0]
                    buffer[: len(answer)] = answer
                    stranger.receive_train(len(answer), len(answer), VICTIM, scene.now)
            scene.heard.clear()

    def half() -> int:
        return scene.victim.stats()["half_open"]

    def counted() -> int:
        return scene.victim.counters()["half_open_forgotten"]

    for number in range(HALF_OPEN_COUNT):
        knock(number)
    at_cap, counted_at_cap = half(), counted()
    for number in range(HALF_OPEN_COUNT, HALF_OPEN_COUNT + 50):
        knock(number)
    beyond, counted_beyond = half(), counted()
    goes_on = scene.honest_goes_on()
    scene.step(20.0)
    knock(9999)
    left = half() - 1
    return Filled(HALF_OPEN_COUNT, at_cap, counted_at_cap, beyond, counted_beyond, goes_on, left)


@fills("hop", "addresses that began handshakes")
def addresses_that_began() -> Filled:
    """HELLOs from ever new addresses, each of which would cost a signature."""
    scene = Scene()
    assert scene.honest_goes_on()
    rate = scene.victim._door._servers._rate

    def come(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            assert rate.take(f"203.{number >> 16}.{number >> 8 & 255}.{number & 255}", scene.now)
        return len(rate), scene.victim.counters()["addresses_forgotten"]

    at_cap, counted = come(len(rate), ADDRESSES_COUNT)
    beyond, counted_beyond = come(ADDRESSES_COUNT, 3 * ADDRESSES_COUNT)
    goes_on = scene.honest_goes_on()
    return Filled(ADDRESSES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("hop", "stamps of handshakes")
def stamps() -> Filled:
    """Ever new keys prove themselves."""
    scene = Scene()
    assert scene.honest_goes_on()
    known = scene.victim.stamps

    def come(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            known.note(GUID(number.to_bytes(20, "big")), 0, 1)
        return len(known._newest), scene.victim.counters()["stamps_forgotten"]

    at_cap, counted = come(len(known._newest), PEERS_COUNT)
    beyond, counted_beyond = come(PEERS_COUNT, 3 * PEERS_COUNT)
    goes_on = scene.honest_goes_on()
    return Filled(PEERS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("hop", "answers waiting for a full socket")
def replies() -> Filled:
    """A stranger repeats its HELLO while nothing leaves the socket."""
    scene = Scene()
    assert scene.honest_goes_on()
    victim = scene.victim
    stranger = scene.core(VICTIM, Role.HOST, None, 1472)
    stranger.connect(VICTIM, None, lambda _: None, scene.now)
    ((_, buffers, _),) = stranger.datagrams_to_send(scene.now)

    def knock(times: int) -> tuple[int, int]:
        for _ in range(times):
            scene.receive(VICTIM, ("203.0.113.1", 4000), [bytes(buffers[0])])
        return len(victim._replies), victim.dropped["replies_full"]

    at_cap, counted = knock(MAX_REPLIES_COUNT)
    beyond, counted_beyond = knock(100)
    goes_on = scene.honest_goes_on()
    left = len(victim._replies)
    return Filled(MAX_REPLIES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("hop", "answers to datagrams of unknown sessions")
def resets() -> Filled:
    """Datagrams of sessions that are not there, from many addresses in one second."""
    scene = Scene()
    assert scene.honest_goes_on()
    scene.now = math.ceil(scene.now)
    victim, told = scene.victim, scene.victim._door._resets._told

    def stray(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            stray = wire.encode_control(number, 1, [wire.PaddingFrame(60).to_bytes()])
            scene.receive(VICTIM, (f"203.{number % 100}.113.{number % 200}", 4000), [stray])
        return told.total(), victim.dropped["resets_full"]

    at_cap, counted = stray(1, RESETS_PER_S + 1)
    beyond, counted_beyond = stray(RESETS_PER_S + 1, 5000)
    assert len(told) <= RESETS_PER_S
    goes_on = scene.honest_goes_on()
    scene.step(2.0)
    left = stray(1, 2)[0] - 1
    return Filled(RESETS_PER_S, at_cap, counted, beyond, counted_beyond, goes_on, left)


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


@fills("hop", "body")
def body() -> Filled:
    """A neighbour states larger and larger bodies."""
    scene = Scene()
    hostile = scene.hostile()
    limit = HopConfig().max_body_bytes
    held = hostile.theirs.receiver
    hostile.data(0, limit)
    at_cap = held.credit.held_bytes
    counted = hostile.theirs.counters()["refused_too_large"]
    hostile.forget({0: limit})
    for number, size in enumerate((limit + 1, 2 * limit, wire.MAX_WIRE_BODY_BYTES), 1):
        hostile.data(number, size)
    beyond = held.credit.held_bytes
    counted_beyond = hostile.theirs.counters()["refused_too_large"]
    goes_on = scene.honest_goes_on()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, held.credit.held_bytes)


@fills("hop", "bodies held for one neighbour")
def credit() -> Filled:
    """A neighbour begins chunks and finishes none."""
    scene = Scene()
    hostile = scene.hostile()
    limit = HopConfig().credit_bytes
    held = hostile.theirs.receiver
    for number in range(24):
        hostile.data(number, MIB)
    at_cap, counted = held.credit.held_bytes, scene.victim.dropped["over_credit"]
    for number in range(24, 100):
        hostile.data(number, TWO_SEGMENTS)
        hostile.bundle({number: b"x"})
    beyond, counted_beyond = held.credit.held_bytes, scene.victim.dropped["over_credit"]
    goes_on = scene.honest_goes_on()
    hostile.forget(dict.fromkeys(range(24), MIB))
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, held.credit.held_bytes)


@fills("hop", "bodies held for one flow of a neighbour")
def flow_credit() -> Filled:
    """A neighbour begins chunks of one flow and finishes none."""
    limit = 4 * MIB
    scene = Scene(config=HopConfig(flow_credit_bytes=limit))
    hostile = scene.hostile()
    held = hostile.theirs.receiver

    def begin(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            hostile.data(number, MIB, flow=7)
        return held.credit.flows.held_bytes(7), scene.victim.counters()["refused_not_now"]

    at_cap, counted = begin(0, 4)
    beyond, counted_beyond = begin(4, 40)
    hostile.data(40, MIB, flow=8)
    assert held.credit.flows.held_bytes(8) == MIB, "another flow of the same neighbour goes on"
    goes_on = scene.honest_goes_on()
    hostile.forget(dict.fromkeys(range(41), MIB))
    left = held.credit.held_bytes + len(held.credit.flows.held) + len(held.credit.flows.busy)
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("hop", "flows of one neighbour that hold something")
def held_flows() -> Filled:
    """The layer above keeps a byte of each of more and more flows."""
    scene = Scene()
    hostile = scene.hostile()
    upper, flows = scene.uppers[VICTIM], hostile.theirs.receiver.credit.flows
    upper.keeps = True

    def press(first: int, end: int) -> tuple[int, int]:
        for flow in range(first, end):
            hostile.bundle({flow - 1: b"x"}, flow=flow)
        return len(flows.held), scene.victim.counters()["refused_store_full"]

    at_cap, counted = press(1, MAX_FLOWS_COUNT + 1)
    beyond, counted_beyond = press(MAX_FLOWS_COUNT + 1, MAX_FLOWS_COUNT + 100)
    hostile.bundle({MAX_FLOWS_COUNT + 99: b"x"}, flow=7)
    assert flows.held_bytes(7) == 2, "a flow that holds something may hold more"
    upper.keeps = False
    goes_on = scene.honest_goes_on()
    for body in upper.keep:
        body.release()
    return Filled(
        MAX_FLOWS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, len(flows.held)
    )


@fills("hop", "flows in a BUSY list")
def busy_list() -> Filled:
    """The layer above keeps what comes in more and more flows."""
    scene = Scene(config=HopConfig(flow_credit_bytes=1000))
    hostile = scene.hostile()
    upper, receiver = scene.uppers[VICTIM], hostile.theirs.receiver
    upper.keeps = True

    def press(first: int, end: int) -> tuple[int, int]:
        for flow in range(first, end):
            hostile.bundle({2 * flow: bytes(900)}, flow=flow + 1)
        scene.step(0.1)
        frames = [f for _, d in scene.heard if d[0] == wire.CONTROL_BYTE for f in _frames(d)]
        scene.heard.clear()
        named = [f.flows for f in frames if isinstance(f, wire.BusyFrame)]
        return len(named[-1]), scene.victim.counters()["busy_unlisted"]

    at_cap, counted = press(0, wire.MAX_BUSY_COUNT)
    beyond, counted_beyond = press(wire.MAX_BUSY_COUNT, wire.MAX_BUSY_COUNT + 30)
    upper.keeps = False
    goes_on = scene.honest_goes_on()
    for body in upper.keep:
        body.release()
    left = len(receiver.credit.flows.busy)
    return Filled(wire.MAX_BUSY_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("hop", "bodies held for all neighbours")
def held_for_all() -> Filled:
    """The layer above keeps what many neighbours send."""
    limit = 48 * MIB
    scene = Scene(config=HopConfig(max_held_bytes=limit))
    hostile = [scene.hostile(number, 65_507) for number in range(1, 4)]
    pool, upper = scene.victim.pool, scene.uppers[VICTIM]
    upper.keeps = True

    def send(neighbour: Hostile, count: int) -> tuple[int, int]:
        for transfer in range(count):
            for index in range(17):
                neighbour.data(transfer, MIB, index)
        return pool.held_bytes, scene.victim.counters()["refused_store_full"]

    send(hostile[0], 24)
    at_cap, counted = send(hostile[1], 24)
    beyond, counted_beyond = send(hostile[2], 8)
    upper.keeps = False
    for body in upper.keep:
        body.release()
    goes_on = scene.honest_goes_on()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, pool.held_bytes)


@fills("hop", "unfinished transfers of one neighbour")
def partials() -> Filled:
    """A neighbour sends the first half of small bodies and never the second."""
    scene = Scene()
    hostile = scene.hostile()
    receiver = hostile.theirs.receiver

    def send(first: int, end: int) -> tuple[int, int]:
        for transfer in range(first, end):
            hostile.data(transfer, TWO_SEGMENTS)
        return len(receiver.incoming.transfers), scene.victim.dropped["partials_full"]

    at_cap, counted = send(0, MAX_PARTIALS_COUNT)
    beyond, counted_beyond = send(MAX_PARTIALS_COUNT, MAX_PARTIALS_COUNT + 200)
    goes_on = scene.honest_goes_on()
    hostile.forget(dict.fromkeys(range(MAX_PARTIALS_COUNT + 200), TWO_SEGMENTS))
    left = (
        len(receiver.incoming.transfers) + receiver.credit.held_bytes + receiver.incoming.body_bytes
    )
    return Filled(MAX_PARTIALS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("hop", "open transfers of one neighbour")
def transfers_in() -> Filled:
    """A neighbour leaves its first transfer unfinished and goes on with the next ones."""
    scene = Scene()
    hostile = scene.hostile()
    window = wire.TRANSFER_WINDOW_COUNT
    receiver = hostile.theirs.receiver

    def open_count() -> int:
        return len(receiver.incoming.transfers) + receiver.outcomes.open_count

    hostile.data(0, TWO_SEGMENTS)
    for first in range(1, window, 100):
        hostile.bundle(dict.fromkeys(range(first, min(first + 100, window)), b"x"))
    at_cap, counted = open_count(), scene.victim.dropped["beyond_window"]
    for number in range(window, window + 100):
        hostile.bundle({number: b"x"})
        hostile.data(number, TWO_SEGMENTS)
    beyond, counted_beyond = open_count(), scene.victim.dropped["beyond_window"]
    goes_on = scene.honest_goes_on()
    hostile.forget({0: TWO_SEGMENTS})
    return Filled(window, at_cap, counted, beyond, counted_beyond, goes_on, open_count())


@fills("hop", "open transfers to one neighbour")
def transfers_out() -> Filled:
    """A neighbour settles every transfer but the first; then it calls all of them lost for ever."""
    scene = Scene()
    hostile = scene.hostile()
    window = wire.TRANSFER_WINDOW_COUNT
    sender = hostile.theirs.sender
    transfers, departures = sender.transfers, sender.departures

    def press(tokens: list[object]) -> tuple[int, int]:
        for token in tokens:
            hostile.theirs.send(BodyKind.CHUNK, b"", b"x", token)
        for _ in range(200):
            last, sent = transfers.next_transfer, sender.sent_bytes
            settled = bytes([0b1111_1110]) + b"\xff" * (last // 8 - 1)
            hostile.ack(sender.flight.next_burst - 1, received_bytes=sent, done_bitmap=settled)
            scene.step(0.005)
            scene.heard.clear()
        tables = (
            transfers.outstanding,
            departures._resend,
            departures._resend_small,
            transfers.forgotten,
        )
        assert max(map(len, tables)) <= transfers.next_transfer - transfers.done_below
        return transfers.next_transfer - transfers.done_below, transfers.full_count

    at_cap, counted = press([object() for _ in range(window)])
    rest = [object() for _ in range(1000)]
    beyond, counted_beyond = press(rest)
    for token in rest[:100]:
        hostile.theirs.cancel(token)
    goes_on = scene.honest_goes_on()
    for _ in range(20):
        hostile.ack(sender.flight.next_burst - 1, transfers.next_transfer)
        scene.step(0.005)
    left = len(transfers.outstanding) + len(transfers.forgotten) + len(sender._by_token)
    return Filled(window, at_cap, counted, beyond, counted_beyond, goes_on, left)


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


@fills("hop", "free buffers kept")
def free_buffers() -> Filled:
    """Neighbours with datagrams of many sizes have chunks held, and released again."""
    scene = Scene()
    assert scene.honest_goes_on()
    pool, upper = scene.victim.pool, scene.uppers[VICTIM]
    upper.keeps = True
    step = rows_class(400) * 1472

    def use(number: int, stride: int) -> tuple[int, int]:
        neighbour = scene.hostile(number, stride)
        share = stride - wire.DATA_HEADER_BYTES
        size = 400 * share
        for transfer in range(24 * MIB // size):
            for index in range(400):
                neighbour.data(transfer, size, index)
        for held in upper.keep:
            held.release()
        upper.keep.clear()
        return pool.free_bytes, pool.freed_count

    fullest = counted = 0
    for number, stride in enumerate((1472, 1400, 1300), 1):
        free, freed = use(number, stride)
        if not freed:
            fullest, counted = free, freed
        elif fullest + step <= KEPT_FREE_BYTES:
            fullest = free
    beyond, counted_beyond = use(9, 1250)
    upper.keeps = False
    goes_on = scene.honest_goes_on()
    kinds = len(pool._free)
    assert kinds < 20, "classes without a free buffer are not remembered"
    return Filled(KEPT_FREE_BYTES, fullest, counted, beyond, counted_beyond, goes_on, 0, 2 * step)


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
    outlet = Outlet(sock, False, lambda: None, dropped)  # type: ignore[arg-type]

    def send(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            outlet.send((f"203.0.113.{number}", 4000), [b"answer"], 6)
        return len(outlet._logged), dropped["send_failed"] - len(outlet._logged)

    at_cap, counted = send(0, FAILURES_LOGGED_COUNT)
    beyond, counted_beyond = send(FAILURES_LOGGED_COUNT, 200)
    goes_on = outlet.send(("192.0.2.1", 4000), [b"answer"], 6) and sock.sent == 1
    return Filled(FAILURES_LOGGED_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)
