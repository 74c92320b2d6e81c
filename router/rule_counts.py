"""What rules did to chunks, and what rules in shadow mode would have done.

Counted for each chunk when its visit begins, by rule and in total. A rule counts where it decides:
it is the one of highest rank that matches, and its service has not run in this visit before.
Source: docs/reference/router.md, "Rules".
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from packetcloud.router.late_rules import Winners
from packetcloud.router.rules.answer import Contender, Contest
from packetcloud.router.rules.number_counts import NumberCounts
from packetcloud.router.rules.rule import Action


@dataclass(frozen=True, slots=True)
class Tally:
    """What one more chunk with the same outcome adds."""

    numbers: tuple[int, ...]
    """Rules that decide."""
    shadow_numbers: tuple[int, ...]
    """Rules in shadow mode that would."""
    visits_count: int
    passes_count: int
    shadow_visits_count: int
    shadow_passes_count: int
    would_differ: bool
    """With the shadow rules, the chunk would visit other services."""
    unhosted_count: int
    """Rules that decide for a service that is not at this cloudlet."""


class RuleCounts:
    """All counts of one router; they outlive versions of the rules, as rules keep their numbers."""

    def __init__(self) -> None:
        self.visits_count = 0
        self.passes_count = 0
        self.shadow_visits_count = 0
        self.shadow_passes_count = 0
        self.would_differ_count = 0
        self.unhosted_count = 0
        self.scanned_count = 0
        """Payloads looked at for patterns."""
        self.scanned_bytes = 0
        self.late_forgotten_count = 0
        """How often a flow had so many kinds of chunks that all were forgotten."""
        self._of_rule = NumberCounts()
        self._of_shadow = NumberCounts()
        self.by_number = (self._of_rule, self._of_shadow)
        """What is forgotten when rules are gone: see `rules.number_sweep`."""

    @property
    def uncounted_count(self) -> int:
        """Decisions of rules for whose own count there was no room."""
        return self._of_rule.uncounted_count + self._of_shadow.uncounted_count

    def of(self, number: int) -> tuple[int, int]:
        """Return for how many chunks a rule decided, and would have while in shadow mode."""
        return self._of_rule.of(number), self._of_shadow.of(number)

    def add(self, tally: Tally) -> None:
        """Count one chunk."""
        for number in tally.numbers:
            self._of_rule.add(number)
        for number in tally.shadow_numbers:
            self._of_shadow.add(number)
        self.visits_count += tally.visits_count
        self.passes_count += tally.passes_count
        self.shadow_visits_count += tally.shadow_visits_count
        self.shadow_passes_count += tally.shadow_passes_count
        self.would_differ_count += tally.would_differ
        self.unhosted_count += tally.unhosted_count


def deciders(
    contests: Sequence[Contest], winners: Winners, ran: Set[bytes]
) -> dict[bytes, Contender]:
    """Return who decides about each service that has not run in this visit before, by its SID."""
    return {
        contest.sid: winner
        for contest, winner in zip(contests, winners, strict=True)
        if winner is not None and contest.sid not in ran
    }


def tally_of(
    active: dict[bytes, Contender], would: dict[bytes, Contender] | None, unhosted_count: int
) -> Tally:
    """Return what a chunk adds.

    Args:
        active: who decides about each service.
        would: who would with the shadow rules; None: there are none.
    """
    shadow = [] if would is None else [would[sid] for sid in would if would[sid] != active.get(sid)]
    visits_count = sum(one.action is Action.VISIT for one in active.values())
    shadow_visits_count = sum(one.action is Action.VISIT for one in shadow)
    return Tally(
        tuple(one.number for one in active.values()),
        tuple(one.number for one in shadow),
        visits_count,
        len(active) - visits_count,
        shadow_visits_count,
        len(shadow) - shadow_visits_count,
        would is not None and _visited(would) != _visited(active),
        unhosted_count,
    )


def _visited(deciders: dict[bytes, Contender]) -> set[bytes]:
    return {sid for sid, one in deciders.items() if one.action is Action.VISIT}
