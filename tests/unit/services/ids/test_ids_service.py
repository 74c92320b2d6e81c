"""The ids service in its harness: what is dropped, told, counted, and kept over changes."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import stamp_of
from packetcloud.services.ids import versions
from packetcloud.services.ids.borders import RUN_BYTES
from packetcloud.services.ids.errors import UnreadableFileError
from packetcloud.services.testing import HARNESS_DESTINATION, HARNESS_SOURCE
from tests.unit.services.ids.ids_place import (
    HEAD,
    MALICIOUS,
    Place,
    ids_of,
    is_dropped,
)

COLLECTOR = GUID(b"\xcc" * 20)


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
    assert "expected source" in service._watcher.last_problem
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
    """Those of the flows heard of last travel; the marks of all do, and that ends are missing."""
    from packetcloud.services.ids import state

    monkeypatch.setattr(state, "MAX_ENDS_BYTES", 120 + RUN_BYTES)
    rules = MALICIOUS
    first, second = place.start(rules), place.start()
    one, two = (GUID(bytes([number]) * 20) for number in (1, 2))
    for source in (one, two):
        first.process(b"some malic".rjust(30), chunk_id=1, source=source)
    second.service.import_state(first.service.export_state())
    assert not is_dropped(second.process(b"ious", chunk_id=2, source=one))
    assert is_dropped(second.process(b"ious", chunk_id=2, source=two))
    assert ids_of(second).stats()["flows"] == 2
    assert place.events() == ["border_forgotten"]


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
