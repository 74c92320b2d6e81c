"""The fields of a rule in a document, and how a rule is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from packetcloud.router.rules.errors import RuleFieldError
from packetcloud.router.rules.making import make_match, make_rule
from packetcloud.router.rules.pattern_fields import PATTERNS
from packetcloud.router.rules.records import Field, read_fields
from packetcloud.router.rules.rule import (
    MAX_SIZE_BYTES,
    Action,
    Direction,
    IfAbsent,
    Mode,
    Pattern,
    Rule,
)
from packetcloud.router.rules.values import (
    ASKED_SIDS,
    NAMES,
    PAYLOAD_TYPES,
    PRIORITY,
    SERVICE,
    SIZE,
    TEXT_NAME,
    TIME,
    word,
)

MAX_COMBINATIONS_COUNT = 65_536
"""Of one rule: names and types of all its sets multiplied; each is an entry of the table."""

CheckPattern = Callable[[Pattern], str | None]
"""Tells why a pattern cannot be used; None: it can."""


class Needed(StrEnum):
    """How many of its patterns a rule needs."""

    ANY = "any"
    ALL = "all"


RULE_FIELDS = {
    "name": Field(TEXT_NAME, "unique in its set", is_required=True),
    "service": Field(SERVICE, "where matching chunks go", is_required=True),
    "action": Field(word(Action), "`visit` the service, or `pass` it by; default `visit`"),
    "mode": Field(word(Mode), "`shadow` counts and has no effect; default: the set's"),
    "priority": Field(PRIORITY, "the larger wins; default 0"),
    "valid_from": Field(TIME, "from then on; default: the set's"),
    "valid_until": Field(TIME, "not from then on; default: the set's"),
    "source": Field(NAMES, "GUIDs of sources"),
    "destination": Field(NAMES, "GUIDs of destinations"),
    "sid": Field(ASKED_SIDS, "what the chunk asks for next"),
    "payload_type": Field(PAYLOAD_TYPES, "types of the payload"),
    "ingress": Field(NAMES, "GUIDs of the neighbours that the chunk came from"),
    "size_min": Field(SIZE, "payload bytes; default 0"),
    "size_max": Field(SIZE, "payload bytes, itself included; default: no limit"),
    "direction": Field(
        word(Direction),
        "`both`: source and destination may be the other way round; default `both`",
    ),
    "patterns": Field(PATTERNS, "what stands in the payload"),
    "patterns_needed": Field(word(Needed), "`any` or `all` of the patterns; default `any`"),
    "if_absent": Field(
        word(IfAbsent),
        "at a router that does not know the service: `skip` it, or `refuse` the chunk; "
        "default `skip`",
    ),
}
_READERS = {key: field.kind.read for key, field in RULE_FIELDS.items()}
_PLAIN = frozenset(("name", "service", "action", "mode", "priority", "direction", "destination"))
"""Fields whose values contradict no other; one set of names is never too many combinations. Rules
that come by the million have no others."""
_NONE: frozenset[Any] = frozenset()
_BOTH, _FORWARD, _VISIT = Direction.BOTH, Direction.FORWARD, Action.VISIT
_SKIP = IfAbsent.SKIP
"""A lookup in an enum takes as long as one of these reads."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the head of a document says for all its rules."""

    mode: Mode = Mode.ACTIVE
    valid_from_s: float = -math.inf
    valid_until_s: float = math.inf


def read_rule(record: Mapping[str, Any], defaults: Defaults, check_pattern: CheckPattern) -> Rule:
    """Make a rule of the fields in a document.

    Raises:
        RuleFieldError: a key is unknown or missing, or a value is not allowed.
    """
    values: dict[str, Any] = {}
    try:
        for key, value in record.items():
            values[key] = _READERS[key](value)
        rule_name, service = values["name"], values["service"]
    except (KeyError, ValueError):
        read_fields(record, RULE_FIELDS)
        raise AssertionError("the careful reader took what the quick one refused") from None
    get = values.get
    destinations = get("destination", _NONE)
    is_plain = _PLAIN.issuperset(values)
    if is_plain:
        match = make_match(
            _NONE, destinations, _NONE, _NONE, _NONE, 0, MAX_SIZE_BYTES, (), False,
            get("direction", _BOTH) if destinations else _FORWARD,
        )  # fmt: skip
    else:
        sources = get("source", _NONE)
        match = make_match(
            sources,
            destinations,
            get("sid", _NONE),
            get("payload_type", _NONE),
            get("ingress", _NONE),
            get("size_min", 0),
            get("size_max", MAX_SIZE_BYTES),
            get("patterns", ()),
            "patterns_needed" in values and values["patterns_needed"] is Needed.ALL,
            get("direction", _BOTH) if sources or destinations else _FORWARD,
        )
    rule = make_rule(
        rule_name,
        service,
        match,
        get("action", _VISIT),
        get("mode", defaults.mode),
        get("priority", 0),
        get("valid_from", defaults.valid_from_s),
        get("valid_until", defaults.valid_until_s),
        get("if_absent", _SKIP),
    )
    if not is_plain:
        _refuse_contradictions(rule, values, defaults, check_pattern)
    return rule


def _refuse_contradictions(
    rule: Rule, values: Mapping[str, Any], defaults: Defaults, check_pattern: CheckPattern
) -> None:
    """Refuse what is right field by field and wrong together. Raises: RuleFieldError."""
    match = rule.match
    if match.size_min > match.size_max:
        raise RuleFieldError("size_max", f" = {match.size_max}: allowed: size_min or more")
    if rule.valid_from_s >= rule.valid_until_s:
        raise RuleFieldError("valid_until", ": allowed: a time after valid_from")
    if rule.valid_from_s < defaults.valid_from_s:
        raise RuleFieldError("valid_from", ": allowed: the set's valid_from or later")
    if rule.valid_until_s > defaults.valid_until_s:
        raise RuleFieldError("valid_until", ": allowed: the set's valid_until or earlier")
    if "if_absent" in values and rule.action is not _VISIT:
        raise RuleFieldError("if_absent", ": the rule passes its service by; leave it out")
    if "patterns_needed" in values and not match.patterns:
        raise RuleFieldError("patterns_needed", ": there are no patterns; leave it out")
    combinations = (
        (len(match.sources) or 1)
        * (len(match.destinations) or 1)
        * (len(match.sids) or 1)
        * (len(match.payload_types) or 1)
        * (len(match.ingress) or 1)
    )
    if combinations > MAX_COMBINATIONS_COUNT:
        raise RuleFieldError(
            "source, destination, sid, payload_type, ingress",
            f": {combinations} combinations; allowed: {MAX_COMBINATIONS_COUNT}, "
            "so write several rules",
        )
    for index, pattern in enumerate(match.patterns):
        problem = check_pattern(pattern)
        if problem is not None:
            raise RuleFieldError(f"patterns[{index}]", f": {problem}")
