"""The keeper's part of an explanation: it has what rules say, the router has their table.

The router names the rules that stand under the chunk's names; what matches is among them. Rules
that come near and miss are looked for in the store besides, up to a number.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packetcloud.router.errors import SegmentError
from packetcloud.router.rules.explain import comes_near, explain_rules
from packetcloud.router.rules.explain_report import report_of
from packetcloud.router.rules.patterns import finds
from packetcloud.router.rules.reread import Rereader
from packetcloud.router.rules.rule import InstalledRule, Question
from packetcloud.router.rules.store import RuleStore, StoredRule
from packetcloud.router.rules.table_files import MAX_WITHDRAWN_COUNT, compound_numbers

MAX_SEARCHED_COUNT = 200_000
"""Rules looked through for near misses, about a second; where there are more in all, of those that
name several things."""
MAX_NEAR_COUNT = 20_000
"""Rules that come near: read and asked, about a second."""
MAX_REVOKED_COUNT = 20
"""Revoked rules that an answer names."""
_NAMING = ('"source"', '"destination"', '"sid"', '"payload_type"', '"ingress"')
"""Keys of an item that name something; how a document writes them."""
_BY_OTHER_WORDS = ('"sid"', '"payload_type"')
"""Keys whose values may be written in several ways."""

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RulesQuestion:
    """What the router asks."""

    numbers: frozenset[int]
    """Of the rules that stand under the chunk's names in the table."""
    question: Question
    has_payload: bool
    """Else its payload is zeros of the right number."""
    now_s: float
    """Seconds since 1970."""

    def to_json(self) -> Answer:
        asked = self.question
        return {
            "numbers": sorted(self.numbers),
            "source": asked.source.hex(),
            "destination": asked.destination.hex(),
            "sid": asked.sid.hex(),
            "payload_type": asked.payload_type,
            "ingress": asked.ingress.hex(),
            "now_s": self.now_s,
            "payload_bytes": len(asked.payload),
            "payload": base64.b64encode(asked.payload).decode() if self.has_payload else None,
        }

    @classmethod
    def from_json(cls, values: Answer) -> RulesQuestion:
        payload = values["payload"]
        question = Question(
            bytes.fromhex(values["source"]),
            bytes.fromhex(values["destination"]),
            bytes.fromhex(values["sid"]),
            values["payload_type"],
            bytes.fromhex(values["ingress"]),
            bytes(values["payload_bytes"]) if payload is None else base64.b64decode(payload),
        )
        numbers = frozenset(values["numbers"])
        return cls(numbers, question, payload is not None, values["now_s"])


def explain_from_store(store: RuleStore, folder: Path, values: Answer) -> Answer:
    """Return a `RulesReport` as JSON, and who decides, by SID.

    Args:
        folder: that of the rules.
        values: a `RulesQuestion` as JSON.
    """
    asked = RulesQuestion.from_json(values)
    near = _Near(store, folder, asked)
    near.read_numbered()
    is_complete = near.search()
    totals = store.totals()
    finder = finds if asked.has_payload else _finds_nothing
    explained = explain_rules(
        near.rules,
        asked.question,
        asked.now_s,
        finder,
        rules_count=max(totals.active + totals.shadow, len(near.rules)),
    )
    report = report_of(explained, has_payload=asked.has_payload, is_complete=is_complete)
    winners = {
        sid.hex(): [one.set_name, one.rule.name, one.rule.action.value]
        for sid, one in explained.winners.items()
    }
    told = report.model_dump() | {"revoked": near.revoked[:MAX_REVOKED_COUNT]}
    return {"report": told, "winners": winners}


class _Near:
    """Collects the rules that come near, each once."""

    def __init__(self, store: RuleStore, folder: Path, asked: RulesQuestion) -> None:
        self.rules: list[InstalledRule] = []
        self.revoked: list[str] = []
        """Set and name of those that are out of force, as a grant was revoked."""
        self._store = store
        self._folder = folder
        self._asked = asked
        self._reader = Rereader(store)
        self._sets = {one.id: one for one in store.sets()}
        self._revoked = store.revocations.revoked_rules()

    def read_numbered(self) -> None:
        """Take the rules that the router has named."""
        for row in self._store.numbered(sorted(self._asked.numbers)):
            self._take(row)

    def search(self) -> bool:
        """Look for others that come near; False: there were too many rules to look through."""
        names = [
            name.hex()
            for name in (
                self._asked.question.source,
                self._asked.question.destination,
                self._asked.question.ingress,
            )
            if name
        ]
        for searched, row in enumerate(self._rows()):
            if searched >= MAX_SEARCHED_COUNT or len(self.rules) >= MAX_NEAR_COUNT:
                return False
            # Most items are passed over by their text alone.
            if row.number not in self._asked.numbers and _may_come_near(row.item, names):
                self._take(row)
        return True

    def _rows(self) -> Iterator[StoredRule]:
        """Return the rules among which others may come near.

        Where there are many, those that name one thing are left out: if they come near, they stand
        under a name of the chunk in the table, and the router has named them.
        """
        totals = self._store.totals()
        if totals.active + totals.shadow + totals.suspended > MAX_SEARCHED_COUNT:
            # The files of this state may have made room for those of the next; then all are gone
            # through, as far as it goes.
            with contextlib.suppress(OSError, SegmentError):
                most = MAX_SEARCHED_COUNT + MAX_WITHDRAWN_COUNT + 1
                numbers = compound_numbers(self._folder, self._store.files(), most)
                return self._store.numbered(numbers)
        return self._store.rules()

    def _take(self, row: StoredRule) -> None:
        its_set = self._sets[row.set_id]
        if its_set.is_suspended:
            return
        rule = self._reader.rule(row)
        if not comes_near(rule.match, self._asked.question):
            return
        if row.number in self._revoked:
            self.revoked.append(f"{its_set.name}/{row.name}")
            return
        self.rules.append(
            InstalledRule(row.number, its_set.name, its_set.signer, its_set.is_own, rule)
        )


def _may_come_near(item: str, names: list[str]) -> bool:
    lower = item.lower()
    return (
        any(name in lower for name in names)
        or any(key in lower for key in _BY_OTHER_WORDS)
        or not any(key in lower for key in _NAMING)
    )


def _finds_nothing(pattern: object, payload: bytes) -> bool:
    return False
