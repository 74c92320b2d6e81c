"""The judges of `packetcloud bench domain`: what a journal proves, case by case."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from packetcloud.testbed.bench.billing import judge_sums
from packetcloud.testbed.bench.domain import QUICK, databases_of, domain_keys, failures_of
from packetcloud.testbed.bench.domain_clients import ACCEPTED_STATUS, Told
from packetcloud.testbed.bench.domain_parts import PARTS, DomainPlan
from packetcloud.testbed.bench.domain_races import Races, judge_races
from packetcloud.testbed.bench.failover import judge_failover
from packetcloud.testbed.bench.stale_owner import judge_commands


def _told(
    client: int, state: str, *, key: str = "k", name: str = "", begin_ms: int = 1, status: int = 202
) -> Told:
    body = json.dumps({"subject": name or f"r-{client}", "state": state})
    return Told(client, key, begin_ms, status, body, 0.0, 1.0, 1)


YES, NO = "running", "failed"


@pytest.mark.parametrize(
    ("journal", "found"),
    [
        ([_told(1, YES), _told(2, YES), _told(3, NO)], Races(1, 0, 0, 0, 0)),
        ([_told(1, YES), _told(1, YES), _told(2, YES), _told(3, NO)], Races(1, 0, 0, 0, 0)),
        ([_told(1, YES), _told(2, YES), _told(3, YES)], Races(1, 1, 0, 0, 0)),
        ([_told(1, YES), _told(2, NO), _told(3, NO)], Races(1, 0, 1, 0, 0)),
        ([_told(1, YES), _told(2, YES), _told(2, NO)], Races(1, 0, 0, 1, 0)),
        ([_told(1, YES), _told(2, YES), _told(3, NO, status=409)], Races(1, 0, 0, 0, 1)),
        ([_told(1, YES), _told(1, YES, key="l", begin_ms=2)], Races(2, 0, 0, 0, 0)),
    ],
    ids=["right", "asked twice", "oversold", "short", "another answer", "failed", "two rounds"],
)
def test_races_for_two_places(journal: list[Told], found: Races) -> None:
    """Each thing that can be wrong is counted, and nothing else."""
    assert judge_races(journal, 2) == found
    assert found.is_right == (found in (Races(1, 0, 0, 0, 0), Races(2, 0, 0, 0, 0)))


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ([("t1", 1), ("t2", 1)], (0, 0)),
        ([("t1", 1), ("t2", 1), ("t3", 7)], (0, 0)),
        ([("t1", 1)], (1, 0)),
        ([("t1", 1), ("t2", 2)], (1, 0)),
        ([("t1", 1), ("t2", 1), ("t1", 1)], (0, 1)),
    ],
)
def test_what_was_accepted_is_stored_once(
    stored: list[tuple[str, int]], found: tuple[int, int]
) -> None:
    """A refusal need not be stored; what was stored and not answered is no fault."""
    told = [_told(1, YES), _told(2, YES), _told(4, NO), _told(5, YES, status=ACCEPTED_STATUS + 1)]
    assert judge_failover(told, stored) == found


@pytest.mark.parametrize(
    ("epochs", "late"),
    [((), 0), ((1, 1, 2, 2), 0), ((1, 2, 1), 1), ((1, 3, 2, 1, 3), 2)],
)
def test_commands_of_a_lower_epoch_are_late(epochs: tuple[int, ...], late: int) -> None:
    """In the order of their commits."""
    assert judge_commands(epochs) == late


@pytest.mark.parametrize(
    ("billed", "balances", "wrong"),
    [
        ({"a": 20_000}, {"tenant/a": 20_000, "revenue": -20_000}, 0),
        ({"a": 30_000}, {"tenant/a": 20_000, "revenue": -20_000}, 1),
        ({"a": 20_000}, {"tenant/a": 19_999, "revenue": -19_999}, 1),
        ({"a": 20_000}, {"tenant/a": 20_000, "revenue": -19_999}, 1),
        ({}, {}, 2),
    ],
)
def test_sums_are_compared_to_the_millionth(
    billed: Mapping[str, int], balances: Mapping[str, int], wrong: int
) -> None:
    """15 001 millionths are two cents on the bill, and in the ledger after its rounding."""
    assert judge_sums({"a": 15_001}, billed, balances) == wrong


def test_a_control_that_finds_nothing_is_a_failure() -> None:
    """And so is what a part found."""
    races = {"oversold": 0, "short_rounds": 0, "other_answers": 0, "failed": 0}
    right = races | {"control_oversold": 1, "control_other_answers": 1}
    assert failures_of({"sqlite": {"races": right}}) == []
    (text,) = failures_of({"sqlite": {"races": right | {"control_oversold": 0}}})
    assert text.startswith("races, sqlite: control_oversold")
    assert failures_of({"sqlite": {"races": right | {"oversold": 2}}}) == [
        "races, sqlite: oversold: 2, must be 0"
    ]


def test_what_was_not_run_has_no_figure() -> None:
    """A report without a part says null, not 0."""
    keys = domain_keys({"sqlite": {}})
    assert keys["oversold"] is None and keys["billing_errors"] is None
    assert keys["reservations_per_s"] == {"sqlite": None, "postgresql": None}
    assert domain_keys({"sqlite": {"races": {"oversold": 3}}})["oversold"] == 3


def test_each_part_runs_where_it_means_something() -> None:
    """Two controllers need PostgreSQL; a cloudlet's report touches no database."""
    both = ["sqlite", "postgresql"]
    assert [databases_of(part, both) for part in ("races", "reports", "stale")] == [
        both,
        ["sqlite"],
        ["postgresql"],
    ]
    assert databases_of("failover", ["sqlite"]) == []
    assert set(DomainPlan().parts) == set(QUICK.parts) == set(PARTS)
