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


def test_only_some_numbers_of_a_page_are_kept() -> None:
    """The others begin again with zero; other pages, and pages that were never counted, stay."""
    counts = NumberCounts()
    for number in (0, 1, 8, 255, 256):
        counts.add(number)
    counts.keep_only(0, (1 << 1 | 1 << 255).to_bytes(32, "little"))
    counts.keep_only(7, bytes(32))
    assert [counts.of(number) for number in (0, 1, 8, 255, 256)] == [0, 1, 0, 1, 1]
    counts.add(8)
    assert [counts.of(8), counts.pages()] == [1, [0, 1]]


def test_a_count_takes_eight_bytes() -> None:
    """Numbers that follow each other share pages; a page that counts nothing is given back."""
    counts = NumberCounts()
    for number in range(10_240):
        counts.add(number)
    assert counts.array_bytes == 8 * 10_240
    for page in counts.pages():
        counts.keep_only(page, bytes(32))
    assert counts.array_bytes == 0
