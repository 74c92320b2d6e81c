"""Frames of the channel: any bytes are a frame, or one named error; caps hold exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.domain_controller.channel import frames
from packetcloud.domain_controller.channel.schema import SCHEMA_FILE, schema_text
from packetcloud.domain_controller.core.cloudlets import MAX_SEQUENCE
from packetcloud.domain_controller.errors import FrameError

REPORT = {"kind": "report", "sequence": 1, "nodes": []}
NODE = {"name": "n1", "capacity": {"milli_cpus": 1000}}
RECORD = {
    "meter": "m",
    "number": 1,
    "previous": "0" * 64,
    "reservation": "r-1",
    "terms": 1,
    "kind": "vi-time",
    "begin_ms": 0,
    "end_ms": 1000,
    "quantity": 1000,
    "signature": "0" * 128,
}
ANSWER = {"kind": "answer", "epoch": 1, "reservation": "r", "number": 1, "is_accepted": True}


def _usage(count: int) -> dict[str, Any]:
    return {"kind": "usage", "records": [RECORD] * count}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\xff", "json"),
        ("", "json"),
        ("[" * 100_000, "json"),
        ('{"kind": "report", "sequence": ' + "9" * 9000 + ', "nodes": []}', "json"),
        ("[]", "schema"),
        ("{}", "schema"),
        ({**REPORT, "kind": "welcome"}, "schema"),
        ({**REPORT, "more": 1}, "schema"),
        ({**REPORT, "sequence": True}, "schema"),
        ({**REPORT, "sequence": 1.0}, "schema"),
        ({**REPORT, "sequence": -1}, "schema"),
        ({**REPORT, "sequence": MAX_SEQUENCE + 1}, "schema"),
        ({**REPORT, "nodes": [{**NODE, "name": "N 1"}]}, "schema"),
        ({**REPORT, "nodes": [{**NODE, "capacity": {"milli_cpus": -1}}]}, "schema"),
        ({**REPORT, "nodes": [NODE] * (frames.MAX_NODES_COUNT + 1)}, "schema"),
        ({**REPORT, "hosts": ["0" * 40] * (frames.MAX_HOSTS_COUNT + 1)}, "schema"),
        ({**ANSWER, "text": "x" * (frames.MAX_LINE_CHARS + 1)}, "schema"),
        (_usage(0), "schema"),
        (_usage(frames.MAX_RECORDS_COUNT + 1), "schema"),
        ({"kind": "usage", "records": [{**RECORD, "signature": "0" * 127}]}, "schema"),
        ({"kind": "usage", "records": [RECORD], "signature": "0" * 128}, "schema"),
    ],
)
def test_what_is_no_frame(frame: Any, reason: str) -> None:
    """One error, with the reason by which it is counted, and a short text."""
    text = frame if isinstance(frame, str | bytes) else json.dumps(frame)
    with pytest.raises(FrameError) as found:
        frames.decode_up(text)
    assert found.value.reason == reason
    assert len(str(found.value)) < 400


@pytest.mark.parametrize(
    "frame",
    [
        {**REPORT, "sequence": MAX_SEQUENCE},
        {**REPORT, "nodes": [NODE] * frames.MAX_NODES_COUNT},
        {**REPORT, "hosts": ["0" * 40] * frames.MAX_HOSTS_COUNT},
        {**ANSWER, "text": "x" * frames.MAX_LINE_CHARS},
        _usage(1),
        _usage(frames.MAX_RECORDS_COUNT),
    ],
)
def test_frames_at_their_caps(frame: Any) -> None:
    """As much as may be is read, and comes out as it went in."""
    read = frames.decode_up(json.dumps(frame))
    assert frames.decode_up(frames.encode(read)) == read


def test_the_size_of_a_frame_has_a_cap() -> None:
    """At the cap it is looked at, beyond it is not."""
    padded = json.dumps(REPORT).ljust(frames.MAX_FRAME_BYTES)
    assert frames.decode_up(padded)
    for more in (padded + " ", padded.encode() + b" "):
        with pytest.raises(FrameError) as found:
            frames.decode_up(more)
        assert found.value.reason == "size"


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes(data: bytes | str) -> None:
    for decode in (frames.decode_up, frames.decode_down):
        with pytest.raises(FrameError):
            decode(data)


def test_the_published_schema_is_that_of_the_code() -> None:
    """Made anew by: python3 -m packetcloud.domain_controller.channel.schema."""
    assert SCHEMA_FILE.read_text() == schema_text()
