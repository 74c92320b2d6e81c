"""Fillers of the caps of the hop's bodies and transfers. Source: chunk/hop/caps.py."""

from __future__ import annotations

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.hop.buffers import KEPT_FREE_BYTES, READY_BYTES, rows_class
from packetcloud.chunk.hop.flow_credit import MAX_FLOWS_COUNT
from packetcloud.chunk.hop.incoming_transfers import MAX_PARTIALS_COUNT, SPARE_IDLE_S
from packetcloud.chunk.messages import BodyKind
from tests.unit.caps.filled import Filled, fills
from tests.unit.caps.hostile import DATAGRAM_BYTES, TWO_SEGMENTS, VICTIM, Hostile, Scene

MIB = 1 << 20


def _frames(datagram: bytes) -> list[wire.Frame]:
    return list(wire.decode_control(datagram))


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


@fills("hop", "buffers ready for the next body")
def ready_buffers() -> Filled:
    """Neighbours send one large body each, so that a buffer waits for the next of each."""
    scene = Scene()
    assert scene.honest_goes_on()
    pool = scene.victim.pool
    share = DATAGRAM_BYTES - wire.DATA_HEADER_BYTES
    size = 700 * share
    step = rows_class(700) * DATAGRAM_BYTES

    filling = READY_BYTES // step
    neighbours = [scene.hostile(number) for number in range(1, filling + 4)]
    scene.step(SPARE_IDLE_S)
    assert not pool.ready_bytes

    def send_bodies(senders: list[Hostile]) -> None:
        for neighbour in senders:
            for index in range(700):
                neighbour.data(0, size, index)

    send_bodies(neighbours[:filling])
    at_cap, counted = pool.ready_bytes, pool.unready_count
    send_bodies(neighbours[filling:])
    beyond, counted_beyond = pool.ready_bytes, pool.unready_count
    goes_on = scene.honest_goes_on()
    scene.step(2 * SPARE_IDLE_S + 20.0)
    return Filled(
        READY_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, pool.ready_bytes, step
    )
