"""A table of crafted datagrams: each leads to the expected reply or to silence, changing nothing.

T-04 altered, T-05 repeated, T-06 downgraded, T-07 blind, T-08 handshakes for nothing, T-10 errors
about errors, T-11 lies of a neighbour that has the keys, T-16 malformed.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.hop.replay import WINDOW_COUNT
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.messages import BodyKind
from tests.functional.crafted import (
    OTHER_ID,
    STRANGER,
    Row,
    Scene,
    flip,
    put,
)
from tests.unit.chunk.hop.hop_link import OPEN, A, B, Link

T = wire.DatagramType
PROBE = wire.ProbeFrame(9)
RECORD = wire.RECORD.pack(2, 3, 1, 0, 0) + b"abc"


def frame(kind: int, value: bytes = b"", *, flags: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">BBH", kind, flags, len(value) if length is None else length) + value


def of_session(datagram: bytes, session: int) -> bytes:
    return put(datagram, 4, session.to_bytes(8, "big"))


def ack(scene: Scene, **changed: Any) -> wire.AckFrame:
    """An ACK of A that is right but for what is changed."""
    sender = scene.theirs.sender
    values: dict[str, Any] = {
        "largest_burst": sender.flight.largest_acked, "delay_us": 0,
        "received_bytes": sender.sent_bytes, "credit_limit_bytes": 1, "window_bytes": 1 << 20,
        "done_below": sender.transfers.done_below,
    }  # fmt: skip
    return wire.AckFrame(**(values | changed))


ROWS = [
    # --- malformed ------------------------------------------------------------------------------
    Row("T-16", "one byte", lambda s: b"\x23", "short_datagram"),
    Row("T-16", "a prefix cut off", lambda s: s.control(PROBE)[:11], "short_datagram"),
    *(
        Row("T-16", f"version {version}", lambda s, v=version: put(
            of_session(s.control(PROBE), OTHER_ID), 0, bytes([v << 4 | 3])), "bad_version")
        for version in (0, 1, 3, 15)
    ),
    Row("T-16", "HELLO of version 1", lambda s: put(s.hello().to_bytes(), 0, b"\x14"),
        "bad_version", None, STRANGER),
    Row("T-16", "type 0 of the session", lambda s: put(s.control(PROBE), 0, b"\x20"),
        "unexpected_type"),
    Row("T-16", "type 15 of the session", lambda s: put(s.control(PROBE), 0, b"\x2f"),
        "unexpected_type"),
    Row("T-16", "type 9 of no session",
        lambda s: put(of_session(s.control(PROBE), OTHER_ID), 0, b"\x29"), "unknown_session"),
    Row("T-16", "CONTROL cut off inside its counter", lambda s: s.control(PROBE)[:19],
        "short_control"),
    Row("T-16", "CONTROL that is all head", lambda s: s.control(PROBE)[:20], "bad_tag"),
    Row("T-16", "CONTROL of 1473 bytes", lambda s: s.control(PROBE).ljust(1473, b"\0"),
        "long_control"),
    Row("T-16", "CONTROL with reserved bits", lambda s: put(s.control(PROBE), 2, b"\1"),
        "reserved_bits"),
    Row("T-16", "BUNDLE cut off inside its head", lambda s: s.bundle(RECORD)[:27], "short_bundle"),
    Row("T-16", "BUNDLE with reserved bits", lambda s: put(s.bundle(RECORD), 27, b"\1"),
        "reserved_bits"),
    Row("T-16", "DATA cut off inside its head", lambda s: s.data()[:31], "short_segment"),
    Row("T-16", "HELLO of 1199 bytes", lambda s: s.hello().to_bytes()[:-1], "bad_hello", None,
        STRANGER),
    Row("T-16", "HELLO of 1201 bytes", lambda s: s.hello().to_bytes() + b"\0", "unknown_session",
        None, STRANGER),
    Row("T-16", "CONFIRM of 91 bytes", lambda s: of_session(s.first(T.CONFIRM), OTHER_ID)[:-1],
        "bad_confirm", None, STRANGER),
    # --- altered on the way -----------------------------------------------------------------------
    *(
        Row("T-04", f"CONTROL, byte {at} altered",
            lambda s, at=at: flip(s.control(PROBE), at), reason)
        for at, reason in ((1, "not_sealed"), (12, "bad_tag"), (18, "bad_tag"), (20, "bad_tag"),
                           (60, "bad_tag"), (79, "bad_tag"))
    ),
    *(
        Row("T-04", f"BUNDLE, byte {at} altered",
            lambda s, at=at: flip(s.bundle(RECORD), at), "bad_tag")
        for at in (12, 20, 24, 25, 28, 40, 50)
    ),
    *(
        Row("T-04", f"DATA, {name} altered",
            lambda s, at=at: flip(s.data(), at), "bad_check")
        for name, at in (("kind", 1), ("flow", 2), ("transfer", 15), ("body bytes", 19),
                         ("index", 23), ("index beyond 2^16", 20), ("burst", 27), ("check", 31))
    ),
    Row("T-04", "DATA, epoch altered", lambda s: put(s.data(), 1, b"\x11"), "unknown_epoch"),
    # --- repeated ---------------------------------------------------------------------------------
    Row("T-05", "CONTROL repeated", lambda s: s.first(T.CONTROL), "replayed"),
    Row("T-05", "BUNDLE repeated", lambda s: s.first(T.BUNDLE), "replayed"),
    Row("T-05", "CONTROL repeated from elsewhere", lambda s: s.first(T.CONTROL), "replayed", None,
        STRANGER),
    Row("T-05", "CONTROL beyond the window", lambda s: old_control(s), "old_counter"),
    Row("T-05", "DATA of a settled transfer", lambda s: s.first(T.DATA), None, T.CONTROL),
    Row("T-05", "CONFIRM repeated", lambda s: s.first(T.CONFIRM), "unexpected_type"),
    Row("T-05", "HELLO repeated", lambda s: latest_hello(s), None, T.RETRY),
    Row("T-05", "HELLO repeated from elsewhere", lambda s: latest_hello(s), None, T.RETRY,
        STRANGER),
    Row("T-05", "WELCOME sent back", lambda s: s.first(T.WELCOME, B), "unknown_session"),
    Row("T-05", "CONTROL sent back to who said it", lambda s: s.first(T.CONTROL, B),
        "unknown_session", T.REJECT),
    Row("T-05", "CONTROL of the other direction under this id",
        lambda s: of_session(s.first(T.CONTROL, B), s.theirs.local_id), "replayed"),
    # --- downgraded -------------------------------------------------------------------------------
    Row("T-06", "CONTROL that is open",
        lambda s: wire.encode_control(s.theirs.local_id, 9999, [PROBE.to_bytes()]).ljust(80, b"\0"),
        "not_sealed"),
    Row("T-06", "BUNDLE that is open", lambda s: wire.BUNDLE_HEADER.pack(
        wire.BUNDLE_BYTE, 0, 0, s.theirs.local_id, 9999, 9, 1, 0) + RECORD, "not_sealed"),
    Row("T-06", "DATA without a check", lambda s: put(s.data(), 28, bytes(4)), "bad_check"),
    Row("T-06", "CONTROL of an epoch to come", lambda s: put(s.control(PROBE), 1, b"\x11"),
        "unknown_epoch"),
    Row("T-06", "HELLO with a suite added",
        lambda s: put(s.hello().to_bytes(), 84, bytes([wire.KNOWN_SUITES])), None, T.RETRY,
        STRANGER),
    # --- blind ------------------------------------------------------------------------------------
    Row("T-07", "CONTROL of another session", lambda s: of_session(s.control(PROBE), OTHER_ID),
        "unknown_session", T.REJECT),
    Row("T-07", "a short CONTROL of another session",
        lambda s: of_session(s.control(PROBE), OTHER_ID)[:70], "unknown_session"),
    Row("T-07", "DATA before any session", lambda s: of_session(s.data(), OTHER_ID),
        "unknown_session", T.REJECT, STRANGER),
    Row("T-07", "BUNDLE before any session", lambda s: of_session(s.bundle(RECORD), OTHER_ID),
        "unknown_session", None, STRANGER),
    Row("T-07", "DATA from another address", lambda s: s.data(), "wrong_address", None, STRANGER),
    Row("T-07", "BUNDLE from another address", lambda s: s.bundle(RECORD), "wrong_address", None,
        STRANGER),
    Row("T-07", "CONTROL made up from another address",
        lambda s: flip(s.control(PROBE), 70), "bad_tag", None, STRANGER),
    Row("T-07", "CONTROL with the session id turned over",
        lambda s: flip(s.control(PROBE), 11), "unknown_session", T.REJECT),
    # --- handshakes for nothing -------------------------------------------------------------------
    Row("T-08", "HELLO to nobody", lambda s: s.hello().towards(wire.UNKNOWN_GUID).to_bytes(), None,
        T.RETRY, STRANGER),
    Row("T-08", "HELLO with a wrong cookie", lambda s: put(s.hello().to_bytes(), -1, b"\1"), None,
        T.RETRY, STRANGER),
    Row("T-08", "HELLO with a share of low order", lambda s: s.hello(share=b"\1" + bytes(31))
        .to_bytes(), "bad_share", None, STRANGER),
    Row("T-08", "CONFIRM of no handshake",
        lambda s: wire.Confirm(OTHER_ID, bytes(64), bytes(16)).to_bytes(), "unknown_session", None,
        STRANGER),
    Row("T-08", "RETRY unasked", lambda s: of_session(s.first(T.RETRY, B), OTHER_ID),
        "unknown_session", None, STRANGER),
    Row("T-08", "WELCOME unasked", lambda s: of_session(s.first(T.WELCOME, B), OTHER_ID),
        "unknown_session", None, STRANGER),
    # --- errors about errors ----------------------------------------------------------------------
    Row("T-10", "REJECT of no session", lambda s: wire.Reject(OTHER_ID, bytes(64)).to_bytes(),
        "unknown_session"),
    Row("T-10", "REJECT of the session, not signed",
        lambda s: wire.Reject(s.theirs.remote_id, bytes(64)).to_bytes(), "bad_signature"),
    Row("T-10", "REJECT cut off", lambda s: wire.Reject(OTHER_ID, bytes(64)).to_bytes()[:-1],
        "bad_reject"),
    # --- lies of the neighbour: frames ------------------------------------------------------------
    Row("T-11", "ACK of a burst never sent",
        lambda s: s.control(ack(s, largest_burst=s.theirs.sender.flight.next_burst)),
        "optimistic_ack"),
    Row("T-11", "ACK of a transfer never begun",
        lambda s: s.control(ack(s, done_below=s.theirs.sender.transfers.next_transfer + 1)),
        "optimistic_ack"),
    Row("T-11", "ACK bitmap beyond what was begun",
        lambda s: s.control(ack(s, done_bitmap=b"\xff" * 512)), None),
    Row("T-11", "ACK bitmap longer than the window",
        lambda s: s.control(ack(s, done_bitmap=b"\xff" * 513)), "bad_frame"),
    Row("T-11", "ACK of part of an unknown transfer",
        lambda s: s.control(ack(s, partials=(wire.Partial(77, 5, b"\xff"),))), None),
    Row("T-11", "ACK of 17 partial transfers", lambda s: s.control(
        ack(s, partials=tuple(wire.Partial(n, 0, b"") for n in range(17)))), "bad_frame"),
    Row("T-11", "ACK that takes credit back", lambda s: s.control(ack(s, credit_limit_bytes=0)),
        None),
    Row("T-11", "REFUSED of an unknown transfer",
        lambda s: s.control(wire.RefusedFrame(((99, 3),))), None),
    Row("T-11", "FORGET beyond the window", lambda s: s.control(
        wire.ForgetFrame(((s.transfer + wire.TRANSFER_WINDOW_COUNT, 9),))), "beyond_window"),
    Row("T-11", "FORGET of what is settled", lambda s: s.control(wire.ForgetFrame(((0, 9),))),
        None, T.CONTROL),
    Row("T-11", "frame of type 0", lambda s: s.raw_control(frame(0)), "unknown_frame"),
    Row("T-11", "frame of type 200", lambda s: s.raw_control(frame(200, b"x" * 9)),
        "unknown_frame"),
    Row("T-11", "frame longer than its datagram",
        lambda s: s.raw_control(frame(4, bytes(60), length=61)), "bad_frame"),
    Row("T-11", "frame with flags", lambda s: s.raw_control(frame(4, bytes(4), flags=1)),
        "bad_frame"),
    Row("T-11", "PADDING that is not zero", lambda s: s.raw_control(frame(15, b"x" * 60)),
        "bad_frame"),
    Row("T-11", "DIGESTS_WANTED of an unknown transfer",
        lambda s: s.control(wire.DigestsWantedFrame(99, 0)), None),
    Row("T-11", "DIGESTS unasked", lambda s: s.control(wire.DigestsFrame(2, 0, bytes(80))), None),
    Row("T-11", "DAMAGED of a settled transfer",
        lambda s: s.control(wire.DamagedFrame(0, 5, 0, b"\xff")), None),
    Row("T-11", "REKEY answered unasked",
        lambda s: s.control(wire.RekeyFrame(1, wire.RekeyStep.ANSWER, bytes(32))),
        "unexpected_rekey"),
    Row("T-11", "REKEY for an epoch to come",
        lambda s: s.control(wire.RekeyFrame(7, wire.RekeyStep.OFFER, b"\x09" + bytes(31))),
        "unexpected_rekey"),
    Row("T-11", "REKEY with a share of low order",
        lambda s: s.control(wire.RekeyFrame(1, wire.RekeyStep.OFFER, bytes(32))), "bad_share"),
    Row("T-11", "STRIDE above what was agreed",
        lambda s: s.control(wire.StrideFrame(wire.StrideStep.CHANGE, 9000, 99)), "bad_stride"),
    Row("T-11", "STRIDE confirmed unasked",
        lambda s: s.control(wire.StrideFrame(wire.StrideStep.CHANGED, 1200)), None),
    Row("T-11", "PATH_RESPONSE unasked",
        lambda s: s.control(wire.PathResponseFrame(bytes(8))), None),
    Row("T-11", "PATH_RESPONSE unasked from elsewhere",
        lambda s: s.control(wire.PathResponseFrame(bytes(8))), None, T.CONTROL, STRANGER),
    # --- lies of the neighbour: data --------------------------------------------------------------
    Row("T-11", "segment beyond its body", lambda s: s.data(index=3), "bad_segment"),
    Row("T-11", "segment of 65 535", lambda s: s.data(index=65_535), "bad_segment"),
    Row("T-11", "segment shorter than it must be", lambda s: s.data(share_bytes=1439),
        "bad_segment_length"),
    Row("T-11", "last segment longer than it must be",
        lambda s: s.data(index=2, share_bytes=1440), "bad_segment_length"),
    Row("T-11", "body of its tag only", lambda s: s.data(body_bytes=16, share_bytes=16),
        "bad_segment"),
    Row("T-11", "body kind 0", lambda s: s.data(kind=0), "bad_segment"),
    Row("T-11", "body kind 9", lambda s: s.data(kind=9), "bad_segment"),
    Row("T-11", "transfer beyond the window",
        lambda s: s.data(transfer=s.transfer + wire.TRANSFER_WINDOW_COUNT), "beyond_window"),
    Row("T-11", "body of one segment that is not sealed",
        lambda s: s.data(body_bytes=100, share_bytes=100), "bad_body"),
    Row("T-11", "record longer than its bundle",
        lambda s: s.bundle(wire.RECORD.pack(2, 99, 1, 0, 0) + b"x"), "bad_bundle"),
    Row("T-11", "fewer records than said", lambda s: s.bundle(b"", 1), "bad_bundle"),
    Row("T-11", "record of no bytes", lambda s: s.bundle(wire.RECORD.pack(2, 0, 1, 0, 0)),
        "bad_bundle"),
    Row("T-11", "record of kind 7", lambda s: s.bundle(wire.RECORD.pack(2, 1, 7, 0, 0) + b"x"),
        "bad_bundle"),
    Row("T-11", "record of a settled transfer",
        lambda s: s.bundle(wire.RECORD.pack(0, 1, 1, 0, 0) + b"x"), None, T.CONTROL),
]  # fmt: skip


def old_control(scene: Scene) -> bytes:
    """A CONTROL that was held back while A said more than the window holds."""
    held = scene.control(PROBE)
    scene.ours._envelope._counter += WINDOW_COUNT
    scene.receive(B, A, [scene.control(wire.PaddingFrame(0))])
    return held


def latest_hello(scene: Scene) -> bytes:
    """The HELLO that led to the session."""
    return [d for s, d in scene.said if s == A and d[0] & 15 == T.HELLO][-1]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_crafted_datagram_leads_to_what_it_should_and_changes_nothing(row: Row) -> None:
    """The expected reason is counted once, the expected reply given, never longer than it; the
    session then still carries a body."""
    scene = Scene()
    datagram = row.make(scene)
    for core in scene.cores.values():
        core.dropped.clear()
    list(scene.cores[B].datagrams_to_send(scene.now))
    before = scene.state()
    scene.receive(B, row.source, [datagram])
    assert dict(scene.cores[B].dropped) == ({row.reason: 1} if row.reason else {})
    answers = scene.answers(row.source)
    assert [answer[0] & 15 for answer in answers] == ([row.reply] if row.reply else [])
    if row.source == STRANGER:
        assert sum(map(len, answers)) <= len(datagram)
    assert scene.state() == before
    scene.on_datagram = lambda source, data: True
    scene.ours.send(BodyKind.CHUNK, b"", b"still here" * 500, "afterwards")
    scene.run(lambda: any(token == "afterwards" for token, _, _ in scene.uppers[A].settled), 30)
    assert scene.uppers[B].bodies[-1] == b"still here" * 500


def test_the_table_is_long_enough() -> None:
    """Each threat has its rows, and no row stands there twice."""
    assert len(ROWS) >= 90 and len({str(row) for row in ROWS}) == len(ROWS)
    assert {row.threat for row in ROWS} == {
        "T-04", "T-05", "T-06", "T-07", "T-08", "T-10", "T-11", "T-16",
    }  # fmt: skip


# --- downgrade: what somebody on the path could strip or add ----------------------------------


def outcome(link: Link, limit_s: float = 15.0) -> Session | str:
    """Return what a connect of A to B comes to."""
    result: list[Session | str] = []
    link.cores[A].connect(B, link.cores[B].identity.guid, result.append, link.now)
    link.run(lambda: bool(result), limit_s)
    return result[0]


def meddling(link: Link, kind: wire.DatagramType, change: Any) -> None:
    """Have each datagram of a type changed on the way."""

    def pass_on(source: Any, datagram: bytes) -> bool:
        if datagram[0] & 15 != kind or datagram in changed:
            return True
        other = change(datagram)
        changed.append(other)
        link.put(source, B if source == A else A, other)
        return False

    changed: list[bytes] = []
    link.on_datagram = pass_on


def rewritten_hello(link: Link, suites: int) -> Any:
    """Change the offer of a HELLO, with a mac that is right again: anybody can make one."""

    def change(datagram: bytes) -> bytes:
        core = put(datagram[: wire.HELLO_CORE_BYTES], 84, bytes([suites]))
        key = wire.door_key(link.cores[B].identity.guid)
        return core + wire.hello_mac(key, core) + datagram[-wire.COOKIE_BYTES :]

    return change


@pytest.mark.parametrize("suites", [2, 4, 8, 14, 10])
def test_an_offer_that_was_altered_makes_no_session(suites: int) -> None:
    """Also where B would take an open session: A did not offer it."""
    link = Link()
    link.cores[B] = link.core(B, link.cores[B].role, OPEN, 1472)
    assert link.cores[A]._parameters(B).suites == 12
    meddling(link, T.HELLO, rewritten_hello(link, suites))
    assert outcome(link) == "no answer"
    assert link.cores[A].dropped["bad_signature"] and not link.cores[B].sessions


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        (T.WELCOME, 108, b"\1"),
        (T.WELCOME, 108, b"\3"),
        (T.WELCOME, 84, b"\4"),
        (T.WELCOME, 86, b"\x04\xb0"),
        (T.WELCOME, 60, b"\0\0\0"),
        (T.CONFIRM, 20, b"\0\0\0"),
        (T.CONFIRM, -3, b"\0\0\0"),
        (T.HELLO, 0, b"\x14"),
        (T.WELCOME, 0, b"\x16"),
    ],
)
def test_a_handshake_that_was_altered_makes_no_session(kind: Any, at: int, value: bytes) -> None:
    """Suite, offer, size, share, signature, tag and version: each is proven or not known at all."""
    link = Link()
    meddling(link, kind, lambda datagram: put(datagram, at, value))
    assert outcome(link) == "no answer"
    assert not link.cores[A].sessions and not link.cores[B].sessions


@pytest.mark.parametrize("body_bytes", [3000, 4320])
def test_a_transfer_does_not_go_on_in_datagrams_of_another_size(body_bytes: int) -> None:
    """A neighbour changes the size and does not want back what it began: no more of that is taken.

    Seen as a fault: 4320 bytes fill three rows of 1472, and the fourth of 1200 had no place.
    """
    scene = Scene()
    scene.receive(B, A, [scene.data(index=0, body_bytes=body_bytes)])
    change = wire.StrideFrame(wire.StrideStep.CHANGE, wire.MIN_DATAGRAM_BYTES, burst=10_001)
    scene.receive(B, A, [scene.control(change)])
    before = scene.state()
    share_bytes = wire.MIN_DATAGRAM_BYTES - wire.DATA_HEADER_BYTES
    for index, start in enumerate(range(0, body_bytes, share_bytes)):
        size = min(share_bytes, body_bytes - start)
        data = scene.data(index=index, body_bytes=body_bytes, burst=10_005, share_bytes=size)
        scene.receive(B, A, [data])
    assert scene.cores[B].dropped == {"bad_segment": index + 1}
    assert scene.state() == before


@pytest.mark.parametrize("private", ["A", "B", "both", "none"])
def test_a_session_is_open_only_where_both_sides_say_so(private: str) -> None:
    """One that forgot to, or was made to forget, gets a sealed one."""
    link = Link()
    for address, name in ((A, "A"), (B, "B")):
        config = OPEN if private in (name, "both") else HopConfig()
        link.cores[address] = link.core(address, link.cores[address].role, config, 1472)
    session = outcome(link)
    assert isinstance(session, Session)
    wanted = wire.Suite.OPEN if private == "both" else wire.Suite.AES_256_GCM
    assert session.suite is wanted


def test_the_suite_is_what_both_cpus_do_well() -> None:
    """AES only where both have instructions for it."""
    link = Link()
    link.has_fast_aes = False
    link.cores[B] = link.core(B, link.cores[B].role, None, 1472)
    session = outcome(link)
    assert isinstance(session, Session) and session.suite is wire.Suite.CHACHA20_POLY1305
