"""Proofs of SIDs: by the SID's own key, for one tenant, in one domain, for a time."""

from __future__ import annotations

import dataclasses

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.errors import OwnershipError
from packetcloud.domain_controller.sid_proof import MAX_PROOF_MS, SidProof, prove_sid

NOW_MS = 1_800_000_000_000
SERVICE = Identity(bytes(range(32)))
OTHER = Identity(bytes(range(1, 33)))
PROOF = prove_sid(SERVICE, "example", "acme", NOW_MS + 1000)


def test_the_key_of_a_sid_proves_it() -> None:
    """From when it is made until just before its end."""
    PROOF.check(SERVICE.sid, NOW_MS)
    PROOF.check(SERVICE.sid, NOW_MS + 999)
    prove_sid(SERVICE, "example", "acme", NOW_MS + MAX_PROOF_MS).check(SERVICE.sid, NOW_MS)


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        (dataclasses.replace(PROOF, tenant="bolt"), "tenant bolt"),
        (dataclasses.replace(PROOF, domain="elsewhere"), "domain elsewhere"),
        (dataclasses.replace(PROOF, until_ms=NOW_MS + 1001), "not signed for"),
        (dataclasses.replace(PROOF, until_ms=NOW_MS), "later than now"),
        (prove_sid(SERVICE, "example", "acme", NOW_MS + MAX_PROOF_MS + 1), "later than now"),
        (prove_sid(OTHER, "example", "acme", NOW_MS + 1000), "its key is not that of the SID"),
        (dataclasses.replace(PROOF, public_key=OTHER.public_key), "its key is not that"),
        (dataclasses.replace(PROOF, signature=bytes(64)), "not signed for"),
        (dataclasses.replace(PROOF, signature=b""), "not signed for"),
    ],
)
def test_what_proves_nothing_is_refused(proof: SidProof, text: str) -> None:
    """And the text says what is wrong with it."""
    with pytest.raises(OwnershipError, match=text):
        proof.check(SERVICE.sid, NOW_MS)


def test_a_signature_for_something_else_is_no_proof() -> None:
    """The same bytes, signed by the same key for another purpose."""
    signature = SERVICE.sign(b"packetcloud-rules-1", PROOF.signed_bytes())
    with pytest.raises(OwnershipError, match="not signed for"):
        dataclasses.replace(PROOF, signature=signature).check(SERVICE.sid, NOW_MS)
