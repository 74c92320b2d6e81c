"""One document: whether it is believed as a whole, then its items, then the files of the version.

Source: docs/decisions/0012; docs/reference/rules.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from packetcloud.router.rules.errors import RulesRefusedError
from packetcloud.router.rules.evidence import Evidence
from packetcloud.router.rules.intake import (
    MAX_LISTED_COUNT,
    Intake,
    Outcome,
    Room,
)
from packetcloud.router.rules.pattern_book import PatternBook
from packetcloud.router.rules.patterns import check_pattern, compile_scanner
from packetcloud.router.rules.policy import RulePolicy
from packetcloud.router.rules.proof import Prover, refusal_of_head, refusal_of_serial
from packetcloud.router.rules.refusals import KeeperRefusal, Refused
from packetcloud.router.rules.reread import Rereader
from packetcloud.router.rules.rule import Pattern
from packetcloud.router.rules.rule_writer import RuleWriter
from packetcloud.router.rules.signed import SignedDocument, open_signed
from packetcloud.router.rules.store import RuleStore, StoredFile, StoredRule, StoredSet
from packetcloud.router.rules.table_files import Kind, TableFiles

MAX_SETS_COUNT = 65_536
"""In all, those whose rules are gone included: their serials are never forgotten."""
MAX_SIGNER_SETS_COUNT = 1024
"""Of one third party."""
MAX_THIRD_PARTY_SETS_COUNT = MAX_SETS_COUNT // 2


class NothingInstalled(Exception):  # noqa: N818  # it undoes a change, and is no error
    """The change is undone: it was a dry run, or nothing of the document is accepted."""


class Installer:
    """Installs one document within a change of the store.

    Args:
        before: a reader of the same store, which does not see the change.
    """

    def __init__(
        self,
        store: RuleStore,
        before: RuleStore,
        tables: TableFiles,
        evidence: Evidence,
        policy: RulePolicy,
        now_s: float,
    ) -> None:
        self._store = store
        self._before = before
        self._tables = tables
        self._evidence = evidence
        self._policy = policy
        self._now_s = now_s
        self._about: dict[str, Any] = {}
        self._outcome = Outcome(lists_all=True)

    def answer(self) -> dict[str, Any]:
        """Return what became of the document, as `schemas.Installation` has it."""
        outcome = self._outcome
        return self._about | {
            "accepted": outcome.accepted,
            "unchanged": outcome.unchanged,
            "withdrawn": outcome.withdrawn,
            "refused": outcome.refused,
            "reasons": dict(outcome.reasons),
            "listed": outcome.listed,
            "items": outcome.items,
        }

    def install(self, stream: BinaryIO, path: Path, *, is_dry_run: bool) -> None:
        """Take what of it is accepted.

        Args:
            path: of the stream; kept as evidence.

        Raises:
            RulesRefusedError, RuleDocumentError: the document is refused as a whole.
            PatternError: its patterns cannot be looked for together with those in force.
            NothingInstalled: undo the change.
        """
        document = open_signed(stream)
        trust = self._policy.trust(document.signer)
        prover = Prover(
            document.signer, document.grants, trust, self._now_s, self._store.revocations.is_revoked
        )
        found = self._store.find_set(document.signer_guid, document.head.set_name)
        refused = refusal_of_head(document.head, trust, self._now_s)
        refused = refused or refusal_of_serial(document.head, found.serial if found else 0)
        if refused is not None:
            raise RulesRefusedError(refused)
        self._refuse_too_much(document, prover.is_own, found)
        self._outcome.lists_all = document.item_count <= MAX_LISTED_COUNT
        self._about = {
            "set": document.head.set_name,
            "signer": document.signer_guid.hex(),
            "serial": document.head.serial,
            "document": document.digest.hex(),
            "is_own": prover.is_own,
            "is_dry_run": is_dry_run,
        }
        head = document.head.to_bytes()
        size = path.stat().st_size
        document_id = self._store.put_document(document.digest, size, self._now_s, head)
        its_set = self._store.put_set(
            document.signer_guid, document.head.set_name, document.head.serial,
            prover.is_own, document_id,
        )  # fmt: skip
        limits = self._policy.settings
        third_party = None if prover.is_own else document.signer_guid
        replaced = its_set.id if document.head.replaces else None
        patterns = PatternBook(self._store, third_party, limits, replaced)
        most = limits.max_patterns if prover.is_own else limits.max_signer_patterns
        items = document.line_items(checker(most))
        with RuleWriter() as writer:
            intake = Intake(
                self._store,
                its_set,
                document_id,
                Room(self._store, self._policy, its_set.signer, its_set.is_own),
                patterns,
                self._outcome,
                self._says_the_same(document, its_set),
                prover.refusal,
                self._before,
                writer,
            )
            new = intake.take(items, replaces=document.head.replaces)
            segment = self._tables.write_rules(new, patterns.number)
        files = self._store.files()
        segment = self._without_crowding(segment, files, intake, its_set)
        if is_dry_run:
            if patterns.has_new:
                compile_scanner(patterns.for_scanner())
            raise NothingInstalled
        outcome = self._outcome
        if found is None and not outcome.accepted:
            raise NothingInstalled
        if outcome.accepted or outcome.withdrawn:
            grown = self._tables.grown(files, segment if segment.rules else None, intake.gone)
            if patterns.has_new:
                grown += self._tables.write_scanner(patterns.for_scanner())
            else:
                grown += [one for one in files if one.kind == Kind.SCANNER]
            self._store.put_files(grown)
            self._store.note_change(
                self._now_s,
                "document",
                set_id=its_set.id,
                document=document_id,
                installed=outcome.accepted,
                withdrawn=outcome.withdrawn,
                refused=outcome.refused,
            )
        self._evidence.keep(path, document.digest)

    def _without_crowding(
        self, segment: StoredFile, files: Sequence[StoredFile], intake: Intake, its_set: StoredSet
    ) -> StoredFile:
        """Take back the rules whose key has too many, and return the segment without them."""
        if not segment.rules:
            return segment
        held = None if its_set.is_own else partial(self._store.held, signer=its_set.signer)
        crowded = self._tables.crowded(files, segment, intake.gone, held)
        if not crowded:
            return segment
        by_problem: dict[str, list[int]] = {}
        for number, problem in crowded.items():
            by_problem.setdefault(problem, []).append(number)
        for problem, numbers in by_problem.items():
            intake.refuse(numbers, KeeperRefusal.CROWDED, problem)
        return self._tables.without(segment, crowded)

    def _refuse_too_much(
        self, document: SignedDocument, is_own: bool, found: StoredSet | None
    ) -> None:
        """Raises: RulesRefusedError."""
        if found is not None and found.is_own is not is_own:
            owner = "the ISP's" if found.is_own else "a third party's"
            text = f"the set is {owner} here already; choose another name for it"
            _refuse(KeeperRefusal.OTHER_OWNER, text)
        limits = self._policy.settings
        if not is_own and document.item_count > limits.max_signer_rules:
            _refuse(
                KeeperRefusal.TOO_MANY_RULES,
                f"{document.item_count} items; allowed: {limits.max_signer_rules}, "
                "[rules] max_signer_rules",
            )
        if found is not None:
            return
        _, of_signer = self._store.holdings(document.signer_guid)
        sets = self._store.sets_count()
        if sets >= (MAX_SETS_COUNT if is_own else MAX_THIRD_PARTY_SETS_COUNT):
            text = f"this router knows {sets} sets; use one that it knows"
            _refuse(KeeperRefusal.TOO_MANY_SETS, text)
        if not is_own and of_signer >= MAX_SIGNER_SETS_COUNT:
            text = f"{of_signer} sets are of this signer; use one of them"
            _refuse(KeeperRefusal.TOO_MANY_SETS, text)

    def _says_the_same(
        self, document: SignedDocument, its_set: StoredSet
    ) -> Callable[[StoredRule], bool]:
        reader = Rereader(self._store)
        defaults = document.head.defaults
        revoked = self._store.revocations.revoked_rules(its_set.id)
        return lambda row: row.number not in revoked and reader.defaults(row.document) == defaults


def checker(limit: int) -> Callable[[Pattern], str | None]:
    """Return a check of patterns that does each once, and not endlessly many.

    A check takes a millisecond, and an item may have sixteen: a document that fits the limit of its
    signer needs no more than that.
    """
    known: dict[Pattern, str | None] = {}

    def check(pattern: Pattern) -> str | None:
        if pattern not in known:
            if len(known) >= limit:
                return f"over {limit} different patterns in one document"
            known[pattern] = check_pattern(pattern)
        return known[pattern]

    return check


def _refuse(reason: KeeperRefusal, text: str) -> None:
    raise RulesRefusedError(Refused(reason, text))
