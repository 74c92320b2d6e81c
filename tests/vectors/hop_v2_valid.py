"""Datagrams of hop protocol 2 by name: each type, each control frame, limits at their ends."""

from __future__ import annotations

from dataclasses import dataclass

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, ChunkId
from tests.vectors.chunk_v1_valid import good_tasks, good_verdicts, make_header

SESSION = 0x0123_4567_89AB_CDEF
OTHER_SESSION = 0xFEDC_BA98_7654_3211
KEY = bytes(range(32))
SHARE = bytes(range(32, 64))
NAME = GUID(bytes(range(100, 120)))
SIGNATURE = bytes(range(64, 128))


@dataclass(frozen=True, slots=True)
class Segment:
    """A DATA datagram. `hop.wire` has its layout but no type for it: nodes read it in trains."""

    kind: BodyKind
    transfer: int
    body_bytes: int
    index: int
    burst: int
    data: bytes
    flow: int = 0
    epoch: int = 0
    check: int = 0
    session: int = SESSION

    def to_bytes(self) -> bytes:
        head = wire.DATA_HEADER.pack(
            wire.DATA_BYTE,
            self.epoch << 4 | self.kind,
            self.flow,
            self.session,
            self.transfer,
            self.body_bytes,
            self.index,
            self.burst,
            self.check,
        )
        return head + self.data


@dataclass(frozen=True, slots=True)
class Record:
    """One small body of a bundle."""

    transfer: int
    kind: BodyKind
    data: bytes
    flow: int = 0


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open BUNDLE datagram: small bodies, then as many zeros as its train wants."""

    counter: int
    burst: int
    records: tuple[Record, ...]
    padding_bytes: int = 0
    session: int = SESSION

    def content(self) -> bytes:
        records = [
            wire.RECORD.pack(record.transfer, len(record.data), record.kind, 0, record.flow)
            + record.data
            for record in self.records
        ]
        return b"".join(records) + bytes(self.padding_bytes)

    def to_bytes(self) -> bytes:
        head = wire.BUNDLE_HEADER.pack(
            wire.BUNDLE_BYTE, 0, 0, self.session, self.counter, self.burst, len(self.records), 0
        )
        return head + self.content()


@dataclass(frozen=True, slots=True)
class Control:
    """An open CONTROL datagram."""

    frames: tuple[wire.Frame, ...]
    counter: int = 1
    session: int = SESSION

    def to_bytes(self) -> bytes:
        frames = [frame.to_bytes() for frame in self.frames]
        return wire.encode_control(self.session, self.counter, frames)


SMALL_CHUNK = make_header(payload_bytes=5, wants_report=True).to_bytes() + b"hello"
PARAMETERS = wire.Parameters(Role.ROUTER, 1472, (1 << 20) + 2048, 4 << 20, 24 << 20, 7)


def good_segments() -> dict[str, Segment]:
    """Return segments of each kind of body: whole, first, middle and last ones."""
    large = make_header(payload_bytes=3000 - 88, chunk_id=ChunkId(9)).to_bytes()
    task = good_tasks()["task"].to_bytes() + SMALL_CHUNK
    verdict = good_verdicts()["update"].to_bytes() + b"new payload"
    return {
        "whole chunk": Segment(BodyKind.CHUNK, 1, len(SMALL_CHUNK), 0, 3, SMALL_CHUNK),
        "first of three": Segment(BodyKind.CHUNK, 2, 3000, 0, 4, large.ljust(1168, b"a")),
        "second of three": Segment(BodyKind.CHUNK, 2, 3000, 1, 4, b"b" * 1168),
        "last of three": Segment(BodyKind.CHUNK, 2, 3000, 2, 4, b"c" * 664),
        "task": Segment(BodyKind.TASK, 3, len(task), 0, 5, task),
        "verdict": Segment(BodyKind.VERDICT, 4, len(verdict), 0, 6, verdict),
        "largest fields": Segment(
            BodyKind.CHUNK, 2**32 - 1, wire.MAX_WIRE_BODY_BYTES, 2**16 - 1, 2**32 - 1, b"x",
            wire.MAX_FLOW, 0, 0, 2**64 - 1,
        ),
    }  # fmt: skip


def good_bundles() -> dict[str, Bundle]:
    verdict = good_verdicts()["forward"].to_bytes()
    records = (
        Record(5, BodyKind.CHUNK, SMALL_CHUNK, flow=513),
        Record(6, BodyKind.VERDICT, verdict),
    )
    return {
        "one body": Bundle(1, 7, records[:1]),
        "two bodies": Bundle(2, 8, records),
        "two bodies, padded": Bundle(2**64 - 1, 9, records, padding_bytes=20),
    }


def good_controls() -> dict[str, Control]:
    """Return control datagrams: each frame alone and at its ends, several in one, none."""
    ack = wire.AckFrame(3, 250, 123_456, 24 << 20, 4 << 20, 2)
    gaps = wire.AckFrame(
        largest_burst=2**32 - 1,
        delay_us=2**32 - 1,
        received_bytes=2**64 - 1,
        credit_limit_bytes=2**64 - 1,
        window_bytes=2**32 - 1,
        done_below=2**32 - 1,
        done_bitmap=b"\x05\x80",
        partials=(wire.Partial(8, 2, b"\x0e"), wire.Partial(9, 0, b"")),
        busy=True,
        more=True,
    )
    return {
        "no frame": Control(()),
        "ack": Control((ack,)),
        "ack with gaps, busy, more": Control((gaps,)),
        "ack, largest": Control(
            (
                wire.AckFrame(
                    1, 1, 1, 1, 1, 1, b"\xff" * (wire.TRANSFER_WINDOW_COUNT // 8),
                    (wire.Partial(1, 1, b"\x01" * wire.MAX_BITMAP_BYTES),),
                ),
            )
        ),
        "refused": Control((wire.RefusedFrame(((4, 1), (5, 65_535))),)),
        "refused nothing": Control((wire.RefusedFrame(()),)),
        "refused, most": Control(
            (wire.RefusedFrame(tuple((n, 11) for n in range(wire.MAX_ENTRIES_COUNT))),)
        ),
        "forget": Control((wire.ForgetFrame(((4, 1000), (2**32 - 1, 2**32 - 1))),)),
        "probe": Control((wire.ProbeFrame(10),)),
        "blocked": Control((wire.BlockedFrame(1 << 20),)),
        "busy": Control((wire.BusyFrame((1, 65_535)), ack)),
        "busy, most": Control((wire.BusyFrame(tuple(range(wire.MAX_BUSY_COUNT))),)),
        "whole": Control((wire.WholeFrame(((2**32 - 1, 3), (4, 2))),)),
        "whole, most": Control(
            (wire.WholeFrame(((2**32 - 4, 6), (2, wire.TRANSFER_WINDOW_COUNT - 6))),)
        ),
        "close": Control((wire.CloseFrame("shutting down"),)),
        "close without a word": Control((wire.CloseFrame(""),)),
        "close, longest": Control((wire.CloseFrame("z" * wire.MAX_CLOSE_BYTES),)),
        "digests wanted": Control((wire.DigestsWantedFrame(4, 140),)),
        "digests": Control((wire.DigestsFrame(4, 140, bytes(range(16))),)),
        "digests, most": Control(
            (wire.DigestsFrame(2**32 - 1, 2**16 - 1, b"\xab" * 8 * wire.MAX_DIGESTS_COUNT),)
        ),
        "damaged": Control((wire.DamagedFrame(4, 9, 3, b"\x05\x80"),)),
        "damaged, most": Control(
            (wire.DamagedFrame(4, 2**32 - 1, 2**16 - 1, b"\x01" * wire.MAX_BITMAP_BYTES),)
        ),
        "rekey": Control((wire.RekeyFrame(1, wire.RekeyStep.OFFER, SHARE),)),
        "rekey, answer": Control((wire.RekeyFrame(2**32 - 1, wire.RekeyStep.ANSWER, SHARE),)),
        "path challenge": Control((wire.PathChallengeFrame(bytes(range(8))),)),
        "path response": Control((wire.PathResponseFrame(bytes(range(8))),)),
        "stride, probe": Control((wire.StrideFrame(wire.StrideStep.PROBE, 1200),)),
        "stride, arrived": Control((wire.StrideFrame(wire.StrideStep.ARRIVED, 65_507),)),
        "stride, change": Control(
            (wire.StrideFrame(wire.StrideStep.CHANGE, 1200, 2**32 - 1, ((4, 9000), (5, 70)),),)
        ),
        "stride, change, most": Control(
            (
                wire.StrideFrame(
                    wire.StrideStep.CHANGE, 1472, 7,
                    tuple((n, 2000) for n in range(wire.MAX_ENTRIES_COUNT)),
                ),
            )
        ),
        "stride, changed": Control((wire.StrideFrame(wire.StrideStep.CHANGED, 1472, 7),)),
        "padding": Control((wire.PaddingFrame(0), wire.PaddingFrame(44))),
        "largest counter": Control((wire.ProbeFrame(1),), counter=2**64 - 1),
        "several frames": Control((ack, wire.RefusedFrame(((4, 3),)), wire.ProbeFrame(11))),
    }  # fmt: skip


Handshake = wire.Hello | wire.Retry | wire.Welcome | wire.Confirm | wire.Reject


def good_handshakes() -> dict[str, Handshake]:
    cookie = bytes(range(16))
    hello = wire.Hello(SESSION, KEY, SHARE, 77, PARAMETERS)
    return {
        "hello to a node whose name is not known": hello.towards(wire.UNKNOWN_GUID),
        "hello": hello.towards(NAME),
        "hello with a cookie": hello.towards(NAME, cookie),
        "retry": wire.Retry(SESSION, NAME, cookie, 99).answering(hello.towards(NAME).mac),
        "welcome": wire.Welcome(
            SESSION, OTHER_SESSION, KEY, SHARE, PARAMETERS, wire.Suite.AES_256_GCM, SIGNATURE
        ),
        "confirm": wire.Confirm(OTHER_SESSION, SIGNATURE, bytes(range(16))),
        "reject": wire.Reject(SESSION, SIGNATURE),
    }


def good_datagrams() -> dict[str, bytes]:
    """Return the bytes of every good datagram by name."""
    tables = (good_segments(), good_bundles(), good_controls(), good_handshakes())
    return {name: value.to_bytes() for table in tables for name, value in table.items()}
