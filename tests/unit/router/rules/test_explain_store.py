"""The keeper's part of an explanation: the rules that the router names, and near misses."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from packetcloud.router.rules import explain_report, explain_store
from packetcloud.router.rules.catalogue import Catalogue
from packetcloud.router.rules.explain_store import RulesQuestion
from packetcloud.router.rules.rule import Question
from packetcloud.router.rules.store import RuleStore, StoredSet
from packetcloud.router.rules.table_numbers import numbers_of
from tests.unit.router.rules.keeping import Kept, head
from tests.unit.router.rules.rule_documents import NOW_S, OWNER, SERVICE, rule_record

OTHER = "6f" * 20


def question(payload: bytes = b"payload", **changes: Any) -> Question:
    values: dict[str, Any] = {
        "source": bytes(20),
        "destination": OWNER.guid.value,
        "sid": bytes(20),
        "payload_type": 1,
        "ingress": b"n" * 20,
        "payload": payload,
    }
    return Question(**(values | changes))


def ask(kept: Kept, asked: Question, *, has_payload: bool = True) -> dict[str, Any]:
    assert kept.loaded is not None
    numbers = frozenset(numbers_of(kept.loaded.table.segments, asked))
    message = RulesQuestion(numbers, asked, has_payload, float(NOW_S)).to_json()
    catalogue = Catalogue(kept.folder)
    return catalogue.answer(json.loads(json.dumps({"what": "explain"} | message)))


def outcomes(answer: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["missed"] or one["outcome"] for one in answer["report"]["findings"]}


def test_matching_rules_and_near_misses(tmp_path: Path) -> None:
    """What matches comes by number, what comes near by search; the rest is counted."""
    kept = Kept(tmp_path)
    kept.install(
        rule_record(name="plain"),
        rule_record(name="large", size_min=100, action="pass", priority=3),
        rule_record(name="word", patterns={"text": "load"}, priority=1),
        rule_record(name="two", source=OTHER.upper(), direction="forward"),
        rule_record(name="far", destination=OTHER),
        rule_record(name="typed", destination=OTHER, payload_type=1),
        rule_record(name="any", destination=None, size_max=3),
    )
    answer = ask(kept, question())
    assert outcomes(answer) == {
        "plain": "outranked",
        "large": "size",
        "word": "decides",
        "two": "source",
        "typed": "destination",
        "any": "size",
    }
    report = answer["report"]
    assert (report["rules"], report["others"], report["is_complete"]) == (7, 1, True)
    assert answer["winners"] == {SERVICE.sid.hex: ["test", "word", "visit"]}
    without = ask(kept, question(), has_payload=False)
    assert outcomes(without)["word"] == "pattern"
    assert outcomes(without)["plain"] == "decides"
    kept.close()


def test_a_set_that_comes_while_a_question_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer speaks of one state of the rules: the one in which it began."""
    kept = Kept(tmp_path)
    kept.install(rule_record(name="a"))
    really_sets = RuleStore.sets

    def sets(store: RuleStore) -> list[StoredSet]:
        found = really_sets(store)
        if store is not kept.keeper.store:
            monkeypatch.undo()
            kept.install(rule_record(name="b"), head=head("another"))
        return found

    monkeypatch.setattr(RuleStore, "sets", sets)
    assert outcomes(ask(kept, question())) == {"a": "decides"}
    assert outcomes(ask(kept, question())) == {"a": "decides", "b": "outranked"}
    kept.close()


def test_answers_the_other_way_are_found(tmp_path: Path) -> None:
    """A rule for both ways stands under the exchanged names too."""
    kept = Kept(tmp_path)
    kept.install(rule_record(name="both"), rule_record(name="one", direction="forward"))
    back = question(source=OWNER.guid.value, destination=bytes(20))
    assert outcomes(ask(kept, back)) == {"both": "decides"}
    kept.close()


def test_too_many_rules_to_look_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What matches is told all the same, and that near misses may be missing."""
    monkeypatch.setattr(explain_store, "MAX_SEARCHED_COUNT", 3)
    kept = Kept(tmp_path)
    others = [rule_record(name=f"r{n}", destination=OTHER, source=OTHER) for n in range(3)]
    near = rule_record(name="near", source=OTHER, direction="forward")
    kept.install(*others, near, rule_record(name="last"))
    answer = ask(kept, question())
    assert outcomes(answer) == {"last": "decides"}
    assert answer["report"]["is_complete"] is False
    kept.install({"withdraw": "r1"}, head=head(serial=2))
    answer = ask(kept, question())
    assert outcomes(answer) == {"last": "decides", "near": "source"}
    assert answer["report"]["is_complete"] is True
    kept.close()


def test_rules_that_name_one_thing_are_not_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, all that come near are told: the table finds those that name one
    thing, and the others are few. Without the files of that state it is as far as it goes."""
    monkeypatch.setattr(explain_store, "MAX_SEARCHED_COUNT", 8)
    kept = Kept(tmp_path)
    kept.install(
        *[rule_record(name=f"far{n}", destination=f"{n + 1:040x}") for n in range(40)],
        rule_record(name="typed", destination=OTHER, payload_type=1),
        rule_record(name="sets", destination=[OTHER, "71" * 20], source=["72" * 20, "00" * 20]),
        rule_record(name="one-set", destination=[OTHER, OWNER.guid.hex]),
        rule_record(name="small", size_max=3),
    )
    kept.install(
        rule_record(name="two", source=OTHER, direction="forward"),
        rule_record(name="any", destination=None, priority=-1),
        *[rule_record(name=f"gone{n}", source=OTHER) for n in range(3)],
        head=head("other"),
    )
    kept.install(*[{"withdraw": f"gone{n}"} for n in range(3)], head=head("other", serial=2))
    assert kept.loaded is not None and len(kept.loaded.table.segments) == 2
    answer = ask(kept, question())
    assert outcomes(answer) == {
        "typed": "destination",
        "sets": "destination",
        "one-set": "decides",
        "small": "size",
        "two": "source",
        "any": "outranked",
    }
    assert answer["report"]["is_complete"] is True

    def gone(*_: object) -> list[int]:
        raise FileNotFoundError

    monkeypatch.setattr(explain_store, "compound_numbers", gone)
    answer = ask(kept, question())
    assert outcomes(answer) == {"one-set": "decides", "small": "size", "any": "outranked"}
    assert answer["report"]["is_complete"] is False
    kept.close()


@pytest.mark.parametrize("seed", range(4))
def test_many_rules_are_explained_as_few_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random rules of all kinds: the same comes near whether all are looked through or those that
    name several things."""
    chance = random.Random(seed)
    names = [f"{number:040x}" for number in range(1, 6)]

    def some() -> dict[str, Any]:
        fields = chance.sample(
            ("source", "destination", "ingress", "sid"), chance.choice((1, 1, 2))
        )
        record: dict[str, Any] = {"destination": None}
        for one in fields:
            record[one] = chance.choice((chance.choice(names), chance.sample(names, 2)))
        return record | chance.choice(({}, {"direction": "forward"}))

    kept = Kept(tmp_path)
    kept.install(
        *[rule_record(name=f"r{n}", **some()) for n in range(60)],
        *[rule_record(name=f"typed{n}", destination=None, payload_type=n % 3) for n in range(30)],
    )
    monkeypatch.setattr(explain_report, "MAX_FINDINGS_COUNT", 1000)
    for _ in range(12):
        ends = {
            one: bytes.fromhex(chance.choice(names))
            for one in ("source", "destination", "ingress", "sid")
        }
        asked = question(**ends, payload_type=chance.randrange(3))
        told = []
        for most in (10_000, 80):
            monkeypatch.setattr(explain_store, "MAX_SEARCHED_COUNT", most)
            answer = ask(kept, asked)
            assert answer["report"]["is_complete"] is True
            told.append(outcomes(answer))
        assert told[0] == told[1]
    kept.close()


def test_withdrawn_and_shadow_rules(tmp_path: Path) -> None:
    """A withdrawn rule is gone; one in shadow mode says what it would do."""
    kept = Kept(tmp_path)
    kept.install(
        rule_record(name="gone"),
        rule_record(name="shadow", mode="shadow", action="pass", priority=2),
        rule_record(name="stays"),
    )
    kept.install({"withdraw": "gone"}, head=head(serial=2))
    answer = ask(kept, question())
    assert outcomes(answer) == {"shadow": "would decide", "stays": "decides"}
    (_, stays) = answer["report"]["findings"]
    assert stays["by"] == "test/shadow"
    kept.close()
