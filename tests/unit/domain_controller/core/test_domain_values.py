"""Values of the domain controller: what cannot be is refused where it comes in, and named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

from packetcloud.chunk.names import GUID, NA, SID, SID_SEQUENCE
from packetcloud.domain_controller.core.checks import MAX_INTEGER, MAX_TIME_MS, shown
from packetcloud.domain_controller.core.cloudlets import (
    MAX_DISTANCES_COUNT,
    MAX_HELD_COUNT,
    MAX_HOSTS_COUNT,
    MAX_NODES_COUNT,
    MAX_TYPES_COUNT,
    MAX_VIS_COUNT,
    Cloudlet,
    CloudletReport,
    Distance,
    NodeReport,
    Running,
    TypeCount,
)
from packetcloud.domain_controller.core.principals import Key, Principal, Role, Service
from packetcloud.domain_controller.core.resources import (
    MAX_DISK_BYTES,
    MAX_IO_PER_S,
    MAX_MEMORY_BYTES,
    MAX_MILLI_CPUS,
    Resources,
    ViType,
)
from packetcloud.domain_controller.core.slots import (
    DAY_MS,
    HOUR_MS,
    MAX_AHEAD_MS,
    MAX_OCCURRENCES_COUNT,
    MAX_SLOT_MS,
    MIN_SLOT_MS,
    WEEK_MS,
    Every,
    Repeat,
    Slot,
    check_ahead,
)
from packetcloud.domain_controller.core.wishes import MAX_SPREAD_COUNT, Constraints, Near, Wish
from packetcloud.domain_controller.errors import InvalidValueError

SLOT = Slot(0, HOUR_MS)
VALUES: tuple[object, ...] = (
    Resources(1, 2, 3, 4),
    ViType("small", Resources(1)),
    Repeat(Every.DAY, 3),
    Repeat(Every.DAY, None, DAY_MS),
    SLOT,
    Cloudlet("c1", "north"),
    TypeCount("small", 1),
    NodeReport("n1", Resources(1)),
    Running("r1", "small", 1),
    Distance(NA(1), 1),
    CloudletReport("c1", 1, 1, ()),
    Near(NA(1)),
    Constraints(),
    Wish("small", 1, SLOT),
    Principal("alice", Role.TENANT),
    Key("k1", "alice", b"k" * 32, 0, 1),
    Service("translate", "alice", SID(b"s" * 20), "image"),
)
WRONG_NUMBERS = (-1, 1 << 64, 10**5000, math.nan, math.inf, 1.0, True, "1", None, b"1")
WRONG_TEXTS = ("", "-a", "A", "a b", "a" * 64, "ä", "a\n", 1, b"a", True)
NULLABLE = {
    ("Repeat", "count"),
    ("Repeat", "until_ms"),
    ("Wish", "max_price_micros"),
}


def _fields(kind: str) -> list[tuple[object, str]]:
    return [
        (value, field.name)
        for value in VALUES
        if dataclasses.is_dataclass(value)
        for field in dataclasses.fields(value)
        if field.type == kind or str(field.type) == f"{kind} | None"
    ]


@pytest.mark.parametrize(
    ("value", "field"),
    _fields("int"),
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
@pytest.mark.parametrize("wrong", WRONG_NUMBERS, ids=shown)
def test_only_integers_within_bounds_are_amounts_times_and_counts(
    value: object, field: str, wrong: object
) -> None:
    """Negative, huge, NaN, float, bool, text: refused, and the field is named."""
    if wrong is None and (type(value).__name__, field) in NULLABLE:
        wrong = "none"
    with pytest.raises(InvalidValueError, match=field) as caught:
        dataclasses.replace(value, **{field: wrong})  # type: ignore[type-var]
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "field"),
    [one for one in _fields("str") if one[1] not in ("title", "image")],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
@pytest.mark.parametrize("wrong", WRONG_TEXTS, ids=repr)
def test_only_names_are_names(value: object, field: str, wrong: object) -> None:
    """Names are lower-case letters, digits and '-', at most 63."""
    with pytest.raises(InvalidValueError, match=field):
        dataclasses.replace(value, **{field: wrong})  # type: ignore[type-var]
    dataclasses.replace(value, **{field: "a" * 63})  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda n: ViType("t", Resources(n)), MAX_MILLI_CPUS),
        (lambda n: ViType("t", Resources(1, n)), MAX_MEMORY_BYTES),
        (lambda n: NodeReport("n", Resources(1, 1, n)), MAX_DISK_BYTES),
        (lambda n: NodeReport("n", Resources(1, 1, 1, n)), MAX_IO_PER_S),
        (lambda n: Resources(n), MAX_INTEGER),
        (lambda n: Slot(0, n), MAX_SLOT_MS),
        (lambda n: Slot(0, HOUR_MS, Repeat(Every.DAY, n)), MAX_OCCURRENCES_COUNT),
        (
            lambda n: Slot(0, HOUR_MS, Repeat(Every.DAY, None, (n - 1) * DAY_MS + 1)),
            MAX_OCCURRENCES_COUNT,
        ),
        (lambda n: Slot(0, n, Repeat(Every.WEEK, 2)), WEEK_MS),
        (lambda n: check_ahead(Slot(n - HOUR_MS, n), 0), MAX_AHEAD_MS),
        (lambda n: check_ahead(Slot(n - 2 * DAY_MS, n - DAY_MS, _TWICE), 0), MAX_AHEAD_MS),
        (lambda n: Slot(n - HOUR_MS, n), MAX_TIME_MS),
        (lambda n: Wish("t", n, SLOT), MAX_VIS_COUNT),
        (lambda n: Wish("t", n, SLOT, Constraints(spread=n)), MAX_SPREAD_COUNT),
        (lambda n: Wish("t", 3, SLOT, Constraints(spread=n)), 3),
        (lambda n: Constraints(cloudlet="c", spread=n), 1),
        (lambda n: _report(nodes=_nodes(n)), MAX_NODES_COUNT),
        (lambda n: _report(hosts=tuple(GUID(_bytes(i)) for i in range(n))), MAX_HOSTS_COUNT),
        (
            lambda n: _report(distances=tuple(Distance(NA(i), 1) for i in range(n))),
            MAX_DISTANCES_COUNT,
        ),
        (
            lambda n: _report(running=tuple(Running(f"r{i}", "t", 1) for i in range(n))),
            MAX_HELD_COUNT,
        ),
        (
            lambda n: NodeReport("n", Resources(), vis=tuple(_types(n))),
            MAX_TYPES_COUNT,
        ),
    ],
)
def test_the_largest_is_taken_and_one_more_is_not(make: Callable[[int], object], most: int) -> None:
    """Each cap holds at the cap, and not at one more."""
    make(most)
    with pytest.raises(InvalidValueError):
        make(most + 1)


_TWICE = Repeat(Every.DAY, 2)


def _bytes(number: int) -> bytes:
    return number.to_bytes(20, "big")


def _nodes(number: int) -> tuple[NodeReport, ...]:
    return tuple(NodeReport(f"n{i}", Resources()) for i in range(number))


def _types(number: int) -> list[TypeCount]:
    return [TypeCount(f"t{i}", 1) for i in range(number)]


def _report(**parts: object) -> CloudletReport:
    values: dict[str, object] = {"nodes": (), **parts}
    return CloudletReport("c", 1, 1, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Repeat(Every.DAY), "neither"),
        (lambda: Repeat(Every.DAY, 1, 1), "both"),
        (lambda: Repeat("day", 1), "repeat.every"),  # type: ignore[arg-type]
        (lambda: Slot(0, MIN_SLOT_MS - 1), "slot.end_ms"),
        (lambda: Slot(5, 1), "slot.end_ms"),
        (lambda: Slot(DAY_MS, DAY_MS + HOUR_MS, Repeat(Every.DAY, None, DAY_MS)), "until_ms"),
        (lambda: check_ahead(SLOT, HOUR_MS), "slot.end_ms"),
        (lambda: _report(nodes=_nodes(1) * 2), "n0 twice"),
        (lambda: _report(nodes=("n",)), "report.nodes"),
        (lambda: _report(nodes=[]), "report.nodes"),
        (lambda: Near(GUID(b"g" * 20), 256), "near.max_hops"),
        (lambda: Near("host"), "near.target"),  # type: ignore[arg-type]
        (lambda: Principal("p", "tenant"), "auditor"),  # type: ignore[arg-type]
        (lambda: Principal("p", Role.TENANT, "a" * 201), "title"),
        (lambda: Principal("p", Role.TENANT, "\x1b[2J"), "title"),
        (lambda: Key("k", "p", b"k" * 31, 0, 1), "public_key"),
        (lambda: Key("k", "p", b"k" * 32, 1, 1), "until_ms"),
        (lambda: Service("s", "p", SID_SEQUENCE, "i"), "service.sid"),
        (lambda: ViType("t", Resources(0, 1)), "milli_cpus"),
    ],
)
def test_what_cannot_be_is_named(make: Callable[[], object], where: str) -> None:
    """The error says which field, and what may stand there."""
    with pytest.raises(InvalidValueError, match=where):
        make()


def test_a_slot_that_repeats_has_its_occurrences() -> None:
    """By count or until a time, the first included, none that begins at `until`."""
    by_count = Slot(5, 5 + HOUR_MS, Repeat(Every.DAY, 3))
    assert by_count.occurrences() == tuple(
        (5 + day * DAY_MS, 5 + day * DAY_MS + HOUR_MS) for day in range(3)
    )
    until = Slot(5, 5 + HOUR_MS, Repeat(Every.DAY, None, 5 + 3 * DAY_MS))
    assert until.occurrences() == by_count.occurrences()
    assert (by_count.last_end_ms, by_count.total_ms) == (5 + 2 * DAY_MS + HOUR_MS, 3 * HOUR_MS)
    moved = until.moved_to(7)
    assert moved.occurrences() == tuple((a + 2, b + 2) for a, b in by_count.occurrences())


def test_a_slot_that_repeats_is_over_with_its_last_occurrence() -> None:
    """What runs since yesterday can still be extended and resized today."""
    daily = Slot(0, HOUR_MS, Repeat(Every.DAY, 3))
    check_ahead(daily, 2 * DAY_MS + HOUR_MS - 1)
    with pytest.raises(InvalidValueError, match=r"slot\.end_ms"):
        check_ahead(daily, 2 * DAY_MS + HOUR_MS)


def test_amounts_are_counted_kind_by_kind() -> None:
    """What is lacking is named; what is left is never less than nothing."""
    have = Resources(1000, 10, 20, 30)
    assert have.lacking_for(Resources(1001, 10, 21, 0)) == ["milli_cpus", "disk_bytes"]
    assert have.less(Resources(400, 11, 20, 1)) == Resources(600, 0, 0, 29)
    assert have.permille(333) == Resources(333, 3, 6, 9)
    assert (have + have) == have.times(2)
    assert have.fits_in(have) and not have.times(2).fits_in(have)


def test_a_report_knows_its_age() -> None:
    """The age is by the domain's clock; a step back makes no report younger than new."""
    report = _report(
        nodes=(NodeReport("a", Resources(2)), NodeReport("b", Resources(3), is_usable=False))
    )
    assert (report.age_ms(11), report.age_ms(0)) == (10, 0)
    assert report.capacity == Resources(2)


def test_a_key_counts_from_its_begin_until_its_end() -> None:
    """The begin belongs to it, the end does not."""
    key = Key("k", "p", b"k" * 32, 10, 20)
    assert [key.counts_at(now) for now in (9, 10, 19, 20)] == [False, True, True, False]
