"""The judges themselves: each breach of a promise, written by hand, is seen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from packetcloud.chunk.messages import DeliveryReport, Outcome, encode_reports
from packetcloud.chunk.names import ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.testbed.simulation.application import Operation
from packetcloud.testbed.simulation.checker import GRACE_S, StreamingJudge, sorted_verdicts
from packetcloud.testbed.simulation.journal import NO_POWER, Entry, Line
from packetcloud.testbed.simulation.network import LinkOptions
from packetcloud.testbed.simulation.plan import Fault
from packetcloud.testbed.simulation.program import identity_of
from packetcloud.testbed.simulation.scenario import draw_plan
from packetcloud.testbed.simulation.trace import Trace
from packetcloud.testbed.simulation.watch import Watch
from packetcloud.testbed.simulation.witness import Chunk, Witness
from packetcloud.testbed.simulation.world import World

GUIDS = {"A": "guid-a", "R": "guid-r", "B": "guid-b"}


def line(
    time_s: float,
    node: str,
    entry: Entry,
    op: int = 1,
    digest: str = "d1",
    outcome: str = "",
    is_indeterminate: bool = False,
) -> Line:
    return Line(time_s, node, 1, entry, op, "guid-a", op, 100, digest, outcome, is_indeterminate)


def submitted(op: int = 1) -> Line:
    return line(1.0, "A", Entry.SUBMITTED, op)


def ended(outcome: str, at_s: float = 3.0, is_indeterminate: bool = False) -> Line:
    return line(at_s, "A", Entry.ENDED, outcome=outcome, is_indeterminate=is_indeterminate)


def taken(at_s: float = 2.0, digest: str = "d1", node: str = "B") -> Line:
    return line(at_s, node, Entry.TAKEN, digest=digest)


def died(at_s: float) -> Line:
    return line(at_s, "B", Entry.DIED, op=0)


def promises(*lines: Line) -> set[str]:
    judge = StreamingJudge({1: 10.0}, GUIDS)
    for one in lines:
        judge.feed(one)
    judge.finish(20.0)
    return {violation.promise for violation in judge.violations}


CASES = [
    ("delivered", [submitted(), taken(), ended("delivered")], set()),
    ("failed", [submitted(), ended("expired deadline_passed")], set()),
    ("killed", [submitted(), line(2.0, "A", Entry.FORGOT)], set()),
    ("taken-late-in-doubt", [submitted(), ended("expired", 2.0, True), taken(5.0)], set()),
    ("two-receivers", [submitted(), taken(), taken(node="R"), ended("delivered")], set()),
    (
        "killed-as-it-took",
        [submitted(), taken(), died(2.0), taken(5.0), ended("delivered", 6.0)],
        set(),
    ),
    (
        "killed-later",
        [submitted(), taken(), died(2.1), taken(5.0), ended("delivered", 6.0)],
        {"L2"},
    ),
    ("never-ended", [submitted(), taken()], {"L1"}),
    ("delivered-to-nobody", [submitted(), ended("delivered")], {"L1"}),
    ("delivered-before-taken", [submitted(), ended("delivered", 2.0), taken(3.0)], {"L1"}),
    ("taken-twice", [submitted(), taken(), taken(2.5), ended("delivered")], {"L2"}),
    ("submitted-twice", [submitted(), submitted(), taken(), ended("delivered")], {"L2"}),
    ("altered", [submitted(), taken(digest="d2"), ended("delivered")], {"L3"}),
    ("of-nobody", [taken()], {"L3"}),
    ("certain-but-taken", [submitted(), taken(), ended("refused hop_limit")], {"L5"}),
    ("taken-after-certain", [submitted(), ended("expired", 2.0), taken(5.0)], {"L5"}),
    ("told-twice", [submitted(), taken(), ended("delivered"), ended("delivered")], {"L5"}),
    ("told-late", [submitted(), ended("expired", 10.1 + GRACE_S)], {"L5"}),
]


@pytest.mark.parametrize(
    ("lines", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_breach_is_seen_by_both_judges(lines: list[Line], expected: set[str]) -> None:
    """The streaming judge names the promise; the sorting one agrees on L1 to L3."""
    assert promises(*lines) == expected
    assert {promise for promise, _ in sorted_verdicts(lines)} == expected & {"L1", "L2", "L3"}


def test_custody_passed_on_needs_one_taking_for_each_time() -> None:
    """A neighbour that took a chunk once cannot have been given it twice."""
    took = line(2.0, "R", Entry.TOOK, outcome="guid-a")
    passed = line(2.1, "A", Entry.PASSED, outcome="guid-r")
    assert promises(submitted(), took, passed, ended("expired")) == set()
    assert promises(submitted(), passed, ended("expired")) == {"L4"}
    assert promises(submitted(), took, passed, passed, ended("expired")) == {"L4"}
    other = line(2.0, "B", Entry.TOOK, outcome="guid-r")
    assert promises(submitted(), other, passed, ended("expired")) == {"L4"}


def test_a_power_cut_may_take_the_notes_of_what_was_taken_before_it_and_not_after() -> None:
    """docs/protocol/hop.md: the notes of a receiver are not synced."""
    cut = line(2.5, "B", Entry.DIED, op=0, outcome=NO_POWER)
    once = (submitted(), taken(2.0), cut, taken(3.0), ended("delivered", 3.5))
    assert promises(*once) == set()
    twice = (submitted(), cut, taken(2.8), taken(3.0), ended("delivered", 3.5))
    assert promises(*twice) == {"L2"}
    killed = (submitted(), taken(2.0), died(2.5), taken(3.0), ended("delivered", 3.5))
    assert promises(*killed) == {"L2"}


def test_only_what_an_untold_report_names_is_given_up() -> None:
    """One report that reached nobody excuses no other chunk of the router."""
    noted: list[Entry] = []
    source = identity_of("A").guid
    witness = Witness(identity_of("R1").guid, lambda entry, chunk, text: noted.append(entry))
    neighbour: Any = SimpleNamespace(guid=source)
    for number in (1, 2):
        witness.took(Chunk(number, source.short, number, True), neighbour)
    noted.clear()
    report = DeliveryReport(ChunkId(2), Outcome.EXPIRED, int(Reason.DEADLINE_PASSED), "")
    for stranger in (identity_of("B").guid, source, source):
        witness.could_not_tell(encode_reports([report]), stranger)
    assert [chunk.op for chunk in witness.held] == [1]
    assert not noted


def test_a_forgotten_chunk_is_seen_beside_a_report_that_reached_nobody() -> None:
    """A router that lost a chunk is found out although a report of it expired at the router."""
    plan = draw_plan(0, "loss")
    world = World(replace(plan, operations=()), Trace(), lambda line: None)
    world.start()
    world.time.run_until(3.0)
    (router, _), watch = world.routers, Watch(world)
    assert router.core is not None and router.witness is not None
    assert watch.is_quiet()
    source = identity_of("A").guid
    router.witness.took(Chunk(1, source.short, 1, True), SimpleNamespace(guid=source))  # type: ignore[arg-type]
    router.core.book.undeliverable_reports_count = 1
    watch.finish()
    assert [violation.promise for violation in watch.violations] == ["L4"]


def test_a_report_that_expires_where_it_was_written_is_known_to_the_watch() -> None:
    """A chunk expires when source and destination are cut off: the router can tell nobody."""
    plan = draw_plan(0, "slow_destination")
    fast = LinkOptions(delay_s=0.001)
    plan = replace(
        plan,
        links=dict.fromkeys(plan.links, (fast, fast)),
        operations=(Operation(5, 1.0, "A", "B", 100, (), 25.0, True),),
        tempos={},
        faults=(Fault("cut", "B-R1", 0.9, 200.0), Fault("cut", "A-R1", 1.05, 200.0)),
        detached_hold_s=30.0,
        isolated_flows=(),
    )
    world = World(plan, Trace(), lambda line: None)
    world.start()
    world.time.run_until(150.0)
    (router,) = world.routers
    assert router.core is not None and router.witness is not None
    assert router.core.book.undeliverable_reports_count == 1
    assert [chunk.op for chunk in router.witness.held] == [5]
    watch = Watch(world)
    watch.finish()
    assert not router.witness.held
    assert "L4" not in {violation.promise for violation in watch.violations}
