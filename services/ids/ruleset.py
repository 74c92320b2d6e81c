"""All rules of one version of the file, compiled: which of them may a payload concern?

One scan looks for one content of each rule: the one that its author marked `fast_pattern`, else the
longest; and for hints at its others. Rules without any are candidates always; their number has a
cap. Rules come
in the order in which they are asked: pass, drop, reject, rate-limit, alert; those that set marks of
flows before those that ask for them; by priority; by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.services.ids.errors import EngineError
from packetcloud.services.ids.matching import Budget, Plan, Searched, holds
from packetcloud.services.ids.reader import Refusal, RuleFile
from packetcloud.services.ids.rule import ACTION_ORDER, Content, Part, Pcre, Rule
from packetcloud.services.ids.scanner import (
    Finder,
    Scanner,
    Sought,
    compile_finder,
    compile_scanner,
    content_sought,
)

LEAST_HINT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule, and how it is confirmed."""

    rule: Rule
    plan: Plan
    is_settled: bool
    """That the scan found it is all that it asks of the payload."""
    is_placed: bool


class RuleSet:
    """Compiled rules, in the order in which they are asked.

    Args:
        entries: in that order.
        scanner: of what is sought.
        owners: for each id of the scanner, the places of the entries that seek it.
        hints: for each entry, other ids that must be there, too.
        unseen: places of the entries that seek nothing.
    """

    def __init__(
        self,
        entries: tuple[Entry, ...],
        scanner: Scanner | None,
        owners: tuple[tuple[int, ...], ...],
        hints: tuple[frozenset[int], ...],
        unseen: tuple[int, ...],
    ) -> None:
        self.entries = entries
        self.scanner = scanner
        self._owners = owners
        self._hints = hints
        self._unseen = unseen

    def candidates(self, payload: memoryview | bytes) -> set[int]:
        """Return the places of the entries that may match, without `unseen`."""
        if self.scanner is None:
            return set()
        found = self.scanner.found(payload)
        hints = self._hints
        return {
            place for number in found for place in self._owners[number] if hints[place] <= found
        }

    @property
    def unseen(self) -> tuple[int, ...]:
        """Places of the entries that are asked about every payload."""
        return self._unseen

    def matches(self, entry: Entry, searched: Searched, budget: Budget) -> bool:
        """Tell whether a candidate's parts hold.

        Raises:
            OverBudgetError: that would take more work than is left.
        """
        if entry.is_settled and not searched.borders:
            return True
        return holds(entry.plan, searched, budget)


def compile_rules(
    file: RuleFile, pause: Callable[[], object] = lambda: None
) -> tuple[RuleSet, tuple[Refusal, ...]]:
    """Compile the rules of a file; return them, and those that the engine refuses.

    Args:
        pause: called after each rule.

    Raises:
        EngineError: the engine takes none of them, or not all together.
    """
    refusals: list[Refusal] = []
    found: dict[bytes, Finder] = {}
    taken: list[tuple[Rule, dict[int, Finder]]] = []
    for rule in sorted(file.rules, key=_order):
        try:
            taken.append((rule, _finders(rule, found)))
        except EngineError as error:
            refusals.append(Refusal(rule.line, 1, f"sid {rule.sid}: pcre: {error}"))
        pause()
    ids: dict[Sought, int] = {}
    owners: list[list[int]] = []
    unseen: list[int] = []
    hints: list[frozenset[int]] = []
    chosen: list[int | None] = []

    def number_of(sought: Sought) -> int:
        number = ids.setdefault(sought, len(ids))
        if number == len(owners):
            owners.append([])
        return number

    for place, (rule, _) in enumerate(taken):
        part = _fast(rule)
        chosen.append(part)
        hints.append(frozenset(map(number_of, _hints(rule, part))))
        if part is None:
            unseen.append(place)
        else:
            owners[number_of(_sought(rule.parts[part]))].append(place)
        pause()
    scanner = compile_scanner(list(ids)) if ids else None
    is_exact = scanner is not None and scanner.is_exact
    entries = tuple(
        Entry(
            rule,
            Plan.of(rule.parts, finders),
            not rule.parts or (is_exact and part == 0 and _is_all_sought(rule.parts)),
            rule.is_placed,
        )
        for (rule, finders), part in zip(taken, chosen, strict=True)
    )
    ruleset = RuleSet(entries, scanner, tuple(map(tuple, owners)), tuple(hints), tuple(unseen))
    return ruleset, tuple(refusals)


def _order(rule: Rule) -> tuple[int, int, int, int]:
    """Return what rules are sorted by."""
    marks = 1 if not rule.bits else 2 if rule.questions else 0
    if rule.questions and rule.changes:
        marks = 1
    return ACTION_ORDER[rule.action], marks, rule.priority, rule.line


def _fast(rule: Rule) -> int | None:
    """Return which part of a rule the scan looks for; None: it has none that must be there."""
    contents = [
        (part.is_fast, len(part.pattern), -number)
        for number, part in enumerate(rule.parts)
        if isinstance(part, Content) and not part.is_negated
    ]
    if contents:
        return -max(contents)[2]
    for number, part in enumerate(rule.parts):
        if isinstance(part, Pcre) and not part.is_negated:
            return number
    return None


def _is_all_sought(parts: tuple[Part, ...]) -> bool:
    """Tell whether what the scan looks for is all that is asked."""
    return len(parts) == 1 and not (isinstance(parts[0], Content) and parts[0].is_relative)


def _sought(part: Part) -> Sought:
    if isinstance(part, Content):
        return content_sought(part)
    assert isinstance(part, Pcre)
    return Sought(part.expression)


def _hints(rule: Rule, fast: int | None) -> list[Sought]:
    """Return what else must be there, of contents that are long enough to be rare."""
    return [
        content_sought(part, is_hint=True)
        for number, part in enumerate(rule.parts)
        if isinstance(part, Content)
        and not part.is_negated
        and number != fast
        and len(part.pattern) >= LEAST_HINT_BYTES
    ]


def _finders(rule: Rule, known: dict[bytes, Finder]) -> dict[int, Finder]:
    """Compile the expressions of a rule; equal ones once."""
    finders: dict[int, Finder] = {}
    for number, part in enumerate(rule.parts):
        if isinstance(part, Pcre):
            if part.expression not in known:
                known[part.expression] = compile_finder(part)
            finders[number] = known[part.expression]
    return finders
