"""A keeper in a folder for tests, and how its version is asked: as the data plane asks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from packetcloud.chunk.grants import Grant
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID_ZERO
from packetcloud.router.rules.document import Head
from packetcloud.router.rules.judge import judge
from packetcloud.router.rules.keeper import Keeper, files_of
from packetcloud.router.rules.patterns import finds
from packetcloud.router.rules.policy import RulePolicy
from packetcloud.router.rules.reread import Rereader
from packetcloud.router.rules.rule import InstalledRule, Question
from packetcloud.router.rules.table_files import LoadedTable, load_table
from packetcloud.router.settings import RuleSettings
from tests.unit.router.rules.rule_documents import (
    DAY_S,
    ISP,
    NOW_S,
    OWNER,
    ROUTER,
    SERVICE,
    body_of,
    signed,
)

POLICY = RulePolicy(ROUTER, frozenset({SERVICE.sid.value}), RuleSettings(frozenset({ISP.guid})))


def head(name: str = "test", serial: int = 1, **more: Any) -> Head:
    """Return a head that is valid for a day."""
    return replace(Head(name, serial, None, valid_until_s=NOW_S + DAY_S), **more)


class Kept:
    """A keeper that can be left and opened again, and the table that its last answer names."""

    def __init__(self, folder: Path, policy: RulePolicy = POLICY) -> None:
        self.folder = folder
        self.policy = policy
        self.now_s = float(NOW_S)
        self.loaded: LoadedTable | None = None
        self.uploads = 0
        self.open()

    def open(self) -> None:
        """Begin a keeper, as after a restart of the router."""
        self.keeper = Keeper(self.folder, lambda: self.now_s)
        self.loaded = None
        self.load(self.keeper.open(self.policy, 0))

    def close(self) -> None:
        self.keeper.close()

    def load(self, state: dict[str, Any]) -> None:
        self.loaded = load_table(
            self.folder, state["version"], files_of(state), self.loaded, self.now_s
        )

    def configure(self, policy: RulePolicy) -> None:
        self.load(self.keeper.configure(policy, self.version))

    @property
    def version(self) -> int:
        return self.loaded.table.version if self.loaded is not None else 0

    def install(
        self,
        *records: dict[str, Any] | bytes,
        head: Head | None = None,
        signer: Identity = ISP,
        grants: Iterable[Grant] = (),
        is_dry_run: bool = False,
    ) -> dict[str, Any]:
        """Install a document, load the version, and return the answer."""
        return self.install_file(
            signed(body_of(*records, head=head or globals()["head"]()), signer, grants),
            is_dry_run=is_dry_run,
        )

    def install_file(self, document: bytes, *, is_dry_run: bool = False) -> dict[str, Any]:
        self.uploads += 1
        path = self.folder / f"upload-{self.uploads}"
        path.write_bytes(document)
        answer = self.keeper.install(path, is_dry_run=is_dry_run, in_force=self.version)
        path.unlink()
        if "state" in answer:
            self.load(answer["state"])
        return answer

    def installed(self) -> list[InstalledRule]:
        """Return the rules in force, as the store has them."""
        store, reader = self.keeper.store, Rereader(self.keeper.store)
        sets = {one.id: one for one in store.sets()}
        return [
            InstalledRule(row.number, its.name, its.signer, its.is_own, reader.rule(row))
            for row in store.rules()
            if not (its := sets[row.set_id]).is_suspended
        ]

    def names_for(self, destination: bytes = OWNER.guid.value, payload: bytes = b"") -> set[str]:
        """Return the rules that decide about a chunk: both the table's word and the plain one."""
        rules = self.installed()
        question = Question(bytes(20), destination, SID_ZERO.value, 1, b"n" * 20, payload)
        plain = judge(rules, question, self.now_s, finds)
        assert self.loaded is not None
        table = self.loaded.table
        answer = table.ask(
            question.source, destination, question.sid, 1, question.ingress, self.now_s
        )
        found = (
            table.scanner.found(memoryview(payload))
            if table.scanner is not None and answer.needs_scan
            else frozenset()
        )
        by_number = {one.number: one.rule.name for one in rules}
        winners = [contest.winner(len(payload), found) for contest in answer.contests]
        names = {by_number[one.number] for one in winners if one is not None}
        assert names == {one.rule.name for one in plain.winners.values()}
        return names
