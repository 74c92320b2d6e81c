"""Replays: the chunks of a capture through a service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.captured import CapturedChunk
from packetcloud.chunk.header import ServiceParameters, decode_header
from packetcloud.chunk.names import SID
from packetcloud.services.catalogue import find_service
from packetcloud.services.replay import ReplayReport, run_replay
from tests.unit.router.router_fakes import S, chunk
from tests.unit.services.test_service_trial import MANIFEST, MODULE


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service that does what the payload says."""
    (tmp_path / "odd_service.py").write_text(MODULE)
    path = tmp_path / "manifest.toml"
    path.write_text(MANIFEST.format(name="Deciding"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "odd_service", raising=False)
    return path


def captured(
    payload: bytes, number: int = 1, kept: int | None = None, at_s: float = 0.0, **changes: Any
) -> CapturedChunk:
    header = decode_header(chunk(payload=payload, chunk_id=number, **changes))
    return CapturedChunk(number, int(at_s * 1e9), header, payload[:kept], "taken")


def replay(odd: Path, chunks: Sequence[CapturedChunk], **options: Any) -> ReplayReport:
    return run_replay(find_service(str(odd)), {}, chunks, **options)


def test_each_chunk_has_its_verdict(odd: Path) -> None:
    """In the order of the capture, with what the verdict says and how much would leave."""
    words = [b"go", b"", b"fail", b"emit", b"redirect"]
    report = replay(odd, [captured(word, number) for number, word in enumerate(words, 1)])
    assert [(one.code.name.lower(), one.what) for one in report.chunks] == [
        ("forward", ""),
        ("drop", "no word"),
        ("failed", "RuntimeError: as told"),
        ("emit", "1 chunks as well"),
        ("redirect", f"to {'61' * 20}"),
    ]
    assert [one.output_bytes for one in report.chunks] == [2, 0, 0, 7, 8]
    assert report.failed_count == 1
    document = report.to_dict()
    assert document["verdicts"] == dict.fromkeys(
        ("forward", "drop", "failed", "emit", "redirect"), 1
    )


def test_a_chunk_comes_with_its_own_header(odd: Path) -> None:
    """Source and parameters are those of the capture: the service has the SID that was asked."""
    parameters = (ServiceParameters(S, b"for you"),)
    report = replay(odd, [captured(b"echo", services=(S,), parameters=parameters)])
    assert [(one.code.name, one.output_bytes) for one in report.chunks] == [("UPDATE", 7)]
    other = (ServiceParameters(SID(b"t" * 20), b"not for you"),)
    report = replay(odd, [captured(b"echo", services=(S,), parameters=other)])
    assert report.chunks[0].output_bytes == 0


def test_cut_off_chunks_are_skipped_and_counted(odd: Path) -> None:
    """A service never sees half a payload; the limit counts what it saw."""
    chunks = [
        captured(b"go", 1, kept=1),
        captured(b"go", 2),
        captured(b"go", 3),
        captured(b"go", 4),
    ]
    report = replay(odd, chunks, limit=2)
    assert report.cut_off_count == 1
    assert [one.packet for one in report.chunks] == [2, 3]
    assert report.to_dict()["skipped"] == {"cut_off": 1, "refused": {}}


def test_what_the_runtime_refuses_is_told(odd: Path) -> None:
    """A payload over the limit does not end the replay."""
    report = replay(odd, [captured(bytes(2 << 20), 1), captured(b"go", 2)])
    assert len(report.chunks) == 1
    assert report.refused == {"the runtime refuses this chunk: payload_too_large": 1}


def test_an_empty_capture_is_an_empty_report(odd: Path) -> None:
    """The service is not even started."""
    assert replay(odd, []).chunks == []


def test_the_pace_is_that_of_the_capture(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At speed 2 the waits are half as long as in the capture; without a speed there are none."""
    clock = [100.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(round(seconds, 6))
        clock[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    chunks = [captured(b"go", number, at_s=10.0 + number) for number in (1, 2, 5)]
    replay(odd, chunks, speed=2.0)
    assert waits == [0.0, 0.5, 1.5]
    replay(odd, chunks)
    assert len(waits) == 3
