"""Fillers of the caps of the table of rules. Source: router/caps.py."""

from __future__ import annotations

import tempfile
from pathlib import Path

from packetcloud.router.rules.number_counts import MAX_PAGES_COUNT, PAGE_COUNT, NumberCounts
from packetcloud.router.rules.segment import MAX_KEPT_COUNT, Segment
from packetcloud.router.rules.table import MAX_RANKED_COUNT, Table
from tests.unit.caps.filled import Filled, fills
from tests.unit.router.rules.table_rules import ask, installed, name, numbers, segment

RUN_COUNT = 1024
"""Rules of one destination: as many as there may be."""
RUNS_COUNT = MAX_KEPT_COUNT // RUN_COUNT


def long_runs() -> Segment:
    """Rules that fill what is kept, and of two destinations more."""
    with tempfile.TemporaryDirectory() as folder:
        rules = (
            installed(number, destinations=[name(number // RUN_COUNT)], size_min=1)
            for number in range((RUNS_COUNT + 2) * RUN_COUNT)
        )
        return segment(Path(folder), rules)


def first_of(table: Table, run: int) -> bool:
    """Ask for a destination; tell whether the answer is right."""
    found = numbers(ask(table, destination=name(run)))
    return found == list(range(run * RUN_COUNT, (run + 1) * RUN_COUNT))


@fills("router", "rules of long runs kept of one segment")
def kept_runs() -> Filled:
    loaded = long_runs()
    table = Table(1, [loaded])
    for run in range(RUNS_COUNT):
        assert first_of(table, run)
    at_cap, counted = loaded.kept_count, loaded.unkept_count
    others = first_of(table, RUNS_COUNT) and first_of(table, 0)
    beyond, counted_beyond = loaded.kept_count, loaded.unkept_count
    loaded.close()
    left = loaded.kept_count
    return Filled(MAX_KEPT_COUNT, at_cap, counted, beyond, counted_beyond, others, left)


@fills("router", "policies kept of one segment")
def kept_policies() -> Filled:
    with tempfile.TemporaryDirectory() as folder:
        rules = (
            installed(number, destinations=[name(number)], priority=number)
            for number in range(MAX_KEPT_COUNT + 1)
        )
        loaded = segment(Path(folder), rules)
    for index in range(MAX_KEPT_COUNT):
        loaded.effect(index)
    at_cap, counted = len(loaded.effects), loaded.forgotten_count
    table = Table(1, [loaded])
    last = MAX_KEPT_COUNT
    others = all(numbers(ask(table, destination=name(one))) == [one] for one in (last, 0))
    beyond, counted_beyond = len(loaded.effects), loaded.forgotten_count
    loaded.close()
    left = len(loaded.effects)
    return Filled(MAX_KEPT_COUNT, at_cap, counted, beyond, counted_beyond, others, left)


@fills("router", "ranked rules kept of one version")
def kept_rankings() -> Filled:
    loaded = long_runs()
    table = Table(1, [loaded])
    for run in range(MAX_RANKED_COUNT // RUN_COUNT):
        assert first_of(table, run)
    at_cap, counted = table.ranked_count, table.forgotten_count
    others = first_of(table, RUNS_COUNT) and first_of(table, 0)
    beyond, counted_beyond = table.ranked_count, table.forgotten_count
    left = Table(2, [loaded]).ranked_count
    loaded.close()
    return Filled(MAX_RANKED_COUNT, at_cap, counted, beyond, counted_beyond, others, left)


@fills("router", "pages of rules that are counted by number")
def counted_pages() -> Filled:
    counts = NumberCounts()
    for page in range(MAX_PAGES_COUNT):
        counts.add(page * PAGE_COUNT)
    at_cap, counted = len(counts._pages), counts.uncounted_count
    counts.add(MAX_PAGES_COUNT * PAGE_COUNT)
    counts.add(1)
    others = counts.of(1) == 1
    beyond, counted_beyond = len(counts._pages), counts.uncounted_count
    for page in range(MAX_PAGES_COUNT):
        counts.keep_only(page, bytes(PAGE_COUNT // 8))
    left = len(counts._pages)
    return Filled(MAX_PAGES_COUNT, at_cap, counted, beyond, counted_beyond, others, left)
