"""What routers have of the sets of rules that a domain gives them, as their cloudlets say.

A set is given as a whole, and its serial only grows, so what is wanted of a cloudlet is one number:
whatever is lost, late or twice, telling it again until it names that number comes to the same end.
Source: docs/protocol/channel.md, "Rules".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

MAX_SETS_AT_CLOUDLET_COUNT = 1024
"""Sets of rules that one cloudlet keeps for its router: what it says of all of them is a frame."""
MAX_REFUSALS_COUNT = 16
"""Rules of a set of which a cloudlet says why its router refused them; the others are counted."""


class RulesState(StrEnum):
    """How far a set of rules has come at a cloudlet."""

    PENDING = "pending"
    """The cloudlet has not said that it has it: it is away, or busy."""
    WAITING = "waiting"
    """The cloudlet has it, and its router has not: it is away, or keeps no rules."""
    INSTALLED = "installed"
    """The router has all of it, and nothing else of the set."""
    PARTLY = "partly"
    """The router refused some of its rules."""
    REFUSED = "refused"
    """The router refused it as a whole, or the cloudlet did."""
    DIFFERENT = "different"
    """The router has a newer document of the set, which did not come from here."""


@dataclass(frozen=True, slots=True)
class RefusedRule:
    """One rule that a router refused."""

    name: str
    reason: str
    """As docs/reference/rules.md, "Refusals", has it."""
    text: str


@dataclass(frozen=True, slots=True)
class SetState:
    """What a cloudlet says of one set."""

    rule_set: str
    serial: int
    """Of the document that it has."""
    state: RulesState
    accepted_count: int = 0
    refused_count: int = 0
    revoked_count: int = 0
    """Rules out of force, as a grant that they need was taken back."""
    text: str = ""
    refusals: tuple[RefusedRule, ...] = ()
    """The first of them; none in the sum of all sets."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a cloudlet is to have of a set, and what it said last."""

    rule_set: str
    serial: int
    is_answered: bool
    """It need not be told again."""
    said: SetState | None = None

    @property
    def state(self) -> RulesState:
        """How far it is with what it is to have."""
        if self.said is None or self.said.serial < self.serial:
            return RulesState.PENDING
        if self.said.serial > self.serial:
            return RulesState.DIFFERENT
        return self.said.state


def heard(told: Told, said: SetState | None, *, is_whole: bool) -> Told:
    """Return what is known once a cloudlet said something.

    Args:
        said: None: it does not have the set.
        is_whole: it was said in the sum of all sets, which names no refusals.
    """
    if said is None:
        return replace(told, is_answered=False, said=None) if told.is_answered else told
    if said.serial < told.serial:
        return replace(told, is_answered=False)
    if is_whole and said.refused_count:
        known = told.said
        if known is None or _refusing(known) != _refusing(said):
            # Which rules those are is said in the answer to the document alone.
            return replace(told, is_answered=False, said=said)
        said = replace(said, refusals=known.refusals)
    return replace(told, is_answered=True, said=said)


def _refusing(said: SetState) -> tuple[int, int]:
    return said.serial, said.refused_count
