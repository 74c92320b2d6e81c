"""Reads rules again that are in the store already: what was accepted once is not checked again."""

from __future__ import annotations

import json

from packetcloud.router.rules.document import head_of_line
from packetcloud.router.rules.fields import Defaults, read_rule
from packetcloud.router.rules.rule import Rule
from packetcloud.router.rules.store import RuleStore, StoredRule


class Rereader:
    """Makes rules of rows; keeps what each document says for all its rules."""

    def __init__(self, store: RuleStore) -> None:
        self._store = store
        self._defaults: dict[int, Defaults] = {}

    def rule(self, row: StoredRule) -> Rule:
        """Return the rule of a row."""
        return read_rule(json.loads(row.item), self.defaults(row.document), lambda _: None)

    def defaults(self, document: int) -> Defaults:
        """Return what a document says for all its rules."""
        known = self._defaults.get(document)
        if known is None:
            known = head_of_line(self._store.document(document).head).defaults
            self._defaults[document] = known
        return known
