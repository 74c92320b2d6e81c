"""A bill with all that it is made of, in a file: what a tenant keeps and computes again.

Nothing here asks a domain controller. Source: docs/reference/usage-records.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from packetcloud.domain_controller.core.bills import Bill, verify
from packetcloud.domain_controller.core.documents import from_document
from packetcloud.domain_controller.core.ledger import Item
from packetcloud.domain_controller.core.money import format_money
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.usage import RecordSignature, UsageRecord
from packetcloud.domain_controller.errors import BundleError, InvalidValueError
from packetcloud.domain_controller.usage_signatures import wrong_signatures

FORMAT = "packetcloud-bill-2"
"""Of version 1 there are no signatures: save the bill again."""
MAX_BUNDLE_BYTES = 1 << 30
"""A million records are about 500 MB."""
NO_KEYS: Mapping[str, Collection[bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bill, its records, and the terms of the reservations that they are about."""

    bill: Bill
    records: tuple[UsageRecord, ...]
    terms: dict[tuple[str, int], Terms]
    signatures: dict[bytes, RecordSignature]
    """By the digest of the record."""
    keys: dict[str, frozenset[bytes]]
    """By cloudlet, the public keys that the domain controller said are its own."""

    @property
    def name(self) -> str:
        return f"{self.bill.tenant}-{self.bill.number}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of computing a bill again."""

    name: str
    total: str
    findings: list[str]
    """What differs; empty: the bill is right."""


def read_bundle(path: Path) -> Bundle:
    """Read what `packetcloud bill save` wrote.

    Raises:
        BundleError: it cannot be read, or is something else.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleError(f"{path}: over {MAX_BUNDLE_BYTES} bytes; is it the right file?")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BundleError(f"{path}: no saved bill; write one: packetcloud bill save BILL FILE")
    try:
        return _bundle(document)
    except InvalidValueError as error:
        raise BundleError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: no saved bill: {error!r}") from None


def verify_bundles(
    bundles: Sequence[Bundle], trusted: Mapping[str, Collection[bytes]] = NO_KEYS
) -> list[Verdict]:
    """Compute bills again, each after those before it; the first one is a tenant's first.

    Args:
        trusted: by cloudlet, the keys that count instead of those that the domain controller said.
    """
    verdicts = []
    last: Bill | None = None
    before: dict[Item, int] = {}
    for bundle in bundles:
        bill = bundle.bill
        if last is not None and last.tenant != bill.tenant:
            last, before = None, {}
        findings = verify(bill, bundle.records, bundle.terms, last, before)
        keys = {**bundle.keys, **trusted}
        findings += wrong_signatures(bundle.records, bundle.signatures, keys)
        total = format_money(bill.total_micros, bill.currency)
        verdicts.append(Verdict(bundle.name, total, findings))
        for line in bill.lines:
            before[line.item] = before.get(line.item, 0) + line.quantity
        last = bill
    return verdicts


def _bundle(document: dict[str, Any]) -> Bundle:
    """Raises: InvalidValueError, KeyError, TypeError, AttributeError."""
    terms: dict[tuple[str, int], Terms] = {}
    for name, several in document["terms"].items():
        for one in several:
            read = from_document(Terms, one, "terms")
            terms[name, read.number] = read
    records: list[UsageRecord] = []
    signatures: dict[bytes, RecordSignature] = {}
    for one in document["records"]:
        proof = {name: one.pop(name) for name in ("public_key", "signature")}
        records.append(from_document(UsageRecord, one, "record"))
        if proof["signature"] is not None:
            signature = from_document(RecordSignature, proof, "record.signature")
            signatures[records[-1].digest] = signature
    keys = {
        name: frozenset(bytes.fromhex(key) for key in several)
        for name, several in document["cloudlet_keys"].items()
    }
    bill = from_document(Bill, document["bill"], "bill")
    return Bundle(bill, tuple(records), terms, signatures, keys)
