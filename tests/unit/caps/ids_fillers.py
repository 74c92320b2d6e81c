"""Fillers of the caps of the ids service. Source: services/caps.py."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.services.ids.borders import DEFAULT_MAX_RUNS_COUNT, RUN_BYTES, Place
from packetcloud.services.ids.flows import (
    DEFAULT_MAX_FLOWS_COUNT,
    FLOW_SHARE,
    MAX_MARKS_COUNT,
    FlowTable,
)
from packetcloud.services.ids.inspection import MAX_ALERTS_COUNT, Inspection
from packetcloud.services.ids.outlet import MAX_QUEUED_BYTES, Outlet
from packetcloud.services.ids.rates import Rates
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.ruleset import compile_rules
from packetcloud.services.ids.shares import MAX_SHARES_COUNT, AlertShares
from tests.unit.caps.filled import Filled, fills

HEAD = "alert chunk any any -> any any"
EDGE_BYTES = 1000


def inspection(*rules: str, flows: FlowTable | None = None, max_counted: int = 100) -> Inspection:
    ruleset, refused = compile_rules(read_rules("\n".join(rules).encode(), {}))
    assert not refused
    table = FlowTable(100, 1 << 20, 0) if flows is None else flows
    return Inspection(ruleset, table, Rates(max_counted))


def give(to: Inspection, sources: Iterable[int], payload: bytes = b"x", number: int = 1) -> int:
    """Inspect a chunk of each source; return how many alerts there were."""
    alerts = 0
    for source in sources:
        header = ChunkHeader(
            GUID(source.to_bytes(20, "big")), GUID(b"\xdd" * 20), ChunkId(number), len(payload)
        )
        alerts += len(to.inspect(header, memoryview(payload), 0.0).alerts)
    return alerts


@fills("services", "flows that an ids service knows")
def flows() -> Filled:
    """Chunks come from more and more sources."""
    limit = 500
    table = FlowTable(limit, 1 << 20, 0)
    judge = inspection(f'{HEAD} (content:"x"; sid:1;)', flows=table)
    give(judge, range(1, limit + 1))
    at_cap, counted = len(table), table.forgotten_flows_count
    give(judge, range(limit + 1, 2 * limit))
    beyond, counted_beyond = len(table), table.forgotten_flows_count
    assert limit < DEFAULT_MAX_FLOWS_COUNT
    return Filled(limit, at_cap, counted, beyond, counted_beyond, give(judge, [7]) == 1, 0)


@fills("services", "ends of chunks that an ids service keeps")
def ends() -> Filled:
    """Each source sends one chunk whose neighbour never comes."""
    limit = 300 * EDGE_BYTES
    table = FlowTable(10_000, limit, EDGE_BYTES)
    judge = inspection(f'{HEAD} (content:"malicious"; sid:1;)', flows=table)
    kept_bytes = 3 * EDGE_BYTES + 20 + RUN_BYTES
    payload = bytes(5000)
    give(judge, range(1, limit // kept_bytes + 1), payload)
    at_cap, counted = table.kept_bytes, table.forgotten_borders_count
    highest = at_cap
    for source in range(1000, 1300):
        give(judge, [source], payload)
        highest = max(highest, table.kept_bytes)
    counted_beyond = table.forgotten_borders_count
    give(judge, [1], b"malic", 8)
    goes_on = give(judge, [1], b"ious", 9) == 1
    held = sum(flow.kept_bytes for _, flow in table.items())
    return Filled(
        limit,
        at_cap,
        counted,
        highest,
        counted_beyond,
        goes_on,
        held - table.kept_bytes,
        kept_bytes,
    )


def gaps(table: FlowTable, first: int, end: int, size: int) -> tuple[int, int, int]:
    """Send chunks that leave a gap each; return runs, bytes and what was forgotten."""
    flow, side = table.heard(b"a" * 20, b"b" * 20)
    for number in range(first, end):
        passage = table.passage(flow, side, 0.0)
        passage.meet(
            Place(b"c", 2 * number * size, (2 * number + 1) * size, memoryview(bytes(size)))
        )
        table.remember(flow, side, passage)
    return len(flow.to_server), flow.to_server.kept_bytes, table.forgotten_borders_count


def goes_on_after(table: FlowTable, number: int, size: int) -> bool:
    """Tell whether the last chunk is known, and another flow's is kept."""
    flow, side = table.heard(b"a" * 20, b"b" * 20)
    end = (2 * number + 1) * size
    beside = Place(b"c", end, end + 1, memoryview(b"y"))
    other, other_side = table.heard(b"d" * 20, b"b" * 20)
    passage = table.passage(other, other_side, 0.0)
    passage.meet(beside)
    table.remember(other, other_side, passage)
    return bool(table.passage(flow, side, 0.0).meet(beside)) and len(other.to_server) == 1


@fills("services", "runs of one flow that an ids service follows")
def runs() -> Filled:
    """A source leaves a gap after each chunk."""
    limit = 100
    table = FlowTable(10, 8 << 20, EDGE_BYTES, limit)
    at_cap, _, counted = gaps(table, 0, limit, 1)
    beyond, _, counted_beyond = gaps(table, limit, limit + 20, 1)
    assert limit < DEFAULT_MAX_RUNS_COUNT
    goes_on = goes_on_after(table, limit + 19, 1)
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("services", "ends of chunks of one direction of a flow")
def share() -> Filled:
    """The same with large chunks: its own ends are forgotten, nobody else's."""
    run_bytes = 2 * EDGE_BYTES + 20 + RUN_BYTES
    limit = 30 * run_bytes
    table = FlowTable(10, FLOW_SHARE * limit, EDGE_BYTES)
    _, at_cap, counted = gaps(table, 0, 30, 5000)
    _, beyond, counted_beyond = gaps(table, 30, 60, 5000)
    goes_on = goes_on_after(table, 59, 5000)
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, 0, run_bytes)


@fills("services", "marks of one flow")
def marks() -> Filled:
    """One flow matches many rules that each set another mark."""
    rules = [
        f'{HEAD} (content:"mark{number:02d}"; flowbits:set,m{number}; sid:{number + 1};)'
        for number in range(MAX_MARKS_COUNT + 10)
    ]
    judge = inspection(*rules, f'{HEAD} (content:"ask"; flowbits:isset,m0; sid:900;)')

    def send(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            give(judge, [1], b"mark%02d" % number)
        ((_, flow),) = judge.flows.items()
        return len(flow.marks), judge.flows.unmarked_count

    at_cap, counted = send(0, MAX_MARKS_COUNT)
    beyond, counted_beyond = send(MAX_MARKS_COUNT, MAX_MARKS_COUNT + 10)
    goes_on = give(judge, [1], b"ask") == 1
    return Filled(MAX_MARKS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("services", "windows and buckets of an ids service")
def windows() -> Filled:
    """A rule that counts by source matches chunks of more and more of them."""
    limit = 300
    rule = f'{HEAD} (content:"x"; threshold:type limit, track by_src, count 1, seconds 60; sid:1;)'
    judge = inspection(rule, max_counted=limit)
    give(judge, range(1, limit + 1))
    at_cap, counted = len(judge.rates), judge.rates.forgotten_count
    give(judge, range(limit + 1, 2 * limit))
    beyond, counted_beyond = len(judge.rates), judge.rates.forgotten_count
    goes_on = give(judge, [limit]) == 0 and give(judge, [9999]) == 1
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("services", "alerts of one chunk")
def alerts() -> Filled:
    """One chunk matches more and more rules."""
    rules = [f'{HEAD} (content:"{chr(97 + number)}"; sid:{number + 1};)' for number in range(26)]
    judge = inspection(*rules)
    letters = bytes(range(97, 97 + 26))
    at_cap = give(judge, [1], letters[:MAX_ALERTS_COUNT])
    counted = judge.counts["alerts_of_one_chunk_dropped"]
    beyond = give(judge, [1], letters)
    counted_beyond = judge.counts["alerts_of_one_chunk_dropped"]
    goes_on = give(judge, [2], b"a") == 1
    return Filled(MAX_ALERTS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("services", "shares of alerts of an ids service")
def shares() -> Filled:
    """More and more sources have something to tell."""
    limit = MAX_SHARES_COUNT
    table = AlertShares(10_000_000)

    def tell(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            assert table.take((1, 1), b"%d" % number, 0.0) == 0
        return len(table), table.forgotten_count

    at_cap, counted = tell(0, limit)
    beyond, counted_beyond = tell(limit, limit + 50)
    goes_on = table.take((1, 2), b"a", 0.0) == 0
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("services", "lines that wait for a collector")
def lines() -> Filled:
    """Every chunk is dropped, so that no line can go with one."""
    outlet = Outlet(
        None, logging.getLogger("test.caps"), logs=False, collects=True, lines_per_s=1000
    )
    line = b"x" * 1023

    def write(count: int) -> tuple[int, int]:
        for _ in range(count):
            outlet.write(line)
        return outlet.queued_bytes, outlet.counts["lines_not_collected"]

    at_cap, counted = write(MAX_QUEUED_BYTES // 1024)
    beyond, counted_beyond = write(50)
    goes_on = len(outlet.take(4096)) == 4096
    while outlet.take(1 << 20):
        pass
    left = outlet.queued_bytes
    return Filled(MAX_QUEUED_BYTES, at_cap, counted, beyond, counted_beyond, goes_on, left)
