"""Rules made without their constructors are the same."""

from __future__ import annotations

import dataclasses
import inspect

from packetcloud.chunk.names import SID
from packetcloud.router.rules.making import make_installed, make_match, make_rule
from packetcloud.router.rules.rule import (
    Action,
    Direction,
    IfAbsent,
    InstalledRule,
    Match,
    Mode,
    Pattern,
    Rule,
)


def test_each_value_goes_to_its_field() -> None:
    """Equal and hashed as if the constructor had made them; no field is left out or exchanged."""
    one, two, three = (frozenset({bytes([number]) * 20}) for number in range(3))
    sizes = (1, 2, (Pattern(b"a"),), True, Direction.FORWARD)
    match = make_match(one, two, three, frozenset({7}), one, *sizes)
    assert match == Match(one, two, three, frozenset({7}), one, *sizes)
    values = (Action.PASS, Mode.SHADOW, 5, 1.0, 2.0, IfAbsent.REFUSE)
    rule = make_rule("n", SID(b"s" * 20), match, *values)
    made = Rule("n", SID(b"s" * 20), match, *values)
    assert (rule, hash(rule), repr(rule)) == (made, hash(made), repr(made))
    assert make_installed(3, "s", b"g" * 20, True, rule) == InstalledRule(
        3, "s", b"g" * 20, True, rule
    )


def test_the_arguments_are_the_fields_in_order() -> None:
    """A field that a rule gets anew is missed here, not in the data plane."""
    for make, kind in (
        (make_match, Match),
        (make_rule, Rule),
        (make_installed, InstalledRule),
    ):
        names = [field.name for field in dataclasses.fields(kind)]
        assert list(inspect.signature(make).parameters) == names
