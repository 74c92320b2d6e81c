"""Counts by number: they count, and take eight bytes for each."""

from __future__ import annotations

from packetcloud.router.rules.number_counts import NumberCounts


def test_numbers_are_counted() -> None:
    """Each for itself, zero before, and zero again once it is forgotten."""
    counts = NumberCounts()
    for number in (0, 255, 256, 0, 0xFFFF_FFFF):
        counts.add(number)
    assert [counts.of(number) for number in (0, 1, 255, 256, 512, 0xFFFF_FFFF)] == [
        2,
        0,
        1,
        1,
        0,
        1,
    ]
    counts.forget(0)
    counts.forget(512)
    assert [counts.of(0), counts.of(255)] == [0, 1]


def test_a_count_takes_eight_bytes() -> None:
    """Numbers that follow each other share pages; a page that counts nothing is given back."""
    counts = NumberCounts()
    for number in range(10_240):
        counts.add(number)
    assert counts.array_bytes == 8 * 10_240
    for number in range(10_240):
        counts.forget(number)
    assert counts.array_bytes == 0
