"""Ranges of the bytes of a file."""

from __future__ import annotations

import itertools
import random

from packetcloud.host.ranges import RangeSet


def test_ranges_agree_with_a_set_of_bytes() -> None:
    """Against the obvious model, over random ranges."""
    rng = random.Random(1)
    for _ in range(200):
        ranges, model = RangeSet(), set[int]()
        for _ in range(rng.randrange(12)):
            start = rng.randrange(60)
            end = rng.randrange(start, 61)
            ranges.add(start, end)
            model |= set(range(start, end))
        assert {i for start, end in ranges for i in range(start, end)} == model
        pairs = list(ranges)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(pairs))
        assert ranges.total_bytes == len(model)
        missing = {i for start, end in ranges.missing(60) for i in range(start, end)}
        assert missing == set(range(60)) - model
        start, end = sorted(rng.sample(range(61), 2))
        assert ranges.covers(start, end) == (set(range(start, end)) <= model)
        first = next((i for i in range(62) if i not in model), 0)
        assert ranges.end_of_first() == first


def test_take_first_hands_out_everything_once() -> None:
    """All bytes, in order, no piece over the length asked for."""
    ranges = RangeSet([(0, 10), (20, 23)])
    pieces = []
    while (piece := ranges.take_first(4)) is not None:
        pieces.append(piece)
    assert pieces == [(0, 4), (4, 8), (8, 10), (20, 23)]
