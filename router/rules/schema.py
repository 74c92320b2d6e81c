"""The JSON Schema of documents of rules, as the file docs/reference/rule.schema.json.

`python -m packetcloud.router.rules.schema FILE` writes it again after a change; a test compares. It
says what each field may be; what must hold between fields is checked by the reader alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packetcloud.router.rules.document import HEAD_FIELDS
from packetcloud.router.rules.fields import RULE_FIELDS
from packetcloud.router.rules.pattern_fields import PATTERN_FIELDS
from packetcloud.router.rules.records import Field
from packetcloud.router.rules.values import TEXT_NAME, Schema


def schema_text() -> str:
    """Return what must stand in the file."""
    return json.dumps(document_schema(), indent=2) + "\n"


def document_schema() -> Schema:
    """Return the schema of a document as people write it; `$defs` has those of its parts.

    A line of JSON Lines is a `head` (the first), a `rule` or a `withdrawal`.
    """
    pattern = _table("What stands in a payload", PATTERN_FIELDS)
    pattern["oneOf"] = [{"required": [form]} for form in ("text", "hex", "regex")]
    document = _table("A document of demultiplexing rules: a change of a set", HEAD_FIELDS)
    document["properties"] |= {
        "rule": {"type": "array", "items": {"$ref": "#/$defs/rule"}},
        "withdraw": {
            "description": "names of rules that leave the set",
            "type": "array",
            "items": TEXT_NAME.schema,
        },
    }
    withdrawal = {
        "type": "object",
        "properties": {"withdraw": TEXT_NAME.schema},
        "required": ["withdraw"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "$defs": {
            "head": _table("What a document says about all its items", HEAD_FIELDS),
            "rule": _table("A demultiplexing rule", RULE_FIELDS),
            "pattern": pattern,
            "withdrawal": withdrawal,
        },
    }


def _table(title: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "properties": {
            key: {"description": field.about} | field.kind.schema for key, field in fields.items()
        },
        "required": [key for key, field in fields.items() if field.is_required],
        "additionalProperties": False,
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
