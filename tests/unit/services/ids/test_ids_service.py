"""The ids service in its harness: what is dropped, told, counted, and kept over changes."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.header import ChunkHeader, DigestAlgorithm, PayloadDigest, PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.streams.wire import Data, Message, MessageKind, encode_message
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import stamp_of
from packetcloud.services.ids import versions
from packetcloud.services.ids.borders import RUN_BYTES
from packetcloud.services.ids.errors import UnreadableFileError
from packetcloud.services.ids.service import Ids
from packetcloud.services.testing import (
    HARNESS_DESTINATION,
    HARNESS_SOURCE,
    ProcessResult,
    ServiceHarness,
)

COLLECTOR = GUID(b"\xcc" * 20)
HEAD = "chunk any any -> any any"


class Place:
    """A started service, its rule file and its alerts."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.rules = folder / "site.rules"
        self.alerts = folder / "alerts.json"
        self._stack = stack

    def write(self, *lines: str) -> None:
        self.rules.write_text("\n".join(lines) + "\n")

    def start(self, *lines: str, **settings: object) -> ServiceHarness:
        if lines:
            self.write(*lines)
        values = {"rules": self.rules, "alert_file": self.alerts, "stats_interval_s": 0} | settings
        texts = {key: str(value) for key, value in values.items() if value is not None}
        return self._stack.enter_context(ServiceHarness("ids", texts))

    def told(self, event_type: str = "alert") -> list[dict[str, Any]]:
        documents = [json.loads(line) for line in self.alerts.read_text().splitlines()]
        return [one for one in documents if one["event_type"] == event_type]

    def sids(self) -> list[int]:
        return [one["alert"]["signature_id"] for one in self.told()]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


def ids_of(harness: ServiceHarness) -> Ids:
    assert isinstance(harness.service, Ids)
    return harness.service


def is_dropped(result: ProcessResult) -> bool:
    assert result.code in (VerdictCode.DROP, VerdictCode.FORWARD), result.reason
    return result.code is VerdictCode.DROP


def test_an_alert_says_who_what_and_why(place: Place) -> None:
    """The chunk goes on; the line has the keys of Suricata's, with GUIDs for addresses."""
    harness = place.start(
        f'alert {HEAD} (msg:"Evil \\"bytes\\""; content:"evil"; sid:7; rev:3; gid:2; '
        "classtype:trojan-activity; metadata:tag a, tag b;)",
        payload_excerpt_bytes=6,
    )
    assert harness.process(b"good").code is VerdictCode.FORWARD
    assert harness.process(b"some evil here", chunk_id=99).code is VerdictCode.FORWARD
    (line,) = place.told()
    assert line.pop("timestamp").endswith("+0000")
    assert line.pop("flow_id") < 1 << 53
    assert line.pop("host")
    assert line == {
        "event_type": "alert",
        "src_guid": HARNESS_SOURCE.hex,
        "dest_guid": HARNESS_DESTINATION.hex,
        "proto": "CHUNK",
        "direction": "to_server",
        "chunk_id": "99",
        "payload_type": 0,
        "payload_bytes": 14,
        "payload": "c29tZSBl",
        "alert": {
            "action": "allowed",
            "gid": 2,
            "signature_id": 7,
            "rev": 3,
            "signature": 'Evil "bytes"',
            "category": "Trojan activity",
            "severity": 1,
            "metadata": {"tag": ["a", "b"]},
        },
    }


def test_actions_have_their_order(place: Place) -> None:
    """pass goes before drop, drop and alert both tell; the source hears the rule that dropped."""
    harness = place.start(
        f'alert {HEAD} (content:"bad"; sid:1;)',
        f'drop {HEAD} (msg:"no bad"; content:"bad"; sid:2;)',
        f'reject {HEAD} (msg:"no worse"; content:"worse"; sid:3;)',
        f'pass {HEAD} (content:"but fine"; sid:4;)',
    )
    dropped = harness.process(b"bad")
    assert (dropped.code, dropped.reason) == (VerdictCode.DROP, "ids: sid 2: no bad")
    assert harness.process(b"worse").reason == "ids: sid 3: no worse"
    assert not is_dropped(harness.process(b"bad but fine"))
    assert place.sids() == [2, 1, 3]
    assert [one["alert"]["action"] for one in place.told()] == ["blocked", "allowed", "blocked"]


def test_rules_are_about_guids(place: Place) -> None:
    """Source, destination, both ways, lists from the parameters."""
    a, b, c = (GUID(bytes([number]) * 20) for number in (1, 2, 3))
    harness = place.start(
        f'drop chunk {a} any -> {b} any (content:"x"; sid:1;)',
        'drop chunk $SERVERS any <> !$SERVERS any (content:"y"; sid:2;)',
        lists=f"SERVERS=[{a},{b}]",
    )

    def drops(payload: bytes, source: GUID, destination: GUID) -> bool:
        return is_dropped(harness.process(payload, source=source, destination=destination))

    assert drops(b"x", a, b)
    assert not drops(b"x", b, a)
    assert drops(b"y", a, c)
    assert drops(b"y", c, a)
    assert not drops(b"y", a, b)


def test_a_content_over_a_border_is_found(place: Place) -> None:
    """In order, out of order, byte by byte; without borders, the control, it is not."""
    rule = f'drop {HEAD} (content:"malicious"; sid:1;)'
    harness = place.start(rule)
    control = place.start(border_bytes=0)
    pieces = [b"some malic", b"ious bytes"]
    for order in ([0, 1], [1, 0]):
        base = 100 * (order[0] + 1)
        source = GUID(bytes([base % 251]) * 20)
        results = [harness.process(pieces[n], chunk_id=base + n, source=source) for n in order]
        assert [is_dropped(one) for one in results] == [False, True]
        results = [control.process(pieces[n], chunk_id=base + n, source=source) for n in order]
        assert not any(map(is_dropped, results))
    source = GUID(b"\x77" * 20)
    single = [b"malicious"[n : n + 1] for n in range(9)]
    results = [harness.process(piece, chunk_id=n, source=source) for n, piece in enumerate(single)]
    assert [is_dropped(one) for one in results] == [False] * 8 + [True]
    assert all(one["over_border"] for one in place.told())


def test_a_chunk_that_was_dropped_is_no_neighbour(place: Place) -> None:
    """It is sent again with another number, and found again; what goes on is remembered."""
    harness = place.start(f'drop {HEAD} (content:"malicious"; sid:1;)')
    assert not is_dropped(harness.process(b"some malic", chunk_id=1))
    assert is_dropped(harness.process(b"ious", chunk_id=2))
    assert is_dropped(harness.process(b"ious", chunk_id=2))
    assert is_dropped(harness.process(b"ious", chunk_id=77))
    assert not is_dropped(harness.process(b"other", chunk_id=2))
    assert not is_dropped(harness.process(b"ious", chunk_id=3))


def test_a_chunk_that_comes_twice_is_inspected_twice(place: Place) -> None:
    """The second of the same number hides nothing, and does not take the place of the first; with
    another content it is not wholly inspected."""
    harness = place.start(f'drop {HEAD} (content:"malicious"; sid:1;)')
    assert not is_dropped(harness.process(b"some malic", chunk_id=1))
    assert not is_dropped(harness.process(b"some malic", chunk_id=1))
    other = harness.process(b"harmless", chunk_id=1)
    assert other.reason == "ids: another content where one was before"
    assert is_dropped(harness.process(b"malicious", chunk_id=1))
    assert is_dropped(harness.process(b"ious", chunk_id=2))
    # What is sealed is sealed anew each time.
    for sealed in (b"one", b"two"):
        for kind in (PayloadType.SEALED, PayloadType.COMPRESSED):
            assert not is_dropped(harness.process(sealed, chunk_id=9, payload_type=kind))


@pytest.mark.parametrize("overload", ["drop", "forward"])
def test_a_decoy_that_no_host_takes_hides_nothing(place: Place, overload: str) -> None:
    """It bears the number of the chunk that follows it, and a wrong digest; or none, and expires.
    It takes no place, or what follows is known for another content; either way it is told."""
    harness = place.start(f'drop {HEAD} (content:"malicious"; sid:1;)', on_overload=overload)

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
    events = [one["anomaly"]["event"] for one in place.told("anomaly")]
    assert events == ["wrong_digest", "other_content"]


def test_data_of_files_lie_at_their_offsets(place: Place) -> None:
    """Between two parts of a file stand their heads, and chunks of other transfers."""
    from packetcloud.host.file_format import data_header

    harness = place.start(f'drop {HEAD} (content:"malicious"; sid:1;)')

    def send(number: int, transfer: bytes, offset: int, data: bytes) -> bool:
        payload = data_header(transfer, offset) + data
        header = ChunkHeader(
            HARNESS_SOURCE,
            HARNESS_DESTINATION,
            ChunkId(number),
            len(payload),
            payload_type=PayloadType.FILE,
        )
        return is_dropped(harness.process_chunk(header, payload))

    one, other = b"\x01" * 16, b"\x02" * 16
    assert not send(5, one, 10_000, b"ious")
    assert not send(6, other, 9_994, b"some malic")
    assert not send(7, other, 20_000, b"malic")
    assert send(8, one, 9_995, b"malic")
    assert send(9, other, 10_004, b"ious")


def test_streams_lie_at_their_offsets(place: Place) -> None:
    """Each stream of each session by itself, whatever chunk its data come in."""
    harness = place.start(f'drop {HEAD} (content:"malicious"; sid:1;)')

    def send(number: int, *frames: Data, session: int = 1) -> ProcessResult:
        payload = encode_message(Message(MessageKind.REQUEST, session, number, frames))
        header = ChunkHeader(
            HARNESS_SOURCE,
            HARNESS_DESTINATION,
            ChunkId(number),
            len(payload),
            payload_type=PayloadType.STREAM,
        )
        return harness.process_chunk(header, payload)

    assert not is_dropped(send(1, Data(1, 0, (b"some malic",)), Data(2, 0, (b"mali",))))
    assert not is_dropped(send(2, Data(2, 10, (b"ious",))))
    assert not is_dropped(send(3, Data(1, 10, (b"ious",)), session=2))
    assert is_dropped(send(4, Data(3, 0, (b"new",)), Data(1, 10, (b"ious",))))
    assert is_dropped(send(5, Data(1, 10, (b"ious and on",))))
    # Parts of one chunk lie beside each other, too, and none of them is kept if it is dropped.
    assert is_dropped(send(8, Data(5, 0, (b"some malic",)), Data(5, 10, (b"ious",))))
    assert is_dropped(send(9, Data(6, 10, (b"ious",)), Data(6, 0, (b"some malic",))))
    assert not is_dropped(send(10, Data(5, 10, (b"ious",)), Data(6, 0, (b"some mal",))))
    # Sent again together with what follows it, or with a byte of what came before.
    assert not is_dropped(send(11, Data(7, 0, (b"some",)), Data(8, 5, (b"x",))))
    assert not is_dropped(send(12, Data(7, 0, (b"some malic",)), Data(8, 0, (b"some x malic",))))
    assert is_dropped(send(13, Data(7, 10, (b"ious",))))
    assert is_dropped(send(14, Data(7, 9, (b"cious",))))
    assert is_dropped(send(15, Data(8, 12, (b"ious",))))


@pytest.mark.parametrize("others_count", [63, 64])
def test_a_run_that_is_forgotten_is_told(place: Place, others_count: int) -> None:
    """All streams of a host are one flow: with one more than are followed it is an anomaly."""
    harness = place.start(f'drop {HEAD} (content:"malicious"; sid:1;)', max_runs=64)

    def send(number: int, frame: Data) -> bool:
        payload = encode_message(Message(MessageKind.REQUEST, 1, number, (frame,)))
        header = ChunkHeader(
            HARNESS_SOURCE,
            HARNESS_DESTINATION,
            ChunkId(number),
            len(payload),
            payload_type=PayloadType.STREAM,
        )
        return is_dropped(harness.process_chunk(header, payload))

    assert not send(1, Data(1, 0, (b"some malic",)))
    for stream in range(2, 2 + others_count):
        assert not send(stream, Data(stream, 0, (b"x",)))
    is_found = send(100, Data(1, 10, (b"ious",)))
    events = [one["anomaly"]["event"] for one in place.told("anomaly")]
    if others_count < 64:
        assert is_found and not events
    else:
        # The one that comes back takes the place of another: that is counted, not told again.
        assert not is_found and events == ["border_forgotten"]
        assert ids_of(harness).stats()["borders_forgotten"] == 2


def test_marks_and_directions_of_flows(place: Place) -> None:
    """A mark set by one chunk is asked by later ones of the same flow, in either direction."""
    harness = place.start(
        f'alert {HEAD} (content:"login"; flowbits:set,in; flowbits:noalert; sid:1;)',
        f'alert {HEAD} (content:"secret"; flowbits:isset,in; flow:to_client,established; sid:2;)',
        f'alert {HEAD} (content:"secret"; flowbits:isnotset,in; sid:3;)',
        f'alert {HEAD} (content:"bye"; flowbits:unset,in; flowbits:noalert; sid:4;)',
        f'alert {HEAD} (content:"flip"; flowbits:toggle,in; flowbits:noalert; sid:5;)',
    )
    a, b, c = (GUID(bytes([number]) * 20) for number in (1, 2, 3))
    harness.process(b"secret", source=a, destination=b)
    harness.process(b"login", source=a, destination=b)
    harness.process(b"secret", source=a, destination=b)
    harness.process(b"secret", source=b, destination=a)
    harness.process(b"secret", source=a, destination=c)
    harness.process(b"bye", source=a, destination=b)
    harness.process(b"secret", source=b, destination=a)
    harness.process(b"flip", source=a, destination=b)
    harness.process(b"secret", source=b, destination=a)
    assert place.sids() == [3, 2, 3, 3, 2]


def test_rates_are_limited(place: Place) -> None:
    """What is over the rate is dropped; each source has its own bucket."""
    harness = place.start(
        "rate-limit chunk any any -> any any "
        '(msg:"slowly"; content:"query"; rate: track by_src, chunks 3, seconds 1000; sid:1;)'
    )
    results = [is_dropped(harness.process(b"query")) for _ in range(5)]
    assert results == [False, False, False, True, True]
    assert harness.process(b"query").reason == "ids: sid 1: slowly"
    assert not is_dropped(harness.process(b"query", source=GUID(b"\x05" * 20)))
    assert not is_dropped(harness.process(b"other"))


def test_rules_are_switched_while_chunks_go_on(place: Place) -> None:
    """A new file is in force with the next chunk, a wrong one never; marks and borders stay."""
    harness = place.start(
        f'alert {HEAD} (content:"login"; flowbits:set,in; flowbits:noalert; sid:1;)',
        f'drop {HEAD} (content:"old"; sid:2;)',
    )
    service = ids_of(harness)
    assert is_dropped(harness.process(b"old"))
    harness.process(b"login, and ne", chunk_id=50)
    place.write("alert nonsense")
    assert not service._watcher.look()
    assert "unknown protocol" in service._watcher.last_problem or service._watcher.last_problem
    assert is_dropped(harness.process(b"old", chunk_id=60))
    place.write(
        f'drop {HEAD} (content:"new"; sid:3;)',
        f'drop {HEAD} (content:"secret"; flowbits:isset,in; sid:4;)',
    )
    assert service._watcher.look()
    assert not service._watcher.look()
    assert not is_dropped(harness.process(b"old", chunk_id=70))
    assert is_dropped(harness.process(b"secret", chunk_id=71))
    assert is_dropped(harness.process(b"w", chunk_id=51))
    stats = service.stats()
    assert (stats["rules"], stats["rules_switched"], stats["rules_not_taken"]) == (2, 1, 1)


def test_the_thread_finds_a_new_file_by_itself(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to ask; what chunks are under way goes on meanwhile."""
    monkeypatch.setattr(versions, "LOOK_INTERVAL_S", 0.01)
    harness = place.start(f'drop {HEAD} (content:"old"; sid:1;)')
    place.write(f'drop {HEAD} (content:"new"; sid:1;)')
    end = time.monotonic() + 20
    while not is_dropped(harness.process(b"new")):
        assert time.monotonic() < end, "the new rules were not taken in time"
    assert not is_dropped(harness.process(b"old"))


def watched(folder: Path) -> versions.Watcher:
    """Return a watcher of a rule file, without its thread."""
    (folder / "r").write_text(f'drop {HEAD} (content:"old"; sid:1;)')
    how = versions.Reading({}, widens=False, skips=False)
    return versions.Watcher(folder / "r", how, logging.getLogger("test.ids"))


def test_a_fault_does_not_end_the_watching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and told like a file that is not taken, and the next file is."""
    watcher = watched(tmp_path)

    def at_fault(*_: object, **__: object) -> versions.Version:
        raise RuntimeError("nobody thought of this")

    with monkeypatch.context() as patch:
        patch.setattr(versions, "load_version", at_fault)
        (tmp_path / "r").write_text(f'drop {HEAD} (content:"newer"; sid:1;)')
        assert not watcher.look()
    assert (watcher.failed_count, watcher.last_problem) == (1, "nobody thought of this")
    assert "nobody thought of this" in caplog.text
    (tmp_path / "r").write_text(f'drop {HEAD} (content:"the newest"; sid:1;)')
    assert watcher.look()
    assert watcher.take() is not None


def test_a_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it does not change any more; counted and told once. One that is refused is not read
    again, until its mode changes at least."""
    watcher = watched(tmp_path)

    def too_many(path: Path) -> bytes:
        raise UnreadableFileError(f"cannot read rule file {path}: Too many open files")

    (tmp_path / "r").write_text(f'drop {HEAD} (content:"newer"; sid:1;)')
    with monkeypatch.context() as patch:
        patch.setattr(versions, "read_file", too_many)
        assert not any(watcher.look() for _ in range(3))
    assert watcher.failed_count == caplog.text.count("Too many open files") == 1
    assert watcher.look()
    assert watcher.last_problem == ""
    assert not watcher.look()
    (tmp_path / "r").write_text("nonsense")
    assert not watcher.look()
    reads: list[Path] = []

    def reading(path: Path) -> bytes:
        reads.append(path)
        return b"nonsense"

    monkeypatch.setattr(versions, "read_file", reading)
    assert not watcher.look() and not reads
    before, end = stamp_of(tmp_path / "r"), time.monotonic() + 10
    while stamp_of(tmp_path / "r") == before:  # a kernel's clock may stand still for some ms
        assert time.monotonic() < end
        (tmp_path / "r").chmod(0o600)
    assert not watcher.look() and len(reads) == 1
    assert watcher.failed_count == 3


def test_state_goes_to_the_successor(place: Place) -> None:
    """Marks, windows, buckets and ends of chunks; a damaged one is refused."""
    rules = (
        f'alert {HEAD} (content:"login"; flowbits:set,in; flowbits:noalert; sid:1;)',
        f'drop {HEAD} (content:"secret"; flowbits:isset,in; sid:2;)',
        f'drop {HEAD} (content:"three"; sid:3; '
        "threshold:type threshold, track by_src, count 3, seconds 900;)",
        f'rate-limit {HEAD} (content:"query"; rate: track by_src, chunks 1, seconds 900; sid:4;)',
        f'drop {HEAD} (content:"malicious"; sid:5;)',
    )
    first = place.start(*rules)
    for number, payload in enumerate((b"login", b"three", b"three", b"query", b"malic"), 1):
        assert not is_dropped(first.process(payload, chunk_id=number))
    state = first.service.export_state()
    second = place.start()
    second.service.import_state(state)
    assert is_dropped(second.process(b"ious", chunk_id=6))
    for payload in (b"secret", b"three", b"query"):
        assert is_dropped(second.process(payload, chunk_id=40))
    fresh = place.start()
    for number, payload in enumerate((b"ious", b"secret", b"three", b"query"), 6):
        assert not is_dropped(fresh.process(payload, chunk_id=number))
    for damaged in (b"x", state[:-3], state[:9] + b"?" + state[10:]):
        with pytest.raises(ServiceConfigError, match="state of an ids service"):
            fresh.service.import_state(damaged)
    fresh.service.import_state(b"")


def test_alerts_go_to_the_collector(place: Place) -> None:
    """Beside a chunk that goes on; those of chunks that are dropped with the next one."""
    harness = place.start(
        f'alert {HEAD} (content:"look"; sid:1;)',
        f'drop {HEAD} (content:"bad"; sid:2;)',
        collector=COLLECTOR,
        alert_file=None,
    )
    assert harness.process(b"bad").code is VerdictCode.DROP
    result = harness.process(b"look at this")
    assert (result.code, result.keep) == (VerdictCode.EMIT, True)
    (chunk,) = result.emitted
    assert chunk.header.destination == COLLECTOR
    lines = [json.loads(line) for line in chunk.payload.splitlines()]
    assert [one["alert"]["signature_id"] for one in lines] == [2, 1]
    assert harness.process(b"nothing").code is VerdictCode.FORWARD


def test_a_long_line_keeps_no_other_back(place: Place) -> None:
    """It waits for a chunk beside which it has room."""
    long = "x" * 500
    harness = place.start(
        f'alert {HEAD} (msg:"{long}"; content:"one"; metadata:a {long}; sid:1;)',
        f'alert {HEAD} (msg:"short"; content:"two"; sid:2;)',
        collector=COLLECTOR,
    )
    found: list[int] = []
    for payload in (b"one", b"two", b"small", b"large" * 200):
        for chunk in harness.process(payload).emitted:
            lines = [json.loads(line) for line in chunk.payload.splitlines()]
            found += [one["alert"]["signature_id"] for one in lines]
    assert found == [2, 1]


def test_ends_of_chunks_that_are_too_many_stay_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the flows heard of last travel; the marks of all do."""
    from packetcloud.services.ids import state

    monkeypatch.setattr(state, "MAX_ENDS_BYTES", 120 + RUN_BYTES)
    rules = f'drop {HEAD} (content:"malicious"; sid:1;)'
    first, second = place.start(rules), place.start()
    one, two = (GUID(bytes([number]) * 20) for number in (1, 2))
    for source in (one, two):
        first.process(b"some malic".rjust(30), chunk_id=1, source=source)
    second.service.import_state(first.service.export_state())
    assert not is_dropped(second.process(b"ious", chunk_id=2, source=one))
    assert is_dropped(second.process(b"ious", chunk_id=2, source=two))
    assert ids_of(second).stats()["flows"] == 2


def test_alerts_keep_to_their_rate(place: Place) -> None:
    """More are counted; chunks are dropped all the same."""
    harness = place.start(f'drop {HEAD} (content:"bad"; sid:1;)', alerts_per_s=50)
    assert all(is_dropped(harness.process(b"bad")) for _ in range(50))
    stats = ids_of(harness).stats()
    assert len(place.told()) == stats["alerts"]
    assert 5 <= len(place.told()) < 50
    assert stats["alerts_suppressed"] == 50 - len(place.told())


def test_the_file_of_alerts_is_turned_over(tmp_path: Path) -> None:
    """It and one older one are there, no larger than asked for."""
    from packetcloud.services.ids.outlet import LineFile

    file = LineFile(tmp_path / "a", 1000, logging.getLogger("test"))
    for number in range(100):
        file.write(b"%050d" % number)
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.1"]
    old, new = ((tmp_path / name).read_bytes() for name in ("a.1", "a"))
    assert max(len(old), len(new)) <= 1000
    assert (old + new).endswith(b"".join(b"%050d\n" % number for number in range(80, 100)))
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_loses_lines_and_no_chunk(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and every line counted."""
    from packetcloud.services.ids.outlet import LineFile

    file = LineFile(Path("/dev/full"), 1000, logging.getLogger("test"))
    file.write(b"one")
    file.write(b"two")
    file.close()
    assert file.lost_count == 2
    assert len([one for one in caplog.records if "lines are lost" in one.message]) == 1


def test_statistics(place: Place) -> None:
    """At the end at the latest, with everything that is counted."""
    harness = place.start(f'alert {HEAD} (content:"bad"; sid:1;)', stats_interval_s=3600)
    harness.process(b"bad")
    harness.process(b"good")
    harness.service.stop()
    (line,) = place.told("stats")
    found = line["stats"]["ids"]
    assert (found["chunks"], found["bytes"], found["matches"], found["alerts"]) == (2, 7, 1, 1)
    assert (
        found["rules_digest"] == versions.hashlib.sha256(place.rules.read_bytes()).hexdigest()[:16]
    )
    harness.service.start(harness._context)


@pytest.mark.parametrize(
    ("lines", "settings", "reason"),
    [
        (None, {}, "no rule file"),
        (["# nothing"], {}, "has no rule"),
        (["alert tcp any any -> any any (sid:1;)"], {}, "line 1, column 7: protocol tcp"),
        ([f"alert {HEAD} (sid:1; ttl:1;)"], {}, "service ids check"),
        ([f'alert {HEAD} (pcre:"/(a/"; sid:1;)'], {}, "sid 1: pcre: Hyperscan cannot take it"),
        ([f'alert {HEAD} (pcre:"/(?=a)b/"; sid:1;)'], {}, "sid 1: pcre: Hyperscan"),
        ([f'alert {HEAD} (pcre:"/(a)\\1/"; sid:1;)'], {}, "sid 1: pcre: Hyperscan"),
        ([f"alert {HEAD} (sid:1;)"], {"collector": "nobody"}, "collector = 'nobody'"),
        ([f"alert {HEAD} (sid:1;)"], {"lists": "X"}, "lists: 'X'"),
        ([f"alert {HEAD} (sid:1;)"], {"alert_file": "/proc/x"}, "alert_file /proc/x"),
    ],
)
def test_what_it_does_not_start_with(
    place: Place, lines: list[str] | None, settings: dict[str, str], reason: str
) -> None:
    """One line that says what to change."""
    with pytest.raises(ServiceConfigError) as caught:
        place.start(*(lines or ()), **settings)
    assert reason in str(caught.value)


def test_refused_lines_can_be_skipped(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """If that is wanted; each is logged, and their number told."""
    harness = place.start(
        "alert tcp any any -> any any (sid:1;)",
        f'drop {HEAD} (content:"bad"; sid:2;)',
        f'drop {HEAD} (pcre:"/(?=b)/"; sid:3;)',
        on_refused="skip",
    )
    assert is_dropped(harness.process(b"bad"))
    stats = ids_of(harness).stats()
    assert (stats["rules"], stats["rules_refused"]) == (1, 2)
    assert len([one for one in caplog.records if "skipped" in one.message]) == 2
