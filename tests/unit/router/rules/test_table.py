"""What the table of rules answers. That it agrees with `judge` is tests/property."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.rules.answer import Answer, Contender, Contest, Late
from packetcloud.router.rules.rule import Action, Direction, Mode, Pattern
from packetcloud.router.rules.segment_hash import Field
from packetcloud.router.rules.segment_layout import LONG_RUN
from packetcloud.router.rules.table import Table
from tests.unit.router.rules.table_rules import (
    OTHER_SERVICE,
    SERVICE,
    A,
    B,
    C,
    ask,
    installed,
    name,
    numbers,
    segment,
    table,
)

ASKED = {"sources": [A], "destinations": [B], "sids": [bytes(20)], "payload_types": [0]}
ASKED["ingress"] = [C]
OTHERS = {"sources": [C], "destinations": [C], "sids": [C], "payload_types": [1], "ingress": [A]}


def test_without_rules_nothing_is_said() -> None:
    """A table of no segment answers every flow with no contest, for ever."""
    assert ask(Table(9, [])) == Answer(9)


def test_one_rule_answers_for_what_it_names(tmp_path: Path) -> None:
    """Whatever fields a rule names, it holds for a flow that has them and for no other."""
    for count in range(len(Field) + 1):
        for keys in itertools.combinations(ASKED, count):
            words = {key: ASKED[key] for key in keys}
            asked = table(tmp_path, installed(5, direction=Direction.FORWARD, **words))
            contest = Contest(SERVICE.value, (Contender(5, Action.VISIT),))
            assert ask(asked) == Answer(3, (contest,))
            for key in keys:
                wrong = table(tmp_path, installed(5, **(words | {key: OTHERS[key]})))
                assert ask(wrong) == Answer(3), (keys, key)


def test_answers_are_matched_where_a_rule_says_both(tmp_path: Path) -> None:
    """Source and destination exchanged: with `both`, and not with `forward` in the same tuple."""
    asked = table(
        tmp_path,
        installed(1, sources=[A], destinations=[B]),
        installed(2, sources=[A], destinations=[B], direction=Direction.FORWARD),
    )
    assert numbers(ask(asked, A, B)) == [1]
    assert numbers(ask(asked, B, A)) == [1]
    forward = table(tmp_path, installed(2, destinations=[B], direction=Direction.FORWARD))
    assert numbers(ask(forward, A, B)) == [2]
    assert numbers(ask(forward, B, A)) == []


def test_a_flow_to_oneself_meets_a_rule_once(tmp_path: Path) -> None:
    """The same rule found forwards and backwards contends once."""
    late = installed(1, sources=[A], destinations=[A], size_min=10)
    asked = table(tmp_path, late, installed(2, destinations=[A], size_min=5))
    assert numbers(ask(asked, A, A)) == [1, 2]


def test_two_sets_must_both_hold(tmp_path: Path) -> None:
    """A rule is entered by one of its sets; the others are asked too, both ways."""
    rule = installed(1, sources=[A, C], destinations=[B, name(1)], payload_types=[0, 2])
    asked = table(tmp_path, rule)
    assert numbers(ask(asked, A, B)) == [1]
    assert numbers(ask(asked, C, name(1), payload_type=2)) == [1]
    assert numbers(ask(asked, B, A)) == [1]
    assert numbers(ask(asked, B, C)) == [1]
    assert numbers(ask(asked, B, B)) == []
    assert numbers(ask(asked, name(2), B)) == []
    assert numbers(ask(asked, A, B, payload_type=1)) == []


def test_a_chunk_made_here_comes_from_no_neighbour(tmp_path: Path) -> None:
    """No ingress is a value of its own, not the neighbour of twenty zeros."""
    asked = table(tmp_path, installed(1, ingress=[b""]), installed(2, ingress=[bytes(20)]))
    assert numbers(ask(asked, ingress=b"")) == [1]
    assert numbers(ask(asked, ingress=bytes(20))) == [2]


def test_contenders_go_by_rank_up_to_the_first_sure_one(tmp_path: Path) -> None:
    """The ISP's first, then priority, visit before pass, the older; behind a sure one nobody."""
    late = {"destinations": [B], "size_min": 1}
    asked = table(
        tmp_path,
        installed(1, is_own=False, priority=99, **late),
        installed(2, priority=-5, **late),
        installed(3, priority=4, action=Action.PASS, **late),
        installed(4, priority=4, **late),
        installed(5, priority=4, **late),
        installed(6, priority=-6, sources=[A]),
        installed(7, priority=-7, sources=[A], destinations=[B]),
    )
    assert numbers(ask(asked)) == [4, 5, 3, 2, 6]


def test_rules_of_several_segments_contend(tmp_path: Path) -> None:
    """A new segment stands beside the old one; what is withdrawn is passed over in both."""
    late = {"destinations": [B], "size_min": 1}
    segments = [
        segment(tmp_path, [installed(1, **late), installed(2, **late)]),
        segment(tmp_path, [installed(3, priority=1, **late), installed(4, sources=[A])]),
    ]
    assert numbers(ask(Table(1, segments))) == [3, 1, 2, 4]
    assert numbers(ask(Table(2, segments, {1, 3}))) == [2, 4]
    assert ask(Table(2, segments, {1, 2, 3, 4})) == Answer(2)


def test_each_service_has_a_contest(tmp_path: Path) -> None:
    """Rules about different services do not contend; those of a long list are shared by flows."""
    many = [installed(9 + index, size_min=1 + index) for index in range(2 * LONG_RUN)]
    asked = table(tmp_path, installed(1, service=OTHER_SERVICE, destinations=[B]), *many)
    one, other = ask(asked), ask(asked, destination=C)
    assert [contest.sid for contest in one.contests] == [SERVICE.value, OTHER_SERVICE.value]
    assert len(one.contests[0].contenders) == 2 * LONG_RUN
    assert one.contests[0] is other.contests[0]


def test_late_conditions_are_told(tmp_path: Path) -> None:
    """Size and the ids of patterns come with the contender, for each chunk to be asked."""
    rule = installed(1, size_min=2, size_max=7, patterns=(Pattern(b"x"),), needs_all_patterns=True)
    (contest,) = ask(table(tmp_path, rule)).contests
    late = Late(2, 7, (ord("x"),), needs_all_patterns=True)
    assert contest.contenders == (Contender(1, Action.VISIT, late),)


def test_an_answer_ends_where_validity_does(tmp_path: Path) -> None:
    """`until_s` is the next moment at which a rule of the flow begins or ends to be valid."""
    asked = table(
        tmp_path,
        installed(1, destinations=[B], valid_from_s=10, valid_until_s=20),
        installed(2, destinations=[B], valid_until_s=15, size_min=1, priority=1),
        installed(3, destinations=[C], valid_until_s=12),
    )
    for now_s, expected, until_s in [
        (9.9, [2], 10),
        (10, [2, 1], 15),
        (15, [1], 20),
        (20, [], math.inf),
    ]:
        answer = ask(asked, now_s=now_s)
        assert (numbers(answer), answer.until_s) == (expected, until_s)


@pytest.mark.parametrize("count", [1, LONG_RUN])
def test_rules_that_name_nothing_come_and_go(tmp_path: Path, count: int) -> None:
    """What holds for all flows is worked out once, and again when validity says so."""
    rules = [
        installed(1 + index, size_min=1, valid_from_s=10, valid_until_s=20)
        for index in range(count)
    ]
    asked = table(tmp_path, *rules)
    for now_s, expected in [(5, 0), (10, count), (19, count), (20, 0), (15, count), (5, 0)]:
        assert len(numbers(ask(asked, now_s=now_s))) == expected


def test_shadow_rules_are_told_apart(tmp_path: Path) -> None:
    """They are in the contests as they would be, and only where one of them contends."""
    asked = table(
        tmp_path,
        installed(1, destinations=[B]),
        installed(2, destinations=[B], priority=1, mode=Mode.SHADOW, action=Action.PASS),
        installed(3, destinations=[C], mode=Mode.SHADOW),
        installed(4, destinations=[A]),
        installed(5, destinations=[A], priority=-1, mode=Mode.SHADOW),
    )
    both = ask(asked, C, B)
    assert numbers(both) == [1]
    contest = Contest(SERVICE.value, (Contender(2, Action.PASS),))
    assert both.shadow_contests == (contest,)
    only = ask(asked, name(1), C)
    assert only.contests == ()
    assert [one.contenders[0].number for one in only.shadow_contests] == [3]
    assert ask(asked, name(1), A).shadow_contests == ()


def test_preparing_changes_no_answer(tmp_path: Path) -> None:
    """Long runs are read in small steps before, or in one when asked: the same answer."""
    rules = [
        installed(1 + index, destinations=[B], priority=index % 7, size_min=1 + index % 3)
        for index in range(1000)
    ]
    cold, ready = table(tmp_path, *rules), table(tmp_path, *rules)
    assert len(list(ready.prepare(0.0))) >= 4
    assert ready.segments[0].kept_count == 1000
    assert cold.segments[0].kept_count == 0
    assert ask(ready) == ask(cold)
    order = sorted(rules, key=lambda one: one.rank, reverse=True)
    assert numbers(ask(ready)) == [one.number for one in order]


def test_segments_of_two_secrets_are_refused(tmp_path: Path) -> None:
    """A question is hashed once for all segments."""
    segments = [segment(tmp_path, []), segment(tmp_path, [], bytes(32))]
    with pytest.raises(LocalMisuseError, match="one secret"):
        Table(1, segments)
