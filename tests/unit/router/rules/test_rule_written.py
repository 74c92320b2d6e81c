"""Documents as people write them: TOML, JSON and JSON Lines say the same."""

from __future__ import annotations

import io
import json

import pytest

from packetcloud.router.rules.document import Withdrawal, head_of_line, lines_of, read_items
from packetcloud.router.rules.errors import RuleDocumentError
from packetcloud.router.rules.rule import Rule
from packetcloud.router.rules.written import MAX_WRITTEN_BYTES, open_written
from tests.unit.router.rules.rule_documents import SERVICE, rule_record, takes_any_pattern

S = SERVICE.sid.hex
HEAD = {
    "format": "packetcloud-rules-1",
    "set": "s",
    "serial": 3,
    "audience": "any",
    "valid_until": "2030-01-01T00:00:00Z",
}
RULES = [
    rule_record(name="a", valid_until="2029-12-31T23:00:00Z"),
    rule_record(name="b", patterns=[{"text": "GET"}]),
]
TOML = f"""
format = "packetcloud-rules-1"
set = "s"
serial = 3
audience = "any"
valid_until = 2030-01-01T01:00:00+01:00
withdraw = ["c"]

[[rule]]
name = "a"
service = "{S}"
destination = "{RULES[0]["destination"]}"
valid_until = 2029-12-31 23:00:00Z

[[rule]]
name = "b"
service = "{S}"
destination = "{RULES[1]["destination"]}"

[[rule.patterns]]
text = "GET"
"""
WHOLE = HEAD | {"rule": RULES, "withdraw": ["c"]}
LINES = "\n".join(map(json.dumps, [HEAD, *RULES, {"withdraw": "c"}]))


@pytest.mark.parametrize(
    "text",
    [TOML, json.dumps(WHOLE), json.dumps(WHOLE, indent=1), LINES, LINES + "\n"],
    ids=["toml", "json", "json of many lines", "lines", "lines with an end"],
)
def test_all_forms_say_the_same(text: str) -> None:
    """Head and items are those of every other form."""
    body = open_written(io.BytesIO(text.encode()))
    lines = lines_of(body)
    head = head_of_line(next(lines))
    assert (head.set_name, head.serial, head.valid_until_s) == ("s", 3, 1_893_456_000.0)
    first, second, third = read_items(lines, head, takes_any_pattern)
    assert isinstance(first, Rule)
    assert isinstance(second, Rule)
    assert (first.name, first.valid_until_s) == ("a", 1_893_452_400.0)
    assert second.match.patterns[0].expression == b"GET"
    assert third == Withdrawal("c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "head: format: missing"),
        (b"\xff", "not TOML"),
        (b"= 1", "not TOML: Invalid"),
        (b"{", "no JSON: Expecting property name"),
        (b'{"format": 1,\n "format": 2}', '"format" stands there twice'),
        (b"{" + b'"a":{' * 100_000, "no JSON: nested too deep"),
        (b"a = " + b"[" * 100_000, "not TOML"),
        (b"serial = 0x" + b"f" * 6000, "a value is too large"),
        (b'{"rule": {}}', "rule: allowed: a list of rules; in TOML each begins with [[rule]]"),
        (b"withdraw = 'a'", "withdraw: allowed: a list of names"),
        (
            b'rules = []\nformat = "packetcloud-rules-1"',
            "rules: unknown key; allowed: format, set, serial, audience, valid_from, valid_until, "
            "replace, mode, rule, withdraw",
        ),
        (b"#" * (MAX_WRITTEN_BYTES + 1), "write JSON Lines"),
    ],
    ids=range(12),
)
def test_what_is_no_document(text: bytes, words: str) -> None:
    """It is refused as a whole, with what is wrong."""
    with pytest.raises(RuleDocumentError) as caught:
        open_written(io.BytesIO(text))
    assert words in str(caught.value)


def test_the_cap_of_what_is_read_whole() -> None:
    """A document of exactly so many bytes is read."""
    text = TOML.encode()
    padded = text + b"#" * (MAX_WRITTEN_BYTES - len(text))
    assert open_written(io.BytesIO(padded)).read(1) == b"{"
