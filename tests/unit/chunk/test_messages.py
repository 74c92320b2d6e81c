"""Tasks, verdicts and delivery reports: caps, our own mistakes, what a peer's bytes may say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.messages import (
    MAX_DETAIL_BYTES,
    MAX_REPORT_ENTRIES,
    TASK_BYTES,
    VERDICT_BYTES,
    BodyKind,
    DeliveryReport,
    Outcome,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
    decode_reports,
    encode_reports,
)
from packetcloud.chunk.names import NA, ChunkId
from tests.vectors.chunk_v1_valid import DESTINATION, good_verdicts


def test_numbers_on_the_wire_are_fixed() -> None:
    """Peers of other versions rely on these numbers."""
    assert [int(kind) for kind in BodyKind] == [1, 2, 3]
    assert [int(code) for code in VerdictCode] == [1, 2, 3, 4, 5, 6]
    assert [int(outcome) for outcome in Outcome] == [1, 2, 3]
    assert (TASK_BYTES, VERDICT_BYTES) == (16, 24)


@pytest.mark.parametrize("wrong", [(-1, 0), (2**64, 0), (0, -1), (0, 2**32)])
def test_a_task_fits_its_fields(wrong: tuple[int, int]) -> None:
    """Numbers out of range are our own mistake, never a struct.error."""
    with pytest.raises(LocalMisuseError):
        TaskHeader(*wrong).to_bytes()


def test_a_task_stands_before_its_chunk() -> None:
    """Only the first 16 bytes are read, from any buffer."""
    wire = TaskHeader(7, 30_000).to_bytes() + b"chunk"
    for data in (wire, bytearray(wire), memoryview(wire)):
        assert TaskHeader.from_bytes(data) == TaskHeader(7, 30_000)


@pytest.mark.parametrize("name", good_verdicts())
def test_a_verdict_says_where_its_payload_begins(name: str) -> None:
    """`encoded_bytes` is the length of head and detail; the payload follows and is not read."""
    verdict = good_verdicts()[name]
    wire = verdict.to_bytes()
    assert verdict.encoded_bytes == len(wire)
    assert VerdictHeader.from_bytes(memoryview(wire + b"payload")) == verdict


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_id": -1},
        {"task_id": 2**64},
        {"processing_ns": -1},
        {"processing_ns": 2**64},
        {"emit_count": -1},
        {"emit_count": 2**32},
        {"code": 256},
        {"detail": bytes(MAX_DETAIL_BYTES + 1)},
        {"code": VerdictCode.REDIRECT, "detail": bytes(23)},
        {"code": VerdictCode.REDIRECT, "detail": bytes(25)},
    ],
    ids=str,
)
def test_a_verdict_fits_its_fields(wrong: dict[str, Any]) -> None:
    """Values that no router would accept are our own mistake."""
    verdict = VerdictHeader(1, VerdictCode.FORWARD, 1)
    with pytest.raises(LocalMisuseError):
        replace(verdict, **wrong).to_bytes()


def test_a_detail_has_at_most_512_bytes() -> None:
    """512 travel (513: see the vectors and above)."""
    verdict = VerdictHeader(1, VerdictCode.DROP, 1, bytes(MAX_DETAIL_BYTES))
    assert VerdictHeader.from_bytes(verdict.to_bytes()) == verdict


def test_a_redirect_names_its_target() -> None:
    """GUID and NA come back as they were given."""
    verdict = VerdictHeader.redirect(4, 9, DESTINATION, NA(77))
    assert VerdictHeader.from_bytes(verdict.to_bytes()).redirect_target == (DESTINATION, NA(77))


def test_reports_are_batched() -> None:
    """Entries keep their order and their values; no entry is no bytes."""
    entries = [
        DeliveryReport(ChunkId(number), Outcome(1 + number % 3), number % 256, "x" * (number % 9))
        for number in range(300)
    ]
    assert decode_reports(memoryview(encode_reports(entries))) == entries
    assert decode_reports(encode_reports([])) == []


def test_a_report_has_at_most_4096_entries() -> None:
    """4096 travel; 4097 are neither encoded nor accepted."""
    entry = DeliveryReport(ChunkId(1), Outcome.DELIVERED)
    full = encode_reports([entry] * MAX_REPORT_ENTRIES)
    assert len(decode_reports(full)) == MAX_REPORT_ENTRIES
    with pytest.raises(LocalMisuseError):
        encode_reports([entry] * (MAX_REPORT_ENTRIES + 1))
    with pytest.raises(ProtocolError, match="over 4096 entries"):
        decode_reports(full + encode_reports([entry]))


@pytest.mark.parametrize("reason", [-1, 256])
def test_a_report_fits_its_fields(reason: int) -> None:
    """A reason has 8 bits."""
    with pytest.raises(LocalMisuseError):
        encode_reports([DeliveryReport(ChunkId(1), Outcome.REFUSED, reason)])


@pytest.mark.parametrize("lead", range(4))
@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_a_long_detail_is_cut_between_characters(letter: str, lead: int) -> None:
    """At most 512 bytes and as many whole characters as fit.

    Regression: a character cut in two came out as a replacement character.
    """
    text = "a" * lead + letter * 600
    report = DeliveryReport(ChunkId(1), Outcome.REFUSED, 1, text)
    [decoded] = decode_reports(encode_reports([report]))
    assert text.startswith(decoded.detail)
    assert MAX_DETAIL_BYTES - 4 < len(decoded.detail.encode()) <= MAX_DETAIL_BYTES


def test_a_detail_that_is_no_text_is_still_told() -> None:
    """A lone surrogate (a file name from the system, say) does not stop the report."""
    [decoded] = decode_reports(
        encode_reports([DeliveryReport(ChunkId(1), Outcome.REFUSED, 1, "bad \udcff name")])
    )
    assert decoded.detail == "bad ? name"


def test_a_damaged_detail_is_refused() -> None:
    """Bytes that are not UTF-8 are refused, so that one report has one encoding.

    Regression: they were replaced, and encoding the result gave other bytes.
    """
    good = encode_reports([DeliveryReport(ChunkId(1), Outcome.REFUSED, 1, "ab")])
    with pytest.raises(ProtocolError, match="not UTF-8"):
        decode_reports(good[:-1] + b"\xc3")
