"""The keeper's work: documents in, versions of the rules out. No process, no network.

Every change is one transaction of the store, in which the files of the new version are named; what
it answers is in force as soon as the router has loaded them. Source: docs/decisions/0012.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packetcloud.chunk.revocations import MAX_REVOCATION_BYTES
from packetcloud.router.errors import PatternError, SegmentError
from packetcloud.router.rules.errors import RuleDocumentError, RulesRefusedError
from packetcloud.router.rules.evidence import Evidence
from packetcloud.router.rules.installer import Installer, NothingInstalled
from packetcloud.router.rules.memory import give_memory_back
from packetcloud.router.rules.pattern_book import PatternBook
from packetcloud.router.rules.policy import RulePolicy
from packetcloud.router.rules.policy_change import PolicyChange
from packetcloud.router.rules.refusals import KeeperRefusal, Refusal
from packetcloud.router.rules.reread import Rereader
from packetcloud.router.rules.revoker import Revoker, read_revocation
from packetcloud.router.rules.rule import InstalledRule
from packetcloud.router.rules.store import RuleStore, StoredFile
from packetcloud.router.rules.table_files import Kind, TableFiles

EXPIRED_KEPT_S = 3600.0
"""So long after its end a rule can still be looked at."""
TIDY_COUNT = 50_000
"""Rules removed at a time."""
_log = logging.getLogger("packetcloud.router.keeper")

Answer = dict[str, Any]


class Keeper:
    """The rules of one router.

    Args:
        now_s: returns seconds since 1970.
    """

    def __init__(self, folder: Path, now_s: Callable[[], float]) -> None:
        self.store = RuleStore.open(folder)
        self._before = RuleStore.open(folder, is_reader=True)
        self._folder = folder
        self._now_s = now_s
        self._tables = TableFiles(folder, self.store.secret, self.store.take_file_number)
        self._evidence = Evidence(folder)
        self._policy: RulePolicy | None = None
        self._versions: dict[int, list[str]] = {}
        """The files of each version that the router may still have to load."""

    def close(self) -> None:
        """Leave the store."""
        self._before.close()
        self.store.close()

    def open(self, policy: RulePolicy, in_force: int) -> Answer:
        """Make sure that the last version can be loaded, under this policy; return it.

        Args:
            in_force: the version that the router has; 0: none.
        """
        try:
            self._tables.check(self.store.files())
        except (SegmentError, PatternError, OSError) as error:
            _log.warning("rules are compiled anew, as their table cannot be read: %s", error)
            with self.store.change():
                self._make_anew("damage")
        if not in_force:
            self._evidence.keep_only(self.store.digests())
        return self.configure(policy, in_force)

    def configure(self, policy: RulePolicy, in_force: int) -> Answer:
        """Take a policy: what it does not allow any more goes out of force."""
        with self.store.change():
            change = PolicyChange(self.store, self._evidence, policy, self._now_s())
            if change.apply():
                self._make_anew("config")
        for line in change.told:
            _log.warning("%s", line)
        self._policy = policy
        return self._state(in_force)

    def install(self, path: Path, *, is_dry_run: bool, in_force: int) -> Answer:
        """Take a document: every item by itself, or none of them, with the reason."""
        assert self._policy is not None, "opened before"
        installer = Installer(
            self.store, self._before, self._tables, self._evidence, self._policy, self._now_s()
        )
        try:
            with path.open("rb") as stream, self.store.change():
                installer.install(stream, path, is_dry_run=is_dry_run)
        except NothingInstalled:
            self._state(in_force)  # removes what was written in vain
            return {"outcome": installer.answer()}
        except RulesRefusedError as error:
            return _refusal(error.refused.reason, error.refused.text)
        except RuleDocumentError as error:
            return _refusal(KeeperRefusal.UNREADABLE, str(error))
        except PatternError as error:
            return _refusal(KeeperRefusal.TOO_MANY_PATTERNS, str(error))
        except (sqlite3.Error, OSError):
            # On a full disk the next document, or a withdrawal, needs the room.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._evidence.keep_only(self.store.digests())
                self._state(in_force)
            raise
        return {"outcome": installer.answer(), "state": self._state(in_force)}

    def revoke(self, path: Path, *, in_force: int) -> Answer:
        """Take back the grant that a file revokes, and the rules out of force that rest on it."""
        assert self._policy is not None, "opened before"
        try:
            with path.open("rb") as stream:
                revocation = read_revocation(stream.read(MAX_REVOCATION_BYTES + 1))
            with self.store.change():
                self.store.revocations.forget(self._now_s())
                revoker = Revoker(self.store, self._evidence, self._policy, self._now_s())
                is_new, rules = revoker.apply(revocation)
                if rules:
                    self._take_out([one.number for one in rules])
                    self.store.note_change(self._now_s(), "revocation", withdrawn=len(rules))
        except RulesRefusedError as error:
            return _refusal(error.refused.reason, error.refused.text)
        outcome = {
            "grant": revocation.grant.digest.hex(),
            "issuer": revocation.grant.issuer.hex(),
            "until_s": revocation.grant.valid_until_s,
            "is_new": is_new,
            "rules": len(rules),
        }
        return {"outcome": outcome, "state": self._state(in_force)}

    def tidy(self, in_force: int) -> Answer:
        """Remove what ended a while ago, and what is needed no more; return the version."""
        with self.store.change():
            self.store.revocations.forget(self._now_s())
            ended = self.store.ended(self._now_s() - EXPIRED_KEPT_S, TIDY_COUNT)
            if ended:
                self.store.remove_rules(ended)
                self.store.forget_documents()
                self._take_out([one.number for one in ended])
                self.store.note_change(self._now_s(), "ended", withdrawn=len(ended))
            if PatternBook.of_all(self.store).is_wasteful:
                self._make_anew("patterns")
        self._evidence.keep_only(self.store.digests())
        return self._state(in_force)

    def _take_out(self, numbers: Collection[int]) -> None:
        """Take rules out of the table; the version is the caller's."""
        files = self.store.files()
        scanner = [one for one in files if one.kind == Kind.SCANNER]
        self.store.put_files(self._tables.grown(files, None, numbers) + scanner)

    def rest(self) -> None:
        """Do what nobody waits for, after a large change: its memory first, then its log."""
        if self.store.is_log_long():
            self.store.shrink()
            self._before.shrink()
            give_memory_back()
            self.store.checkpoint()

    def _make_anew(self, what: str) -> None:
        """Write all files from the store. O(rules): some 10 s for a million."""
        self.store.forget_patterns()
        book = PatternBook.of_all(self.store)
        sets = {one.id: one for one in self.store.sets()}
        revoked = self.store.revocations.revoked_rules()
        reader = Rereader(self.store)

        def rules() -> Iterator[InstalledRule]:
            for row in self.store.rules():
                rule = reader.rule(row)
                if rule.match.patterns:
                    problem = book.take(rule.match.patterns)
                    assert problem is None, problem
                    self.store.put_pattern_uses(
                        (row.number, book.number(one)) for one in {*rule.match.patterns}
                    )
                its_set = sets[row.set_id]
                if not its_set.is_suspended and row.number not in revoked:
                    yield InstalledRule(
                        row.number, its_set.name, its_set.signer, its_set.is_own, rule
                    )

        segment = self._tables.write_rules(rules(), book.number)
        files = [segment] if segment.rules else []
        self.store.put_files(files + self._tables.write_scanner(book.for_scanner()))
        self.store.note_change(self._now_s(), what)

    def _state(self, in_force: int) -> Answer:
        """Return what the router has to load, and remove files that it does not need."""
        version, files = self.store.version, self.store.files()
        knows_all = not in_force or in_force in self._versions or in_force == version
        self._versions[version] = [one.name for one in files]
        if knows_all:
            self._versions = {
                one: names for one, names in self._versions.items() if one >= in_force
            }
            self._tables.remove_others(name for names in self._versions.values() for name in names)
        totals = self.store.totals()
        return {
            "version": version,
            "files": [asdict(one) for one in files],
            "totals": asdict(totals),
            "gone": self.store.gone_count(),
        }


def files_of(state: Answer) -> list[StoredFile]:
    """Return the files that an answer names."""
    return [StoredFile(**one) for one in state["files"]]


def _refusal(reason: Refusal | KeeperRefusal, text: str) -> Answer:
    return {"refusal": {"reason": reason.value, "detail": text}}
