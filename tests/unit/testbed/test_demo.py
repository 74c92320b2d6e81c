"""The demonstration's file, and what it calls lost, doubled or altered."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packetcloud.testbed.demo.payload import BLOCK_BYTES, make_payload_file, parse_bytes, sha256_of
from packetcloud.testbed.demo.result import ScenarioResult

SUMS = {
    "taken_in": 10,
    "originated": 1,
    "sent_on": 0,
    "delivered": 11,
    "replaced": 0,
    "refused": 0,
    "expired": 0,
    "dropped": 0,
    "held": 0,
    "balance": 0,
}
FINE = ScenarioResult(
    name="plain",
    sha256="ab",
    sent={"bytes": 1000, "seconds": 0.5, "sha256": "ab"},
    received={"bytes": 1000, "sha256": "ab"},
    conservation=SUMS,
)


def _service(**changes: Any) -> dict[str, Any]:
    times = {"p50_s": 0.002, "p99_s": 0.004}
    return {
        "processing": times,
        "delivery": times,
        "delay_penalty": times,
        "skipped": 0,
        **changes,
    }


def test_a_journey_without_fault_has_no_problems() -> None:
    """Goodput counts the file's bytes."""
    assert FINE.problems == []
    assert FINE.to_document()["ok"]
    assert FINE.goodput_gbps == pytest.approx(1000 * 8e-9 / 0.5)


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (replace(FINE, received={"bytes": 1000, "sha256": "cd"}), "altered"),
        (replace(FINE, sha256="cd"), "altered"),
        (replace(FINE, received={"bytes": 999, "sha256": "ab"}), "lost or doubled"),
        (replace(FINE, conservation=SUMS | {"delivered": 10}), "lost or doubled"),
        (replace(FINE, conservation=SUMS | {"delivered": 12}), "lost or doubled"),
        (replace(FINE, conservation=SUMS | {"balance": 1}), "lost or doubled"),
        (replace(FINE, conservation=SUMS | {"delivered": 10, "refused": 1}), "given up"),
        (replace(FINE, conservation=SUMS | {"delivered": 10, "expired": 1}), "given up"),
        (replace(FINE, conservation=SUMS | {"delivered": 10, "dropped": 1}), "given up"),
        (replace(FINE, conservation=SUMS | {"delivered": 10, "held": 1}), "still held"),
        (replace(FINE, services={"compress": _service(skipped=3)}), "skipped"),
    ],
)
def test_every_fault_is_named(broken: ScenarioResult, word: str) -> None:
    """Nothing that was lost, doubled, altered or left out passes as fine."""
    assert word in " ".join(broken.problems)
    assert not broken.to_document()["ok"]


def test_the_report_has_each_services_times_in_ms() -> None:
    """Processing, delivery and delay penalty stand beside the router's own figures."""
    document = replace(FINE, services={"encrypt": _service()}).to_document()
    (service,) = document["services"]
    assert service["service"] == "encrypt"
    assert service["processing_p50_ms"] == pytest.approx(2.0)
    assert service["delay_penalty_p99_ms"] == pytest.approx(4.0)


def test_the_file_is_half_compressible_and_the_same_every_time(tmp_path: Path) -> None:
    """Every chunk has its half of text; the size is exact."""
    first, second = tmp_path / "1", tmp_path / "2"
    size = 16 * BLOCK_BYTES + 17
    make_payload_file(first, size)
    make_payload_file(second, size)
    data = first.read_bytes()
    assert len(data) == size
    assert sha256_of(first) == sha256_of(second)
    for start in range(0, 16 * BLOCK_BYTES, 2 * BLOCK_BYTES):
        pair = data[start : start + 2 * BLOCK_BYTES]
        assert 0.5 < len(zlib.compress(pair, 1)) / len(pair) < 0.8


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MiB", 256 << 20),
        ("1 GiB", 1 << 30),
        ("0.5gib", 1 << 29),
        ("1000000", 10**6),
        ("8MB", 8 * 10**6),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Binary and decimal units, in any case."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 parsec", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The error names what is allowed."""
    with pytest.raises(ValueError, match="256MiB"):
        parse_bytes(text)
