"""secure-communication: for how long what was sealed may be opened, and pairs within pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.secure_communication import service
from packetcloud.services.secure_communication.freshness import (
    TRAILER_BYTES,
    Trailer,
)
from packetcloud.services.secure_communication.keys import create_key_file, load_key_file
from packetcloud.services.secure_communication.sealing import (
    UNTIMED_VERSION,
    SealingKey,
)
from packetcloud.services.secure_communication.suites import DamagedPayloadError
from packetcloud.services.testing import (
    HARNESS_DESTINATION,
    HARNESS_SOURCE,
    ProcessResult,
    ServiceHarness,
)

SEALED = PayloadType.SEALED
START_S = 1_800_000_000.0


class Sites:
    """Encrypters and decrypters that share key files, and a clock that the test sets."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.wall_s = START_S
        self._folder = folder
        self._stack = stack

    def start(self, direction: str, keys: str = "keys", **more: str) -> ServiceHarness:
        file = self._folder / keys
        if not file.exists():
            create_key_file(file)
        settings = {"direction": direction, "key_file": str(file)} | more
        return self._stack.enter_context(ServiceHarness("secure-communication", settings))

    def key(self) -> SealingKey:
        return SealingKey.of(load_key_file(self._folder / "keys")[0])


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sites]:
    with ExitStack() as stack:
        found = Sites(tmp_path, stack)
        monkeypatch.setattr(service, "wall_clock_s", lambda: found.wall_s)
        yield found


def sealed(result: ProcessResult) -> bytes:
    assert (result.code, result.payload_type) == (VerdictCode.UPDATE, SEALED), result.reason
    return result.payload


LATER = [
    # lifetime when it was sealed, seconds later, lifetime then, reason, sent again
    (60_000, 0, 60_000, "", False),
    (60_000, 45, 15_000, "", False),
    (60_000, 0, 70_000, "", False),
    (60_000, 0, 50_000, "", False),
    (60_000, 69, 1_000, "", False),
    (60_000, -10, 60_000, "", False),
    (None, 0, None, "", False),
    (None, 610, None, "", False),
    (60_000, 71, 1, "sealed too long ago: 11.0 s after its lifetime", False),
    (60_000, 300, 60_000, "sealed too long ago: 240.0 s after its lifetime", False),
    (None, 611, None, "sealed too long ago: 11.0 s after its lifetime", False),
    (60_000, -10.5, 60_000, "sealed in the future: 10.5 s by the clock here", True),
    (
        60_000,
        0,
        70_001,
        "not the lifetime that was sealed: 10.0 s longer; altered, or clocks differ",
        True,
    ),
    (
        60_000,
        30,
        15_000,
        "not the lifetime that was sealed: 15.0 s shorter; altered, or clocks differ",
        True,
    ),
    (60_000, 1, None, "not the lifetime that was sealed: only one of both has an end", True),
    (None, 1, 60_000, "not the lifetime that was sealed: only one of both has an end", True),
]


@pytest.mark.parametrize(("then_ms", "later_s", "now_ms", "reason", "again"), LATER)
def test_what_is_opened_when(
    sites: Sites,
    then_ms: int | None,
    later_s: float,
    now_ms: int | None,
    reason: str,
    again: bool,
) -> None:
    """While the lifetime that was sealed lasts, if the chunk says what is left of it; as often as
    it comes, for routers may give a chunk to two VIs."""
    payload = sealed(sites.start("encrypt").process(b"x", chunk_id=1, lifetime_ms=then_ms))
    opener = sites.start("decrypt", tolerance_s="10", links_s="0")
    sites.wall_s += later_s
    for _ in range(2):
        result = opener.process(payload, chunk_id=1, lifetime_ms=now_ms, payload_type=SEALED)
        assert (result.reason, result.again) == (reason, again)
        assert (result.code is VerdictCode.UPDATE) is not bool(reason)


def test_a_smaller_tolerance(sites: Sites) -> None:
    """Where clocks are known to agree; and links take their time, which only makes it longer."""
    payload = sealed(sites.start("encrypt").process(b"x", chunk_id=1, lifetime_ms=60_000))
    opener = sites.start("decrypt", tolerance_s="2", links_s="30")
    for lifetime_ms, is_opened in (
        (58_000, True),
        (92_000, True),
        (57_999, False),
        (92_001, False),
    ):
        result = opener.process(payload, chunk_id=1, lifetime_ms=lifetime_ms, payload_type=SEALED)
        assert (result.code is VerdictCode.UPDATE) is is_opened


def test_format_2_is_read_only_if_asked(sites: Sites) -> None:
    """It has no time in it: taken unasked, it would be a way around what format 3 checks."""
    sites.start("encrypt")
    bound = HARNESS_SOURCE.value + (4).to_bytes(8, "big") + HARNESS_DESTINATION.value
    output = memoryview(bytearray(200))
    (key,) = load_key_file(sites._folder / "keys")
    length = sites.key().seal(
        key.key_id, memoryview(b"older"), b"\xc8", bound, output, UNTIMED_VERSION
    )
    older = bytes(output[:length])
    result = sites.start("decrypt").process(older, chunk_id=4, payload_type=SEALED)
    assert result.reason == "encrypted by another suite"
    reader = sites.start("decrypt", format_2="decrypt")
    result = reader.process(older, chunk_id=4, payload_type=SEALED)
    assert (result.payload, result.payload_type) == (b"older", 0xC8)
    assert reader.process(older, chunk_id=5, payload_type=SEALED).reason == "authentication failed"
    # The version is authenticated: what has a time cannot be made into what has none.
    newer = bytearray(sealed(sites.start("encrypt").process(b"newer", chunk_id=4)))
    assert reader.process(newer, chunk_id=4, payload_type=SEALED).payload == b"newer"
    newer[2] = UNTIMED_VERSION
    assert reader.process(newer, chunk_id=4, payload_type=SEALED).reason == "authentication failed"


@pytest.mark.parametrize("lifetime_ms", [None, 0, 1, 0xFFFF_FFFF])
def test_a_trailer_comes_back(lifetime_ms: int | None) -> None:
    """Also of a chunk without a lifetime, which is not the same as one that has ended."""
    trailer = Trailer(200, 1_800_000_000_123, lifetime_ms)
    assert len(trailer.to_bytes()) == TRAILER_BYTES
    assert Trailer.from_bytes(trailer.to_bytes()) == trailer


def test_flags_that_are_not_known_are_refused() -> None:
    """A later format may mean something by them."""
    data = bytearray(Trailer(0, 0, None).to_bytes())
    data[1] = 0x02
    with pytest.raises(DamagedPayloadError, match="unknown flags: 0x02"):
        Trailer.from_bytes(bytes(data))


def test_pairs_within_pairs(sites: Sites) -> None:
    """What others sealed is sealed once more, and comes back as it was; what has been sealed under
    one of the own keys is not. The inner payload and type come back at the end."""
    inner, outer = sites.start("encrypt", "branch"), sites.start("encrypt", "carrier")
    inner_opens, outer_opens = sites.start("decrypt", "branch"), sites.start("decrypt", "carrier")

    def goes(through: ServiceHarness, payload: bytes, kind: int) -> ProcessResult:
        return through.process(payload, chunk_id=3, payload_type=kind, lifetime_ms=60_000)

    once = sealed(goes(inner, b"secret", 200))
    assert goes(inner, once, SEALED).code is VerdictCode.FORWARD
    twice = sealed(goes(outer, once, SEALED))
    assert goes(outer, twice, SEALED).code is VerdictCode.FORWARD
    assert goes(inner_opens, twice, SEALED).reason.startswith("unknown key")
    back = goes(outer_opens, twice, SEALED)
    assert sealed(back) == once
    last = goes(inner_opens, back.payload, SEALED)
    assert (last.payload, last.payload_type) == (b"secret", 200)
