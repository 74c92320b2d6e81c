"""What becomes of installed rules when the config says something else about them.

The sets of a signer who signs for the ISP no more are suspended: kept, and not in force, until the
key is back. Rules of others that lead to a service that is not open to everybody any more are
proven again, and removed where the service's key did not grant them.
Source: docs/reference/router-config.md, "[rules]".
"""

from __future__ import annotations

from collections import defaultdict

from packetcloud.router.rules.evidence import Evidence
from packetcloud.router.rules.policy import RulePolicy
from packetcloud.router.rules.proof import Prover
from packetcloud.router.rules.reread import Rereader
from packetcloud.router.rules.signed import MAX_ENVELOPE_BYTES, Envelope
from packetcloud.router.rules.store import RuleStore, StoredRule


class PolicyChange:
    """Applies a policy to the store, within a change."""

    def __init__(
        self, store: RuleStore, evidence: Evidence, policy: RulePolicy, now_s: float
    ) -> None:
        self.told: list[str] = []
        """What the operator should read."""
        self._store = store
        self._evidence = evidence
        self._policy = policy
        self._now_s = now_s

    def apply(self) -> bool:
        """Tell whether the rules in force are others now."""
        has_changed = self._suspend()
        closed = self._store.open_services - self._policy.open_services
        if closed:
            has_changed |= self._prove_again(closed)
        self._store.put_open_services(self._policy.open_services)
        return has_changed

    def _suspend(self) -> bool:
        changed = [
            one
            for one in self._store.sets()
            if one.is_own and one.is_suspended is self._policy.is_own(one.signer)
        ]
        for one in changed:
            self._store.suspend(one.id, not one.is_suspended)
            if one.rules:
                what = "in force again" if one.is_suspended else "not in force any more"
                self.told.append(
                    f"{one.rules} rules of the set {one.name} are {what}: its signer "
                    f"{one.signer.hex()} is {'again' if one.is_suspended else 'not'} in isp_keys"
                )
        return any(one.rules for one in changed)

    def _prove_again(self, closed: frozenset[bytes]) -> bool:
        by_document: defaultdict[int, list[StoredRule]] = defaultdict(list)
        for row in self._store.third_party_rules_to(closed):
            by_document[row.document].append(row)
        reader = Rereader(self._store)
        gone: list[StoredRule] = []
        for document, rows in by_document.items():
            try:
                prover = self._prover(document)
            except FileNotFoundError as error:
                self.told.append(f"{error.filename} is gone, and with it the proof of its rules")
                gone += rows
                continue
            gone += [row for row in rows if prover.refusal(reader.rule(row)) is not None]
        self._store.remove_rules(gone)
        if gone:
            self.told.append(
                f"{len(gone)} rules of third parties are removed: they lead to services that are "
                'not open to everybody any more (rules_from = "isp")'
            )
        return bool(gone)

    def _prover(self, document: int) -> Prover:
        path = self._evidence.path(self._store.document(document).digest)
        with path.open("rb") as stream:
            envelope = Envelope.from_bytes(stream.readline(MAX_ENVELOPE_BYTES + 1))
        trust = self._policy.trust(envelope.public_key)
        return Prover(
            envelope.public_key,
            envelope.grants,
            trust,
            self._now_s,
            self._store.revocations.is_revoked,
        )
