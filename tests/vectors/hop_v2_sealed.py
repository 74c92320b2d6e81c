"""Sealed datagrams of hop protocol 2 under known keys, and the steps of its replay window."""

from __future__ import annotations

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.buffers import BufferPool
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.layout import BurstLayout
from packetcloud.chunk.hop.outgoing import Outgoing
from packetcloud.chunk.hop.replay import WINDOW_COUNT
from packetcloud.chunk.messages import BodyKind
from tests.vectors.fields import Fields
from tests.vectors.hop_v2_valid import SESSION, good_bundles, good_controls

SECRET = bytes(range(200, 232))
STRIDE = 1200
FLOW = 0x0102
TRANSFER = 0x1_0000_0002
"""Beyond 32 bits: the nonce holds the whole number, the header only its low half."""


def sealed_datagrams() -> list[Fields]:
    """Return what a client seals with keys of `SECRET`, in each suite."""
    return [
        vector
        for suite in (wire.Suite.AES_256_GCM, wire.Suite.CHACHA20_POLY1305)
        for vector in (_control(suite), _bundle(suite), _data(suite))
    ]


def _control(suite: wire.Suite) -> Fields:
    frames = [frame.to_bytes() for frame in good_controls()["several frames"].frames]
    content = b"".join(frames)
    datagram = Envelope(SESSION, _ring(suite)).control(frames)
    return _vector("control", suite, [datagram], frames=content.hex())


def _bundle(suite: wire.Suite) -> Fields:
    bundle = good_bundles()["two bodies, padded"]
    content = bundle.content()
    datagram = Envelope(SESSION, _ring(suite)).bundle(bundle.burst, len(bundle.records), content)
    return _vector(
        "bundle", suite, [datagram], burst=bundle.burst, records_count=len(bundle.records),
        records=content.hex(),
    )  # fmt: skip


def _data(suite: wire.Suite) -> Fields:
    ring = _ring(suite)
    body = bytes(number % 251 for number in range(3000))
    share = STRIDE - wire.DATA_HEADER_BYTES
    outgoing = Outgoing(
        BodyKind.CHUNK,
        body[:100],
        memoryview(body[100:]),
        None,
        "x",
        share,
        0,
        wire.TAG_BYTES,
        FLOW,
    )
    outgoing.transfer = TRANSFER
    outgoing.seal_with(ring.send, BufferPool())
    layout = BurstLayout(SESSION, STRIDE, 4, Envelope(SESSION, ring))
    buffers, _ = layout.rows(outgoing, 0, outgoing.segments, 9)
    train = bytes(buffers[0])
    datagrams = [train[at : at + STRIDE] for at in range(0, len(train), STRIDE)]
    return _vector(
        "data", suite, datagrams, transfer=TRANSFER, kind=int(BodyKind.CHUNK), flow=FLOW, epoch=0,
        body_bytes=outgoing.body_bytes, body=body.hex(),
    )  # fmt: skip


def _ring(suite: wire.Suite) -> KeyRing:
    return KeyRing(suite, SECRET, is_client=True)


def _vector(what: str, suite: wire.Suite, datagrams: list[bytes], **fields: object) -> Fields:
    return {
        "name": suite.name.lower(),
        "kind": what,
        "type": what,
        "fields": {"suite": int(suite), "secret": SECRET.hex(), **fields},
        "datagrams": [datagram.hex() for datagram in datagrams],
    }


def replay_tables() -> list[Fields]:
    """Return step tables after WireGuard's: edges of the window, jumps, the end of the counter."""
    limit, last = WINDOW_COUNT, 2**64 - 1
    taken, again, old = "taken", "replayed", "old_counter"
    tables: dict[str, list[tuple[int, str]]] = {
        "in order, repeated and late": [
            (0, again), (1, taken), (1, again), (9, taken), (8, taken), (7, taken), (7, again),
            (limit, taken), (limit - 1, taken), (limit - 1, again), (limit - 2, taken), (2, taken),
            (2, again), (limit + 16, taken), (3, old), (limit + 16, again), (4 * limit, taken),
            (4 * limit - (limit - 1), taken), (10, old), (4 * limit - limit, old),
            (4 * limit - (limit + 1), old), (4 * limit - (limit - 2), taken),
            (4 * limit + 1 - limit, again), (0, old), (4 * limit + 1, taken),
            (4 * limit + 1, again), (4 * limit + 1 - limit, old), (4 * limit, again),
            (4 * limit + 2, taken), (4 * limit - 1, taken), (4 * limit - 1, again),
        ],
        "the window is as wide as it says": [
            (limit + 1, taken), (1, old), (2, taken), (2, again), (limit + 2, taken), (2, old),
            (3, taken), (2 * limit + 2, taken), (limit + 2, old), (limit + 3, taken),
        ],
        "jumps of a whole window forget nothing that still counts": [
            (5, taken), (5 + limit, taken), (5, old), (6, taken), (5 + 2 * limit, taken),
            (5 + limit, old), (6 + limit, taken), (6 + limit, again),
        ],
        "the largest counters": [
            (last - limit, taken), (last - 1, taken), (last - limit, again),
            (last, taken), (last, again), (last - 1, again), (last - limit, old),
            (last - limit + 1, taken), (0, old),
        ],
    }  # fmt: skip
    return [{"name": name, "steps": [list(step) for step in rows]} for name, rows in tables.items()]
