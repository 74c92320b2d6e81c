"""The published schema of rules is generated, and says what the reader does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk import grant_chains, grants
from packetcloud.router.rules import document, fields, pattern_fields, signed, values
from packetcloud.router.rules.document import HEAD_FIELDS, ItemError
from packetcloud.router.rules.fields import RULE_FIELDS
from packetcloud.router.rules.pattern_fields import PATTERN_FIELDS
from packetcloud.router.rules.records import Field
from packetcloud.router.rules.refusals import KeeperRefusal, Refusal
from packetcloud.router.rules.schema import document_schema, schema_text
from tests.unit.router.rules.rule_documents import items_of, rule_record
from tests.unit.router.rules.small_schema import is_valid
from tests.unit.router.rules.test_rule_documents import REFUSED

REFERENCE = Path(__file__).parents[4] / "docs" / "reference"
PAGE = (REFERENCE / "rules.md").read_text()
SCHEMA = document_schema()
BETWEEN_FIELDS = (
    "after valid_from", "the set's", "size_min or more", "nothing fits", "there are no patterns",
    "passes its service by",
)  # fmt: skip
"""What no schema says."""


def test_the_file_is_what_the_code_says() -> None:
    """docs/reference/rule.schema.json is current: write it with python -m ....rules.schema."""
    assert (REFERENCE / "rule.schema.json").read_text() == schema_text()


@pytest.mark.parametrize(("record", "words"), REFUSED, ids=[str(f)[:40] for f, _ in REFUSED])
def test_the_schema_refuses_what_the_reader_refuses(record: dict[str, Any], words: str) -> None:
    """Field by field the two are one; only what holds between fields is the reader's alone."""
    is_between = any(text in words for text in BETWEEN_FIELDS)
    is_in_text_only = record in ({"source": [A, A]}, {"patterns": {"text": "\ud800"}})
    accepted = is_valid(rule_record(**record), SCHEMA["$defs"]["rule"], SCHEMA)
    assert accepted is (is_between or is_in_text_only)


A = "aa" * 20
VALUES: list[Any] = [
    None, True, 0, 1, -1, 255, 256, 1 << 32, 1.5, "", "a", "A b", "data", "any", "both", "visit",
    "shadow", A, A.upper(), A[1:], A + "a", "0" * 40, "f" * 40, "F" * 40, [], [A], ["f" * 40],
    [A, "b"], [0], [0, 300], {}, {"text": "a"}, {"hex": "0"}, {"hex": "0aF"}, {"hex": "0aFf"},
    [{"regex": "a", "from": 1, "to": 9}], [{"text": "a"}, {"text": ""}], {"regex": "a", "x": 1},
    "2026-01-01T00:00:00Z", "2026-01-01 00:00:00.5+01:00", "2026-01-01T00:00:00", "2026-01-01",
    "1", 1_000_001, "a\n", A + "\n", A + "  ", "é",
]  # fmt: skip


@pytest.mark.parametrize("key", RULE_FIELDS)
def test_every_field_of_a_rule_is_one_in_both(key: str) -> None:
    """Whatever stands in one field, reader and schema agree about it."""
    for value in VALUES:
        record = rule_record() | {key: value}
        (item,) = items_of(record)
        is_bad = isinstance(item, ItemError) and not any(
            text in item.text for text in BETWEEN_FIELDS
        )
        assert is_valid(record, SCHEMA["$defs"]["rule"], SCHEMA) is not is_bad, (key, value, item)


def _documented(heading: str, first: str) -> list[str]:
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = section.split(f"\n| {first}", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `([\w ]+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "first", "table"),
    [
        ("Document", "key of the head", HEAD_FIELDS),
        ("Rule", "field", RULE_FIELDS),
        ("Rule", "key of a pattern", PATTERN_FIELDS),
    ],
)
def test_every_field_stands_in_the_page(heading: str, first: str, table: dict[str, Field]) -> None:
    """Fields and their order are those of the reader."""
    assert _documented(heading, first) == list(table)


def test_every_refusal_stands_in_the_page() -> None:
    """Reasons and their order are those of the code."""
    assert _documented("Refusals", "reason") == [
        reason.value for reason in (*Refusal, *KeeperRefusal)
    ]


def test_every_cap_stands_in_the_page() -> None:
    """The numbers of the page are those of the code."""
    section = PAGE.split("\n## Caps\n", 1)[1]
    cells = re.findall(r"^\| ([a-z ]+) \| ([\d ]+)(MiB|KiB)? \|$", section, re.MULTILINE)
    units = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    listed = {what: int(number.replace(" ", "")) * units[unit] for what, number, unit in cells}
    assert listed == {
        "items in a document": document.MAX_ITEMS_COUNT,
        "bytes in a line": document.MAX_LINE_BYTES,
        "bytes in an envelope": signed.MAX_ENVELOPE_BYTES,
        "characters in a name": values.MAX_NAME_CHARS,
        "names in one set of a rule": values.MAX_NAMES_COUNT,
        "combinations of the sets of a rule": fields.MAX_COMBINATIONS_COUNT,
        "patterns in a rule": pattern_fields.MAX_PATTERNS_COUNT,
        "bytes in a pattern": pattern_fields.MAX_PATTERN_BYTES,
        "routers in an audience": document.MAX_AUDIENCE_COUNT,
        "grants in a document": signed.MAX_GRANTS_COUNT,
        "bytes in a grant": grants.MAX_GRANT_BYTES,
        "names in a grant": grants.MAX_GRANT_NAMES_COUNT,
        "services in a grant": grants.MAX_GRANT_SERVICES_COUNT,
        "names in all grants of a document": grant_chains.MAX_BOOK_NAMES_COUNT,
        "grants of a document that name one name": grant_chains.MAX_GRANTS_OF_NAME_COUNT,
        "links in a chain": grant_chains.MAX_CHAIN_LINKS_COUNT,
    }
