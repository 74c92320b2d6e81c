"""What becomes of chunks at an ids service, one after the other: rules, flows, borders."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pytest

from packetcloud.chunk.header import ChunkHeader, DigestAlgorithm, PayloadDigest, PayloadType
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.streams.wire import Data
from packetcloud.host.file_format import data_header
from packetcloud.services.testing import HARNESS_DESTINATION, HARNESS_SOURCE, ProcessResult
from tests.unit.services.ids.ids_place import (
    DROPPED_BY_1,
    HEAD,
    MALICIOUS,
    Place,
    Sent,
    ids_of,
    is_dropped,
    streams,
)

A, B, C = (GUID(bytes([number]) * 20) for number in (1, 2, 3))
OTHER_CONTENT = "ids: another content where one was before"


@dataclass(frozen=True)
class Story:
    """Rules, chunks one after the other, and which rules alert in the end."""

    says: str
    rules: tuple[str, ...]
    chunks: tuple[Sent, ...]
    sids: tuple[int, ...] | None = None
    actions: tuple[str, ...] | None = None
    settings: dict[str, object] = field(default_factory=dict)


def of_file(number: int, transfer: int, offset: int, data: bytes, dropped: bool = False) -> Sent:
    payload = data_header(bytes([transfer]) * 16, offset) + data
    return Sent(payload, dropped, number, kind=PayloadType.FILE)


def between(payload: bytes, source: GUID, destination: GUID, dropped: bool = False) -> Sent:
    return Sent(payload, dropped, source=source, destination=destination)


STORIES = [
    Story(
        "pass goes before drop, drop and alert both tell; the source hears the rule that dropped",
        (
            f'alert {HEAD} (content:"bad"; sid:1;)',
            f'drop {HEAD} (msg:"no bad"; content:"bad"; sid:2;)',
            f'reject {HEAD} (msg:"no worse"; content:"worse"; sid:3;)',
            f'pass {HEAD} (content:"but fine"; sid:4;)',
        ),
        (
            Sent(b"bad", "ids: sid 2: no bad"),
            Sent(b"worse", "ids: sid 3: no worse"),
            Sent(b"bad but fine"),
        ),
        (2, 1, 3),
        ("blocked", "allowed", "blocked"),
    ),
    Story(
        "rules are about GUIDs: source, destination, both ways, lists from the parameters",
        (
            f'drop chunk {A} any -> {B} any (content:"x"; sid:1;)',
            'drop chunk $SERVERS any <> !$SERVERS any (content:"y"; sid:2;)',
        ),
        (
            between(b"x", A, B, dropped=True),
            between(b"x", B, A),
            between(b"y", A, C, dropped=True),
            between(b"y", C, A, dropped=True),
            between(b"y", A, B),
        ),
        settings={"lists": f"SERVERS=[{A},{B}]"},
    ),
    Story(
        "a chunk that was dropped is no neighbour: sent again with another number it is found "
        "again; what goes on is remembered",
        (MALICIOUS,),
        (
            Sent(b"some malic", number=1),
            Sent(b"ious", DROPPED_BY_1, 2),
            Sent(b"ious", DROPPED_BY_1, 2),
            Sent(b"ious", DROPPED_BY_1, 77),
            Sent(b"other", number=2),
            Sent(b"ious", number=3),
        ),
    ),
    Story(
        "a chunk that comes twice is inspected twice: the second of the same number hides nothing "
        "and does not take the place of the first; with another content it is not wholly "
        "inspected; what is sealed is sealed anew each time",
        (MALICIOUS,),
        (
            Sent(b"some malic", number=1),
            Sent(b"some malic", number=1),
            Sent(b"harmless", OTHER_CONTENT, 1),
            Sent(b"malicious", DROPPED_BY_1, 1),
            Sent(b"ious", DROPPED_BY_1, 2),
            Sent(b"one", number=9, kind=PayloadType.SEALED),
            Sent(b"two", number=9, kind=PayloadType.SEALED),
            Sent(b"three", number=9, kind=PayloadType.COMPRESSED),
            Sent(b"four", number=9, kind=PayloadType.COMPRESSED),
        ),
    ),
    Story(
        "chunks lie beside each other by their numbers, of whatever type they are; empty ones "
        "join what is on both sides of them",
        (MALICIOUS,),
        (
            Sent(b"ious", number=2),
            Sent(b"some malic", DROPPED_BY_1, 1, kind=99),
            Sent(b"ious", number=13),
            Sent(b"", number=12, kind=99),
            Sent(b"some malic", DROPPED_BY_1, 11),
            Sent(b"ious", number=23, kind=99),
            Sent(b"some malic", number=21),
            Sent(b"", DROPPED_BY_1, 22),
        ),
    ),
    Story(
        "data of files lie at their offsets: between two parts stand their heads, and chunks of "
        "other transfers",
        (MALICIOUS,),
        (
            of_file(5, 1, 10_000, b"ious"),
            of_file(6, 2, 9_994, b"some malic"),
            of_file(7, 2, 20_000, b"malic"),
            of_file(8, 1, 9_995, b"malic", dropped=True),
            of_file(9, 2, 10_004, b"ious", dropped=True),
        ),
    ),
    Story(
        "each stream of each session lies by itself, whatever chunk its data come in",
        (MALICIOUS,),
        (
            streams(Data(1, 0, (b"some malic",)), Data(2, 0, (b"mali",))),
            streams(Data(2, 10, (b"ious",))),
            streams(Data(1, 10, (b"ious",)), session=2),
            streams(Data(3, 0, (b"new",)), Data(1, 10, (b"ious",)), dropped=DROPPED_BY_1),
            streams(Data(1, 10, (b"ious and on",)), dropped=DROPPED_BY_1),
        ),
    ),
    Story(
        "parts of one chunk lie beside each other, too, and none is kept if it is dropped",
        (MALICIOUS,),
        (
            streams(Data(5, 0, (b"some malic",)), Data(5, 10, (b"ious",)), dropped=DROPPED_BY_1),
            streams(Data(6, 10, (b"ious",)), Data(6, 0, (b"some malic",)), dropped=DROPPED_BY_1),
            streams(Data(5, 10, (b"ious",)), Data(6, 0, (b"some mal",))),
        ),
    ),
    Story(
        "parts are sent again together with what follows, or with a byte of what came before",
        (MALICIOUS,),
        (
            streams(Data(7, 0, (b"some",)), Data(8, 5, (b"x",))),
            streams(Data(7, 0, (b"some malic",)), Data(8, 0, (b"some x malic",))),
            streams(Data(7, 10, (b"ious",)), dropped=DROPPED_BY_1),
            streams(Data(7, 9, (b"cious",)), dropped=DROPPED_BY_1),
            streams(Data(8, 12, (b"ious",)), dropped=DROPPED_BY_1),
        ),
    ),
    Story(
        "a mark set by one chunk is asked by later ones of the same flow, in either direction",
        (
            f'alert {HEAD} (content:"login"; flowbits:set,in; flowbits:noalert; sid:1;)',
            f'alert {HEAD} (content:"secret"; flowbits:isset,in; flow:to_client,established; '
            "sid:2;)",
            f'alert {HEAD} (content:"secret"; flowbits:isnotset,in; sid:3;)',
            f'alert {HEAD} (content:"bye"; flowbits:unset,in; flowbits:noalert; sid:4;)',
            f'alert {HEAD} (content:"flip"; flowbits:toggle,in; flowbits:noalert; sid:5;)',
        ),
        (
            between(b"secret", A, B),
            between(b"login", A, B),
            between(b"secret", A, B),
            between(b"secret", B, A),
            between(b"secret", A, C),
            between(b"bye", A, B),
            between(b"secret", B, A),
            between(b"flip", A, B),
            between(b"secret", B, A),
        ),
        (3, 2, 3, 3, 2),
    ),
    Story(
        "what is over a rate is dropped; each source has its own bucket",
        (
            f'rate-limit {HEAD} (msg:"slowly"; content:"query"; '
            "rate: track by_src, chunks 3, seconds 1000; sid:1;)",
        ),
        (
            *[Sent(b"query")] * 3,
            *[Sent(b"query", "ids: sid 1: slowly")] * 3,
            Sent(b"query", source=GUID(b"\x05" * 20)),
            Sent(b"other"),
        ),
    ),
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.says[:40])
def test_what_becomes_of_chunks(place: Place, story: Story) -> None:
    """Each of the stories, chunk by chunk."""
    harness = place.start(*story.rules, **story.settings)
    for chunk in story.chunks:
        chunk.check(harness)
    if story.sids is not None:
        assert tuple(place.sids()) == story.sids
    if story.actions is not None:
        assert tuple(one["alert"]["action"] for one in place.told()) == story.actions


def test_a_content_over_a_border_is_found(place: Place) -> None:
    """In order, out of order, byte by byte; without borders, the control, it is not."""
    harness, control = place.start(MALICIOUS), place.start(border_bytes=0)
    pieces = [b"some malic", b"ious bytes"]
    for source, order in ((A, [0, 1]), (B, [1, 0])):
        for number, is_found in zip(order, [False, True], strict=True):
            chunk = Sent(pieces[number], is_found, 100 + number, source)
            chunk.check(harness)
            chunk._replace(dropped=False).check(control)
    for number, byte in enumerate(b"malicious"):
        Sent(bytes([byte]), number == 8, number, C).check(harness)
    assert all(one["over_border"] for one in place.told())


@pytest.mark.parametrize("overload", ["drop", "forward"])
def test_a_decoy_that_no_host_takes_hides_nothing(place: Place, overload: str) -> None:
    """It bears the number of the chunk that follows it, and a wrong digest; or none, and expires.
    It takes no place, or what follows is known for another content; either way it is told."""
    harness = place.start(MALICIOUS, on_overload=overload)

    def send(number: int, payload: bytes, digest: PayloadDigest | None = None) -> ProcessResult:
        header = ChunkHeader(
            HARNESS_SOURCE, HARNESS_DESTINATION, ChunkId(number), len(payload), digest=digest
        )
        return harness.process_chunk(header, payload)

    wrong = PayloadDigest(DigestAlgorithm.SHA256, bytes(32))
    right = PayloadDigest(
        DigestAlgorithm.BLAKE2B_256, hashlib.blake2b(b"some malic", digest_size=32).digest()
    )
    decoy = send(1, b"harmless", wrong)
    assert decoy.reason == (
        "ids: its digest is not that of its payload" if overload == "drop" else ""
    )
    assert not is_dropped(send(1, b"some malic", right))
    assert is_dropped(send(2, b"ious"))
    assert not is_dropped(send(11, b"harmless"))
    assert is_dropped(send(11, b"some malic")) == (overload == "drop")
    assert place.events() == ["wrong_digest", "other_content"]


def test_what_no_host_takes_says_nothing_about_its_flow(place: Place) -> None:
    """A chunk with a wrong digest neither sets nor clears what rules ask; with the right one, or
    none, it does."""
    harness = place.start(
        f'alert {HEAD} (content:"login"; flowbits:set,in; flowbits:noalert; sid:1;)',
        f'alert {HEAD} (content:"bye"; flowbits:unset,in; flowbits:noalert; sid:2;)',
        f'drop {HEAD} (content:"secret"; flowbits:isset,in; sid:3;)',
        on_overload="forward",
    )
    wrong = PayloadDigest(DigestAlgorithm.SHA256, bytes(32))

    def is_secret_dropped_behind(payload: bytes, digest: PayloadDigest | None) -> bool:
        number = ChunkId(1)
        header = ChunkHeader(A, B, number, len(payload), digest=digest)
        assert not is_dropped(harness.process_chunk(header, payload))
        return is_dropped(harness.process(b"secret", source=A, destination=B))

    assert not is_secret_dropped_behind(b"login", wrong)
    assert is_secret_dropped_behind(b"login", None)
    assert is_secret_dropped_behind(b"bye", wrong)
    assert not is_secret_dropped_behind(b"bye", None)


@pytest.mark.parametrize("others_count", [63, 64])
def test_a_run_that_is_forgotten_is_told(place: Place, others_count: int) -> None:
    """All streams of a host are one flow: with one more than are followed it is an anomaly."""
    harness = place.start(MALICIOUS, max_runs=64)
    streams(Data(1, 0, (b"some malic",))).check(harness)
    for stream in range(2, 2 + others_count):
        streams(Data(stream, 0, (b"x",))).check(harness)
    is_known = others_count < 64
    streams(Data(1, 10, (b"ious",)), dropped=is_known).check(harness)
    # The one that comes back takes the place of another: that is counted, not told again.
    assert place.events() == ([] if is_known else ["border_forgotten"])
    assert ids_of(harness).stats()["borders_forgotten"] == (0 if is_known else 2)
