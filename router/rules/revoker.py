"""Takes grants back: notes who revoked what, and finds the rules that have no proof any more.

Such rules are kept, so that one can see what became of them, and are not in force. A revocation is
kept until its grant ends. Source: docs/decisions/0014; docs/reference/rules.md, "Revocations".
"""

from __future__ import annotations

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.revocations import Revocation
from packetcloud.router.rules.errors import RulesRefusedError
from packetcloud.router.rules.evidence import Evidence
from packetcloud.router.rules.policy import RulePolicy
from packetcloud.router.rules.proof import Prover
from packetcloud.router.rules.refusals import KeeperRefusal, Refusal, Refused
from packetcloud.router.rules.reread import Rereader
from packetcloud.router.rules.signed import MAX_ENVELOPE_BYTES, Envelope
from packetcloud.router.rules.store import RuleStore, StoredRule

MAX_REVOCATIONS_COUNT = 65_536
"""In all: 16 MB. Those that take a rule out of force may have them all."""
MAX_EARLY_REVOCATIONS_COUNT = MAX_REVOCATIONS_COUNT // 2
"""Of grants that no rule rests on: anybody can sign grants, and take them back."""
MAX_ISSUER_REVOCATIONS_COUNT = 1024
"""Of those, of one issuer."""


class Revoker:
    """Takes one grant back within a change of the store."""

    def __init__(
        self, store: RuleStore, evidence: Evidence, policy: RulePolicy, now_s: float
    ) -> None:
        self._store = store
        self._evidence = evidence
        self._policy = policy
        self._now_s = now_s

    def apply(self, revocation: Revocation) -> tuple[bool, list[StoredRule]]:
        """Note it; return whether it is new, and the rules that go out of force.

        Cost: O(third parties' rules and documents).

        Raises:
            RulesRefusedError: it is not the issuer's, needed no more, or there are too many.
        """
        grant = revocation.grant
        if not revocation.is_genuine:
            _refuse(Refusal.FORGED, "a signature is not the issuer's; get the revocation anew")
        if grant.valid_until_s <= self._now_s:
            _refuse(Refusal.EXPIRED, "the grant has ended by itself; nothing rests on it")
        if self._store.revocations.is_revoked(grant.digest):
            return False, []
        total, of_issuer = self._store.revocations.counts(grant.issuer)
        self._store.revocations.put(
            grant.digest, grant.issuer, grant.valid_until_s, revocation.signature
        )
        rules = self._unproven(grant.digest, grant.nonce.hex().encode())
        if total >= MAX_REVOCATIONS_COUNT:
            _refuse_many(f"this router knows {total} revocations")
        if not rules and total >= MAX_EARLY_REVOCATIONS_COUNT:
            _refuse_many(f"this router knows {total} revocations, and no rule rests on this grant")
        if not rules and of_issuer >= MAX_ISSUER_REVOCATIONS_COUNT:
            _refuse_many(f"{of_issuer} are of this issuer, and no rule rests on this grant")
        self._store.revocations.revoke_rules([one.number for one in rules], grant.digest)
        return True, rules

    def _unproven(self, digest: bytes, nonce: bytes) -> list[StoredRule]:
        """Return the rules in force that have no proof without the grant."""
        reader = Rereader(self._store)
        found: list[StoredRule] = []
        for document in self._store.third_party_documents():
            path = self._evidence.path(self._store.document(document).digest)
            with path.open("rb") as stream:
                line = stream.readline(MAX_ENVELOPE_BYTES + 1)
            if nonce not in line:
                continue
            envelope = Envelope.from_bytes(line)
            if not any(grant.digest == digest for grant in envelope.grants):
                continue
            trust = self._policy.trust(envelope.public_key)
            prover = Prover(
                envelope.public_key,
                envelope.grants,
                trust,
                self._now_s,
                self._store.revocations.is_revoked,
            )
            found += [
                row
                for row in self._store.rules_of_document(document)
                if (doubt := prover.refusal(reader.rule(row))) is not None
                and doubt.reason is not Refusal.EXPIRED
            ]
        return found


def read_revocation(text: bytes) -> Revocation:
    """Return a revocation. Raises: RulesRefusedError."""
    try:
        return Revocation.from_text(text)
    except GrantError as error:
        raise RulesRefusedError(Refused(KeeperRefusal.UNREADABLE, f"revocation: {error}")) from None


def _refuse_many(text: str) -> None:
    _refuse(
        KeeperRefusal.TOO_MANY_REVOCATIONS,
        f"{text}; bring it when a rule does, or let the ISP refuse the signer",
    )


def _refuse(reason: Refusal | KeeperRefusal, text: str) -> None:
    raise RulesRefusedError(Refused(reason, text))
