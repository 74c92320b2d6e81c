"""Takes the items of one document into the store, and says what became of each.

All of it happens inside one change of the store, which the caller ends or undoes.
Source: docs/decisions/0012; docs/reference/rules.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from packetcloud.router.errors import RuleStoreError
from packetcloud.router.rules.document import ItemError, LineItem, Withdrawal
from packetcloud.router.rules.making import make_installed
from packetcloud.router.rules.pattern_book import PatternBook
from packetcloud.router.rules.policy import RulePolicy
from packetcloud.router.rules.refusals import KeeperRefusal, Refusal, Refused
from packetcloud.router.rules.rule import InstalledRule, Mode, Rule
from packetcloud.router.rules.rule_writer import RuleWriter
from packetcloud.router.rules.segment_entries import entry_count
from packetcloud.router.rules.store import (
    MAX_NUMBER,
    RuleStore,
    StoredRow,
    StoredRule,
    StoredSet,
)

MAX_LISTED_COUNT = 200
"""Items that an answer lists: all of a short document, of a longer one those refused. They are read
on the router's loop, a millisecond or two."""
_BATCH_COUNT = 2000
_SHADOW = Mode.SHADOW


@dataclass(slots=True)
class Outcome:
    """What became of the items."""

    lists_all: bool
    accepted: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    items: list[dict[str, Any]] = field(default_factory=list)

    def note(self, number: int, name: str, result: str, reason: str = "", text: str = "") -> None:
        """Count an item, and list it if there is room."""
        setattr(self, result, getattr(self, result) + 1)
        if reason:
            self.reasons[reason] += 1
        if (self.lists_all or reason) and len(self.items) < MAX_LISTED_COUNT:
            item = {"item": number, "name": name, "result": result}
            self.items.append(item | {"reason": reason, "detail": text})

    @property
    def listed(self) -> str:
        if self.lists_all:
            return "all"
        return "refused" if self.refused <= MAX_LISTED_COUNT else "some refused"


class Room:
    """How much more the store takes of one signer. A rule counts as its entries."""

    def __init__(self, store: RuleStore, policy: RulePolicy, signer: bytes, is_own: bool) -> None:
        totals, limits = store.totals(), policy.settings
        left = [(limits.max_rules - totals.entries, "max_rules")]
        if not is_own:
            entries, _ = store.holdings(signer)
            left += [
                (limits.max_third_party_rules - totals.third_party, "max_third_party_rules"),
                (limits.max_signer_rules - entries, "max_signer_rules"),
            ]
        self._least, self._limit = min(left)
        self._taken = 0

    def take(self, entries: int) -> str | None:
        """Take room for so many more, or fewer; or say why there is none."""
        if self._taken + entries > self._least and entries > 0:
            left = max(self._least - self._taken, 0)
            return f"it takes {entries} and {left} are left of [rules] {self._limit}"
        self._taken += entries
        return None


class Intake:
    """One document on its way into the store.

    Args:
        stored_set: the set that it changes, which has its id already.
        document: id of the document in the store.
        says_the_same: tells whether a rule that stands in the set with the same words says the
            same, as its document may have said something else for all its rules.
        refusal: says why the signer may not say a rule.
        before: the store as it was before the change; names of a document are different, so what a
            name stood for is found there.
        writer: enters and removes rules meanwhile.
    """

    def __init__(
        self,
        store: RuleStore,
        stored_set: StoredSet,
        document: int,
        room: Room,
        patterns: PatternBook,
        outcome: Outcome,
        says_the_same: Callable[[StoredRule], bool],
        refusal: Callable[[Rule], Refused | None],
        before: RuleStore,
        writer: RuleWriter,
    ) -> None:
        self.outcome = outcome
        self.gone: list[int] = []
        """Numbers of the rules that left."""
        self._store = store
        self._set = stored_set
        self._document = document
        self._room = room
        self._patterns = patterns
        self._says_the_same = says_the_same
        self._refusal = refusal
        self._before = before
        self._writer = writer
        self._names: set[str] = set()
        self._replaces = False
        self._left_out: set[str] = set()
        """Namesakes of refused items for which no room was left."""
        self._count = 0
        self._next_number = store.next_number
        self._rules = self._shadow_rules = self._entries = 0
        """So many more has the set now."""

    def take(self, items: Iterator[LineItem], *, replaces: bool) -> Iterator[InstalledRule]:
        """Take all items; yield the rules that are new. Nothing is done beyond what is consumed.

        Args:
            replaces: rules of the set that no item names leave it.
        """
        self._replaces = replaces
        if replaces:
            self._room.take(-self._set.entries)
        while batch := list(islice(items, _BATCH_COUNT)):
            yield from self._take_batch(batch)
        if replaces:
            stays = self._names - self._left_out
            rest = [one for one in self._before.rules_of(self._set.id) if one.name not in stays]
            for one in rest:
                self.outcome.note(0, one.name, "withdrawn")
            self._remove(rest)
        self._writer.flush()
        self._store.take_numbers(self._next_number)
        self._store.add_counts(self._set.id, self._rules, self._shadow_rules, self._entries)

    def _take_batch(self, batch: list[LineItem]) -> list[InstalledRule]:
        there: dict[str, StoredRule] = {}
        if self._set.rules:
            names = [item.name for _, item in batch if item.name]
            there = {one.name: one for one in self._before.named(self._set.id, names)}
        outcome = self.outcome
        gone: list[StoredRule] = []
        new: list[tuple[str, Rule, int]] = []
        for line, item in batch:
            self._count += 1
            before = there.get(item.name)
            entries = 0
            is_first = item.name not in self._names
            try:
                entries = self._admit(item, before)
            except _RefusedItemError as error:
                outcome.note(self._count, item.name, "refused", error.reason, error.text)
                if before is not None and is_first and self._replaces:
                    self._keep(before)
                continue
            if not isinstance(item, Rule):
                outcome.note(self._count, item.name, "unchanged" if before is None else "withdrawn")
            elif before is not None and before.item == line and self._says_the_same(before):
                outcome.note(self._count, item.name, "unchanged")
                continue
            else:
                new.append((line, item, entries))
                if outcome.lists_all:
                    outcome.note(self._count, item.name, "accepted")
                else:
                    outcome.accepted += 1
            if before is not None:
                gone.append(before)
        self._remove(gone)
        return self._enter(new)

    def _admit(self, item: Rule | Withdrawal | ItemError, before: StoredRule | None) -> int:
        """Take name and room for an item; return its entries.

        Raises:
            _RefusedItemError: the item is refused.
        """
        name, names = item.name, self._names
        if name in names or isinstance(item, ItemError):
            # In a set that becomes exactly this document the rule of that name stays as it is.
            names.add(name)
            if isinstance(item, ItemError):
                raise _RefusedItemError(KeeperRefusal.WRONG_FIELD, item.text)
            text = "an item of that name stands further up"
            raise _RefusedItemError(KeeperRefusal.REPEATED, text)
        names.add(name)
        # Where the whole set is replaced its room was freed before the first item.
        freed = before.entries if before is not None and not self._replaces else 0
        if isinstance(item, Withdrawal):
            self._room.take(-freed)
            return 0
        refused = self._refusal(item)
        if refused is not None:
            raise _RefusedItemError(refused.reason, refused.text)
        entries = entry_count(item.match)
        problem = self._room.take(entries - freed)
        if problem is not None:
            raise _RefusedItemError(KeeperRefusal.TOO_MANY_RULES, problem)
        if item.match.patterns:
            problem = self._patterns.take(item.match.patterns)
            if problem is not None:
                self._room.take(freed - entries)
                raise _RefusedItemError(KeeperRefusal.TOO_MANY_PATTERNS, problem)
        return entries

    def _keep(self, rule: StoredRule) -> None:
        """Leave a rule in a set that is replaced, if there is room beside what was taken."""
        if self._room.take(rule.entries) is not None:
            self._left_out.add(rule.name)
        elif self._patterns.take_again(rule.number) is not None:
            self._room.take(-rule.entries)
            self._left_out.add(rule.name)

    def refuse(self, numbers: Sequence[int], reason: KeeperRefusal, text: str) -> None:
        """Take back rules that were accepted; a namesake of before that they replaced is gone."""
        rows = list(self._store.numbered(numbers))
        self._store.remove_rules(rows)
        names = {row.name for row in rows}
        outcome = self.outcome
        outcome.accepted -= len(rows)
        listed = {one["name"]: one for one in outcome.items if one["result"] == "accepted"}
        for name in names:
            one = listed.get(name)
            if one is not None:
                outcome.items.remove(one)
            outcome.note(one["item"] if one is not None else 0, name, "refused", reason, text)
        outcome.items.sort(key=lambda item: item["item"])

    def _remove(self, rules: list[StoredRule]) -> None:
        if not rules:
            return
        numbers = [one.number for one in rules]
        self.gone += numbers
        self._rules -= len(rules)
        self._shadow_rules -= sum(one.is_shadow for one in rules)
        self._entries -= sum(one.entries for one in rules)
        self._writer.put(partial(self._store.remove_numbers, numbers))

    def _enter(self, new: list[tuple[str, Rule, int]]) -> list[InstalledRule]:
        if not new:
            return []
        first = self._next_number
        self._next_number += len(new)
        if self._next_number - 1 > MAX_NUMBER:
            raise RuleStoreError("no numbers are left for further rules; begin with a new folder")
        rows: list[StoredRow] = []
        uses: list[tuple[int, int]] = []
        installed = []
        of_set, set_id, document = self._set, self._set.id, self._document
        for number, (line, rule, entries) in enumerate(new, first):
            is_shadow = rule.mode is _SHADOW
            self._shadow_rules += is_shadow
            self._entries += entries
            until_s = rule.valid_until_s if rule.valid_until_s != math.inf else None
            service = rule.service.value
            rows.append(
                (number, set_id, rule.name, service, is_shadow, until_s, entries, document, line)
            )
            if rule.match.patterns:
                uses += [(number, self._patterns.number(one)) for one in {*rule.match.patterns}]
            installed.append(
                make_installed(number, of_set.name, of_set.signer, of_set.is_own, rule)
            )
        self._rules += len(new)
        self._writer.put(partial(self._store.put_rules, rows))
        if uses:
            self._writer.put(partial(self._store.put_pattern_uses, uses))
        return installed


class _RefusedItemError(Exception):
    """An item is refused."""

    def __init__(self, reason: Refusal | KeeperRefusal, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
