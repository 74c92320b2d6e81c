"""Whether usage records are signed by their cloudlet: what a tenant trusts instead of the domain.

Nothing here asks a domain controller. Source: docs/reference/usage-records.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from packetcloud.chunk.identity import verify
from packetcloud.domain_controller.core.usage import (
    RECORD_SIGNING,
    RecordSignature,
    UsageRecord,
)

MAX_NAMED_COUNT = 20
"""Records with something wrong that are told by name; of the others there is the number."""


def is_signed(record: UsageRecord, signature: RecordSignature) -> bool:
    """Tell whether a signature is that of a record, whoever made it."""
    return verify(signature.public_key, RECORD_SIGNING, record.to_bytes(), signature.signature)


def why_not_signed(
    record: UsageRecord, signature: RecordSignature | None, keys: Collection[bytes]
) -> str:
    """Return why a record is not proven to be its cloudlet's; empty: it is.

    Args:
        keys: the public keys of the cloudlet that are trusted.
    """
    if signature is None:
        return "it is not signed"
    if signature.public_key not in keys:
        return f"it is signed by {signature.public_key.hex()[:16]}..., no key of this cloudlet"
    if not is_signed(record, signature):
        return "its signature is of something else: record or signature was changed"
    return ""


def wrong_signatures(
    records: Iterable[UsageRecord],
    signatures: Mapping[bytes, RecordSignature],
    keys: Mapping[str, Collection[bytes]],
) -> list[str]:
    """Return what is wrong with the signatures of records, in sentences. Empty: all are right.

    Args:
        signatures: by the digest of the record.
        keys: by cloudlet, the public keys that are trusted.
    """
    findings: list[str] = []
    more: Counter[str] = Counter()
    for one in records:
        why = why_not_signed(one, signatures.get(one.digest), keys.get(one.cloudlet, ()))
        if why and len(findings) < MAX_NAMED_COUNT:
            findings.append(f"record {one.cloudlet}/{one.meter}/{one.number}: {why}")
        elif why:
            more[one.cloudlet] += 1
    for cloudlet, count in sorted(more.items()):
        findings.append(f"{count} more records of {cloudlet} are not proven to be its own")
    return findings
