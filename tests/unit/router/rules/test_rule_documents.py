"""Documents of rules: what is taken, and what is refused with which sentence."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest

from packetcloud.router.rules import document
from packetcloud.router.rules.document import (
    MAX_LINE_BYTES,
    Head,
    ItemError,
    Withdrawal,
    head_of_line,
    line_of,
    lines_of,
    read_items,
)
from packetcloud.router.rules.errors import RuleDocumentError
from packetcloud.router.rules.fields import MAX_COMBINATIONS_COUNT, RULE_FIELDS
from packetcloud.router.rules.pattern_fields import MAX_PATTERN_BYTES, MAX_PATTERNS_COUNT
from packetcloud.router.rules.rule import (
    MAX_SIZE_BYTES,
    Action,
    Direction,
    IfAbsent,
    Match,
    Mode,
    Pattern,
    Rule,
)
from packetcloud.router.rules.values import MAX_NAME_CHARS, MAX_NAMES_COUNT, MAX_PRIORITY
from tests.unit.router.rules.rule_documents import (
    HEAD,
    NOW_S,
    OWNER,
    SERVICE,
    STRANGER,
    body_of,
    items_of,
    opened,
    rule_record,
    signed,
    takes_any_pattern,
)

A, B = "aa" * 20, "bb" * 20


def _names(count: int) -> list[str]:
    return [number.to_bytes(20, "big").hex() for number in range(count)]


def test_a_rule_with_every_field() -> None:
    """Each field of an item arrives in the rule."""
    (rule,) = items_of(
        rule_record(
            name="web/1",
            action="pass",
            mode="shadow",
            priority=-3,
            valid_from="2026-01-01T00:00:00Z",
            valid_until="2026-01-01T02:00:00+01:00",
            source=[A, B],
            destination=OWNER.guid.hex,
            sid="00" * 20,
            payload_type=["data", 200],
            ingress=STRANGER.guid.hex,
            size_min=10,
            size_max=20,
            direction="forward",
            patterns=[
                {"text": "GET ", "ignore_case": True, "from": 1, "to": 9},
                {"hex": "00ff"},
                {"regex": "a+b"},
            ],
            patterns_needed="all",
        )
    )
    assert rule == Rule(
        "web/1",
        SERVICE.sid,
        Match(
            frozenset({bytes.fromhex(A), bytes.fromhex(B)}),
            frozenset({OWNER.guid.value}),
            frozenset({bytes(20)}),
            frozenset({0, 200}),
            frozenset({STRANGER.guid.value}),
            10,
            20,
            (
                Pattern(b"GET ", ignore_case=True, start=1, end=9),
                Pattern(b"\x00\xff"),
                Pattern(b"a+b", is_regex=True),
            ),
            True,
            Direction.FORWARD,
        ),
        Action.PASS,
        Mode.SHADOW,
        -3,
        1_767_225_600.0,
        1_767_229_200.0,
    )


def test_a_rule_says_what_becomes_of_a_chunk_without_its_service() -> None:
    """Nothing, unless it demands the service."""
    rules = items_of(rule_record(), rule_record(if_absent="skip"), rule_record(if_absent="refuse"))
    assert [one.if_absent for one in rules if isinstance(one, Rule)] == [
        IfAbsent.SKIP,
        IfAbsent.SKIP,
        IfAbsent.REFUSE,
    ]


def test_what_a_rule_leaves_out_comes_from_its_head() -> None:
    """Mode and validity are the set's; all else is as rule.py has it."""
    head = replace(HEAD, mode=Mode.SHADOW, valid_from_s=NOW_S)
    (rule,) = items_of(rule_record(), head=head)
    match = Match(destinations=frozenset({OWNER.guid.value}))
    expected = Rule("r", SERVICE.sid, match, mode=Mode.SHADOW)
    assert rule == replace(
        expected, valid_from_s=head.valid_from_s, valid_until_s=head.valid_until_s
    )


def test_both_ways_is_the_default_where_there_are_ends() -> None:
    """A rule that names no end says forward whatever is written: both would mean the same."""
    rules = items_of(
        rule_record(destination=None),
        rule_record(destination=None, direction="both"),
        rule_record(destination=None, source=A),
        rule_record(direction="forward"),
    )
    directions = [rule.match.direction for rule in rules if isinstance(rule, Rule)]
    assert directions == [Direction.FORWARD, Direction.FORWARD, Direction.BOTH, Direction.FORWARD]


def test_a_withdrawal() -> None:
    """An item may be the name of a rule that goes."""
    assert items_of({"withdraw": "old"}) == [Withdrawal("old")]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"nmae": "x"}, "nmae: unknown key; allowed: name, service, action,"),
    ({"name": None}, "item 1: name: missing; allowed: 1 to 128 of letters"),
    ({"name": ""}, 'name = "": allowed:'),
    ({"name": "a b"}, 'name = "a b": allowed: 1 to 128 of letters, digits and . _ : / -'),
    ({"name": "ä"}, "name ="),
    ({"name": "a\n"}, 'name = "a\\n": allowed:'),
    ({"name": 7}, "item 1: name = 7: allowed:"),
    ({"name": "n" * (MAX_NAME_CHARS + 1)}, "name ="),
    ({"service": None}, 'item 1 "r": service: missing; allowed: the SID of a service'),
    ({"service": "00" * 20}, "neither all 0 nor all f"),
    ({"service": "ff" * 20}, "neither all 0 nor all f"),
    ({"service": [A]}, "service ="),
    ({"action": "drop"}, 'action = "drop": allowed: "visit", "pass"'),
    ({"action": ["visit"]}, 'action = [\'visit\']: allowed: "visit", "pass"'),
    ({"mode": "off"}, 'allowed: "active", "shadow"'),
    ({"direction": 1}, 'allowed: "both", "forward"'),
    ({"priority": True}, "priority = True: allowed: a whole number from -1000000 to 1000000"),
    ({"priority": 1.0}, "priority = 1.0"),
    ({"priority": MAX_PRIORITY + 1}, "priority = 1000001"),
    ({"valid_from": "2026-01-01"}, "allowed: a time of RFC 3339 with its zone"),
    ({"valid_until": 5}, "valid_until = 5: allowed: a time of RFC 3339"),
    ({"valid_from": "2999-01-01T00:00:00Z"}, "valid_until: allowed: a time after valid_from"),
    ({"valid_until": "2999-01-01T00:00:00Z"}, "allowed: the set's valid_until or earlier"),
    ({"source": "xyz"}, 'source = "xyz": allowed: 40 hexadecimal digits, or a list of 1 to 65536'),
    ({"source": " " + A[1:]}, "source ="),
    ({"source": []}, "source = []"),
    ({"source": [A, A]}, "different ones"),
    ({"source": [A, "x"]}, 'source[1] = "x": allowed: 40 hexadecimal digits'),
    ({"source": {}}, "source = {}"),
    ({"sid": "ff" * 20}, "sid ="),
    ({"payload_type": 256}, "payload_type = 256: allowed: a number from 0 to 255, 'data'"),
    ({"payload_type": "DATA"}, "payload_type ="),
    ({"size_min": -1}, "size_min = -1: allowed: a whole number from 0 to 4294967295 bytes"),
    ({"size_max": MAX_SIZE_BYTES + 1}, "size_max ="),
    ({"size_min": 2, "size_max": 1}, "size_max = 1: allowed: size_min or more"),
    ({"patterns": []}, "patterns = []: allowed: a pattern, or a list of 1 to 16 patterns"),
    ({"patterns": "GET"}, 'patterns = "GET": allowed: a pattern'),
    ({"patterns": ["GET"]}, 'patterns[0] = "GET": allowed: a pattern'),
    ({"patterns": {}}, "patterns[0]: allowed: exactly one of text, hex, regex"),
    ({"patterns": {"text": "a", "hex": "00"}}, "exactly one of text, hex, regex"),
    ({"patterns": {"text": ""}}, 'patterns[0].text = "": allowed: a text of 1 to 1024 bytes'),
    ({"patterns": {"text": "\ud800"}}, "patterns[0].text ="),
    ({"patterns": {"hex": "0"}}, "patterns[0].hex ="),
    ({"patterns": {"hex": "00 11"}}, "patterns[0].hex ="),
    ({"patterns": {"regex": "a", "flags": 1}}, "patterns[0].flags: unknown key; allowed: text,"),
    ({"patterns": {"text": "abc", "from": 4, "to": 6}}, "nothing fits between from and to"),
    ({"patterns": {"regex": "a", "from": 4, "to": 4}}, "nothing fits between from and to"),
    ({"if_absent": "drop"}, 'allowed: "skip", "refuse"'),
    ({"if_absent": "refuse", "action": "pass"}, "if_absent: the rule passes its service by"),
    ({"patterns_needed": "all"}, "patterns_needed: there are no patterns; leave it out"),
    ({"patterns": {"text": "a"}, "patterns_needed": 1}, 'allowed: "any", "all"'),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=[str(f)[:40] for f, _ in REFUSED])
def test_a_bad_item_is_refused_with_a_sentence(fields: dict[str, Any], words: str) -> None:
    """It names the item, the field and what is allowed, on one line; the next item is taken."""
    bad, good = items_of(rule_record(**fields), rule_record(name="good"))
    assert isinstance(bad, ItemError)
    assert bad.text.startswith("item 1")
    assert words in bad.text
    assert bad.text.isprintable()
    assert len(bad.text) < 600
    assert isinstance(good, Rule)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\n", "item 1: an empty line"),
        (b"{\n", "item 1: no JSON"),
        (b'"name"\n', "item 1: no JSON object"),
        (b"\xff\n", "item 1: no JSON: not UTF-8"),
        (b"[" * 100_000 + b"\n", "item 1: no JSON: nested too deep"),
        (b"9" * 5000 + b"\n", "item 1: "),
        (b'{"name":"a","name":"b"}\n', 'item 1: "name" stands there twice'),
        (b'{"withdraw":"a","name":"b"}\n', 'item 1 "b": name: unknown key; allowed: withdraw'),
        (b'{"withdraw":""}\n', 'item 1 "": withdraw = "": allowed: 1 to 128'),
    ],
    ids=range(9),
)
def test_a_line_that_is_no_item(line: bytes, words: str) -> None:
    """It costs itself and nothing else."""
    bad, good = items_of(line, rule_record())
    assert isinstance(bad, ItemError)
    assert bad.text.startswith(words)
    assert isinstance(good, Rule)


def test_a_pattern_that_the_scanner_refuses() -> None:
    """Whether an expression can be used is for the scanner to say."""
    record = rule_record(patterns=[{"regex": "(a)\\1"}, {"text": "b"}])
    (bad,) = read_items([line_of(record)], HEAD, lambda one: "looks back" if one.is_regex else None)
    assert isinstance(bad, ItemError)
    assert (bad.field, bad.text) == ("patterns[0]", 'item 1 "r": patterns[0]: looks back')


@pytest.mark.parametrize(
    ("name", "expected"), [("n" * MAX_NAME_CHARS, "n" * MAX_NAME_CHARS), ("a b", ""), (7, "")]
)
def test_an_error_has_the_name_of_its_rule(name: Any, expected: str) -> None:
    """Whole, so that the rule of that name is found; what is no name is none."""
    (by_rule,) = items_of(rule_record(name=name, colour="red"))
    (by_withdrawal,) = items_of({"withdraw": name, "colour": "red"})
    assert isinstance(by_rule, ItemError)
    assert isinstance(by_withdrawal, ItemError)
    assert by_rule.name == by_withdrawal.name == expected


AT_CAP: dict[str, tuple[Any, Any]] = {
    "name": ("n" * MAX_NAME_CHARS, "n" * (MAX_NAME_CHARS + 1)),
    "source": (_names(MAX_NAMES_COUNT), _names(MAX_NAMES_COUNT + 1)),
    "sid": (_names(MAX_NAMES_COUNT), _names(MAX_NAMES_COUNT + 1)),
    "payload_type": (list(range(256)), [*range(256), "data"]),
    "patterns": (
        [{"text": "a"}] * MAX_PATTERNS_COUNT,
        [{"text": "a"}] * (MAX_PATTERNS_COUNT + 1),
    ),
    "text": (
        {"text": "ä" * (MAX_PATTERN_BYTES // 2)},
        {"text": "ä" * (MAX_PATTERN_BYTES // 2) + "a"},
    ),
    "hex": ({"hex": "00" * MAX_PATTERN_BYTES}, {"hex": "00" * (MAX_PATTERN_BYTES + 1)}),
}


@pytest.mark.parametrize("what", AT_CAP)
def test_caps_of_a_rule(what: str) -> None:
    """At the cap it is taken, one more is refused."""
    field = what if what in RULE_FIELDS else "patterns"
    at, beyond = AT_CAP[what]
    taken, refused = items_of(rule_record(**{field: at}), rule_record(**{field: beyond}))
    assert isinstance(taken, Rule)
    assert isinstance(refused, ItemError)


def test_the_cap_of_combinations() -> None:
    """Sets that are small each for itself may not multiply beyond what a table takes."""
    side = math.isqrt(MAX_COMBINATIONS_COUNT)
    assert side * side == MAX_COMBINATIONS_COUNT
    names = _names(side + 1)
    taken, refused = items_of(
        rule_record(source=names[:-1], destination=names[:-1]),
        rule_record(source=names[:-1], destination=names),
    )
    assert isinstance(taken, Rule)
    assert isinstance(refused, ItemError)
    assert f"{side * (side + 1)} combinations; allowed: 65536" in refused.text


def test_the_cap_of_a_line() -> None:
    """A line of so many bytes is read, a longer one is an error and is not kept in memory."""
    fits = line_of(rule_record())[:-1].ljust(MAX_LINE_BYTES - 1) + b"\n"
    stream = io.BytesIO(fits + b" " + fits + b" " * (3 * MAX_LINE_BYTES) + b"\n" + fits)
    sizes = []
    lines = []
    for line in lines_of(stream):
        sizes.append(len(line))
        lines.append(line)
    assert max(sizes) == MAX_LINE_BYTES + 1
    kinds = [type(item) for item in read_items(lines, HEAD, takes_any_pattern)]
    assert kinds == [Rule, ItemError, ItemError, Rule]


def test_the_cap_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document with one item more is refused as a whole, signed or not."""
    monkeypatch.setattr(document, "MAX_ITEMS_COUNT", 3)
    monkeypatch.setattr("packetcloud.router.rules.signed.MAX_ITEMS_COUNT", 3)
    rules = [rule_record(name=f"r{number}") for number in range(4)]
    assert len(items_of(*rules[:3])) == 3
    assert opened(signed(body_of(*rules[:3]))).item_count == 3
    with pytest.raises(RuleDocumentError, match="over 3 items"):
        items_of(*rules)
    with pytest.raises(RuleDocumentError, match="over 3 items"):
        signed(body_of(*rules))


def test_a_head_goes_and_comes_back() -> None:
    """What `to_bytes` writes is what `head_of_line` reads."""
    full = Head("s/1", 7, frozenset({bytes(20), b"\1" * 20}), 1e9, 2e9 + 0.5, True, Mode.SHADOW)
    for head in (HEAD, full):
        assert head_of_line(head.to_bytes()) == head


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"serial": 0}, "head: serial = 0: allowed: a whole number from 1 to"),
        ({"serial": 1 << 63}, "head: serial ="),
        ({"serial": None}, "head: serial: missing"),
        ({"set": None}, "head: set: missing"),
        ({"audience": None}, "head: audience: missing"),
        ({"audience": "all"}, 'head: audience = "all": allowed: "any", or GUIDs of routers'),
        ({"audience": []}, "head: audience = []"),
        ({"audience": [A, "b"]}, 'head: audience[1] = "b"'),
        ({"audience": _names(4097)}, "1 to 4096"),
        ({"format": "packetcloud-rules-2"}, 'allowed: "packetcloud-rules-1"'),
        ({"replace": "yes"}, 'head: replace = "yes": allowed: true or false'),
        ({"rules": []}, "head: rules: unknown key; allowed: format, set, serial"),
        ({"valid_from": "2999-01-01T00:00:00Z"}, "valid_until: allowed: a time after valid_from"),
    ],
    ids=str,
)
def test_a_bad_head_is_refused_with_a_sentence(fields: dict[str, Any], words: str) -> None:
    """It names the field and what is allowed."""
    record: dict[str, Any] = {
        "format": "packetcloud-rules-1",
        "set": "s",
        "serial": 1,
        "audience": "any",
        "valid_until": "2030-01-01T00:00:00Z",
    }
    record = {key: value for key, value in (record | fields).items() if value is not None}
    with pytest.raises(RuleDocumentError) as caught:
        head_of_line(line_of(record))
    assert words in str(caught.value)
