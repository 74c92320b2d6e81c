"""The plainest search for an expression: sets of places, no engine."""

from __future__ import annotations

from packetcloud.router.rules.expression import Either, Node, OneOf, Repeat, Sequence
from packetcloud.router.rules.expression_reader import literal, parse
from packetcloud.router.rules.rule import Pattern


def naively_finds(pattern: Pattern, payload: bytes) -> bool:
    """Tell whether some match lies wholly within the pattern's range of the payload."""
    read = parse if pattern.is_regex else literal
    expression = read(pattern.expression, ignore_case=pattern.ignore_case)
    end = len(payload) if pattern.end is None else min(len(payload), pattern.end)
    for branch in expression.branches:
        begins = {0} if branch.from_begin else set(range(len(payload) + 1))
        ends = _ends(branch.node, payload, {begin for begin in begins if begin >= pattern.start})
        if any(one <= end and (not branch.to_end or one == len(payload)) for one in ends):
            return True
    return False


def _ends(node: Node, payload: bytes, begins: set[int]) -> set[int]:
    match node:
        case OneOf(members):
            return {at + 1 for at in begins if at < len(payload) and payload[at] in members}
        case Sequence(parts):
            for part in parts:
                begins = _ends(part, payload, begins)
            return begins
        case Either(parts):
            return set().union(*(_ends(part, payload, begins) for part in parts))
        case Repeat(part, least, most):
            return _ends_of_repeat(part, least, most, payload, begins)


def _ends_of_repeat(
    part: Node, least: int, most: float, payload: bytes, begins: set[int]
) -> set[int]:
    for _ in range(least):
        begins = _ends(part, payload, begins)
    ends, count = set(begins), least
    while begins and count < most:
        begins = _ends(part, payload, begins) - ends
        ends |= begins
        count += 1
    return ends
