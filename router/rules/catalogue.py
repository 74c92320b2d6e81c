"""Answers questions about the installed rules: pages of them, by set and name.

Reads beside the keeper's changes, through a connection of its own, and sees whole changes only.
Source: docs/reference/router.md, "Rules".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.timestamps import parse_time
from packetcloud.router.rules.evidence import Evidence
from packetcloud.router.rules.explain_store import explain_from_store
from packetcloud.router.rules.number_counts import PAGE_COUNT
from packetcloud.router.rules.number_sweep import MAX_PAGES_ASKED_COUNT
from packetcloud.router.rules.reread import Rereader
from packetcloud.router.rules.store import RuleStore, StoredRule, StoredSet

MAX_SCANNED_COUNT = 200_000
"""Rules looked at for one page, about a second: then the page ends, whatever it holds."""
MAX_PAGE_BYTES = 1 << 16
"""Of the items of a page, and the item that does not fit: the router reads it on its loop."""
MAX_ITEM_BYTES = 1 << 12
"""A longer item is shown with the beginnings of its lists."""
SHOWN_NAMES_COUNT = 20

Answer = dict[str, Any]


class Catalogue:
    """The rules in a store, for those who ask."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = RuleStore.open(folder, is_reader=True)
        self._evidence = Evidence(folder)

    def answer(self, question: Answer) -> Answer:
        """Answer a question by its `what`, out of one state of the store."""
        with self._store.reading():
            return self._answer(question)

    def _answer(self, question: Answer) -> Answer:
        match question["what"]:
            case "rules":
                return self.rules(question["filters"], question["cursor"], question["limit"])
            case "explain":
                return explain_from_store(self._store, self._folder, question)
            case "numbers":
                return self.numbers(question["pages"])
            case "rule":
                return self.rule(question["set"], question["name"], question["signer"])
            case _:
                return self.sets(question["cursor"], question["limit"])

    def rules(self, filters: dict[str, str], cursor: str | None, limit: int) -> Answer:
        """Return a page: rules in the order of their set's age and of their names.

        Args:
            filters: `set`, `signer`, `service`, `destination` say what must be so, `name` how the
                name begins; names of 20 bytes in hexadecimal digits.
            cursor: of the page before.
        """
        since_id, since_name = json.loads(cursor) if cursor is not None else (0, "")
        found: list[Answer] = []
        scanned = size = 0
        reader = Rereader(self._store)
        for its_set in self._sets(filters, since_id):
            after = since_name if its_set.id == since_id else ""
            prefix = filters.get("name", "")
            for row in self._store.rules_after(its_set.id, after, prefix):
                if scanned >= MAX_SCANNED_COUNT or len(found) >= limit or size > MAX_PAGE_BYTES:
                    return {"rules": found, "cursor": json.dumps([its_set.id, after])}
                scanned += 1
                after = row.name
                if _matches(row, filters, reader):
                    found.append(self._entry(row, its_set, reader))
                    size += len(row.item)
        return {"rules": found, "cursor": None}

    def rule(self, set_name: str, name: str, signer: str | None) -> Answer:
        """Return one rule, with the document that it came with."""
        filters = {"set": set_name} | ({"signer": signer} if signer is not None else {})
        found = [
            (its_set, row)
            for its_set in self._sets(filters, 0)
            for row in self._store.named(its_set.id, [name])
        ]
        if not found:
            return {"missing": f"no rule {name!r} in a set {set_name!r}; list them: /v1/rules"}
        if len(found) > 1:
            signers = ", ".join(its_set.signer.hex() for its_set, _ in found)
            return {"several": f"several signers have such a rule; say which: {signers}"}
        ((its_set, row),) = found
        document = self._store.document(row.document)
        return {
            "rule": self._entry(row, its_set, Rereader(self._store)),
            "serial": its_set.serial,
            "evidence": {
                "document": document.digest.hex(),
                "received_s": document.received_s,
                "size_bytes": document.size_bytes,
                "path": str(self._evidence.path(document.digest)),
            },
        }

    def numbers(self, pages: list[int]) -> Answer:
        """Return which numbers of some pages rules have: hexadecimal digits for each page.

        Args:
            pages: of `number_counts`, at most `MAX_PAGES_ASKED_COUNT`.
        """
        if len(pages) > MAX_PAGES_ASKED_COUNT:
            raise LocalMisuseError(f"{len(pages)} pages at a time; {MAX_PAGES_ASKED_COUNT}")
        return {"there": [self._there(page).hex() for page in pages]}

    def sets(self, cursor: str | None, limit: int) -> Answer:
        """Return a page of sets, by age, and the sums over all of them."""
        since_id = json.loads(cursor) if cursor is not None else 0
        sets = [one for one in self._sets({}, since_id) if one.id > since_id]
        totals = self._store.totals()
        counts = self._store.revocations.revoked_counts()
        revoked = {one.id: counts.get(one.id, (0, 0)) for one in sets[:limit]}
        return {
            "active": totals.active,
            "shadow": totals.shadow,
            "suspended": totals.suspended,
            "revoked": totals.revoked,
            "sets": [
                {
                    "set": one.name,
                    "signer": one.signer.hex(),
                    "is_own": one.is_own,
                    "is_suspended": one.is_suspended,
                    "serial": one.serial,
                    "active": one.rules - one.shadow_rules - revoked[one.id][0],
                    "shadow": one.shadow_rules - revoked[one.id][1],
                    "revoked": sum(revoked[one.id]),
                }
                for one in sets[:limit]
            ],
            "cursor": json.dumps(sets[limit - 1].id) if len(sets) > limit else None,
        }

    def _there(self, page: int) -> bytes:
        first = page * PAGE_COUNT
        bits = sum(
            1 << number - first
            for number in self._store.numbers_between(first, first + PAGE_COUNT - 1)
        )
        return bits.to_bytes(PAGE_COUNT // 8, "little")

    def _revoked_grant(self, number: int) -> str | None:
        grant = self._store.revocations.revoked_by(number)
        return grant.hex() if grant is not None else None

    def _sets(self, filters: dict[str, str], since_id: int) -> Iterator[StoredSet]:
        signer = bytes.fromhex(filters["signer"]) if "signer" in filters else None
        name = filters.get("set")
        for one in self._store.sets() if name is None else self._store.sets_named(name):
            if one.id >= since_id and signer in (None, one.signer):
                yield one

    def _entry(self, row: StoredRule, its_set: StoredSet, reader: Rereader) -> Answer:
        item = json.loads(row.item)
        defaults = reader.defaults(row.document)
        from_s = parse_time(item["valid_from"]) if "valid_from" in item else defaults.valid_from_s
        return {
            "number": row.number,
            "set": its_set.name,
            "signer": its_set.signer.hex(),
            "is_own": its_set.is_own,
            "name": row.name,
            "service": row.service.hex(),
            "mode": "shadow" if row.is_shadow else "active",
            "is_suspended": its_set.is_suspended,
            "revoked_grant": self._revoked_grant(row.number),
            "valid_from_s": from_s if from_s != -math.inf else None,
            "valid_until_s": row.until_s,
            "document": self._store.document(row.document).digest.hex(),
            **_shown(item, len(row.item)),
        }


def _matches(row: StoredRule, filters: dict[str, str], reader: Rereader) -> bool:
    if "service" in filters and row.service != bytes.fromhex(filters["service"]):
        return False
    destination = filters.get("destination")
    if destination is None:
        return True
    # Most items are passed over by their text alone.
    return destination.lower() in row.item.lower() and (
        bytes.fromhex(destination) in reader.rule(row).match.destinations
    )


def _shown(item: dict[str, Any], size: int) -> Answer:
    if size <= MAX_ITEM_BYTES:
        return {"item": item, "left_out": 0}
    left_out = 0
    for key, value in item.items():
        if isinstance(value, list) and len(value) > SHOWN_NAMES_COUNT:
            left_out += len(value) - SHOWN_NAMES_COUNT
            item[key] = value[:SHOWN_NAMES_COUNT]
    return {"item": item, "left_out": left_out}
