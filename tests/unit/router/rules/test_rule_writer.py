"""The thread that writes rules while others are read: in order, all of it, or an error."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcloud.router.rules import intake
from packetcloud.router.rules.rule_writer import QUEUED_COUNT, RuleWriter
from packetcloud.router.rules.store import RuleStore
from tests.unit.router.rules.keeping import Kept, head
from tests.unit.router.rules.rule_documents import rule_record

BATCH_COUNT = 3
RULES_COUNT = 10 * BATCH_COUNT + 1


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr(intake, "_BATCH_COUNT", BATCH_COUNT)
    keeper = Kept(tmp_path)
    yield keeper
    keeper.close()


def _records(**more: Any) -> list[dict[str, Any]]:
    return [rule_record(name=f"r{n}", destination=f"{n:040x}", **more) for n in range(RULES_COUNT)]


def test_all_is_done_in_order() -> None:
    """When it is flushed and at its end, in a thread that is gone then."""
    done: list[int] = []
    threads = threading.active_count()
    with RuleWriter() as writer:
        for number in range(5 * QUEUED_COUNT):
            writer.put(lambda number=number: done.append(number))
        writer.flush()
        assert done == [*range(5 * QUEUED_COUNT)]
        writer.put(lambda: done.append(-1))
    assert done[-1] == -1
    assert threading.active_count() == threads


def test_what_waits_is_limited() -> None:
    """Whoever puts more than so many waits until there is room."""
    may_go = threading.Event()
    has_begun = threading.Event()
    done: list[int] = []

    def first() -> None:
        has_begun.set()
        may_go.wait()

    with RuleWriter() as writer:
        writer.put(first)
        has_begun.wait()
        for number in range(QUEUED_COUNT):
            writer.put(lambda number=number: done.append(number))
        assert writer._works.full()
        may_go.set()
        writer.put(lambda: done.append(QUEUED_COUNT))
    assert done == [*range(QUEUED_COUNT + 1)]


@pytest.mark.parametrize("does_flush", [True, False])
def test_an_error_is_raised_and_nothing_is_done_after_it(does_flush: bool) -> None:
    """By whoever puts more or flushes, or at the end."""
    done: list[int] = []

    def fails() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError), RuleWriter() as writer:
        writer.put(fails)
        if does_flush:
            with pytest.raises(sqlite3.OperationalError):
                writer.flush()
        with pytest.raises(sqlite3.OperationalError):
            while True:
                writer.put(lambda: done.append(1))
    assert not done


def test_after_an_exception_nothing_waits_any_more() -> None:
    """The change is about to be undone: no write may come after that."""
    done: list[int] = []
    writer = RuleWriter()

    def late() -> None:
        while writer._error is None:  # until `__exit__` has said that it is over
            pass

    with pytest.raises(ValueError, match="no more"), writer:
        writer.put(late)
        writer.put(lambda: done.append(1))
        raise ValueError("no more")
    assert not done


def test_batches_keep_their_order(kept: Kept) -> None:
    """Rules that are replaced, withdrawn and new in one change of many batches: the store, the
    table and what the set says about itself agree, also after a restart."""
    kept.install(*_records())
    withdrawn = [{"withdraw": f"r{n}"} for n in range(0, RULES_COUNT, 2)]
    replaced = [one for one in _records(priority=5) if int(one["name"][1:]) % 2]
    answer = kept.install(*withdrawn, *replaced, rule_record(name="new"), head=head(serial=2))
    count = len(replaced) + 1
    assert answer["outcome"]["accepted"] == count
    assert answer["outcome"]["withdrawn"] == len(withdrawn)
    for _ in range(2):
        assert {one.rule.name for one in kept.installed()} == {
            "new", *(f"r{n}" for n in range(1, RULES_COUNT, 2))
        }  # fmt: skip
        assert {one.rule.priority for one in kept.installed()} == {0, 5}
        (its_set,) = kept.keeper.store.sets()
        assert (its_set.rules, its_set.entries) == (count, count)
        assert kept.keeper.store.gone_count() == RULES_COUNT
        assert kept.names_for(bytes.fromhex(f"{1:040x}")) == {"r1"}
        assert kept.names_for(bytes.fromhex(f"{2:040x}")) == set()
        kept.close()
        kept.open()


def test_a_write_that_fails_leaves_the_version_of_before(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of a change: nothing of it is there, and its numbers are given to
    the next."""
    kept.install(rule_record(name="before"))
    put = RuleStore.put_rules
    calls: list[int] = []

    def fails_later(self: RuleStore, rules: Any) -> None:
        calls.append(len(rules))
        if len(calls) == 4:
            raise sqlite3.OperationalError("database or disk is full")
        put(self, rules)

    version = kept.version
    with monkeypatch.context() as patch:
        patch.setattr(RuleStore, "put_rules", fails_later)
        with pytest.raises(sqlite3.OperationalError):
            kept.install(*_records(), head=head(serial=2))
    assert not kept.keeper.store.connection.in_transaction
    assert [one.rule.name for one in kept.installed()] == ["before"]
    kept.install(*_records(), head=head(serial=2))
    assert kept.version == version + 1
    assert [one.number for one in kept.installed()] == [*range(1, RULES_COUNT + 2)]
