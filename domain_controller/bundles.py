"""A bill with all that it is made of, in a file: what a tenant keeps and computes again.

Nothing here asks a domain controller. Source: docs/reference/usage-records.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packetcloud.domain_controller.core.bills import Bill, verify
from packetcloud.domain_controller.core.documents import from_document
from packetcloud.domain_controller.core.ledger import Item
from packetcloud.domain_controller.core.money import format_money
from packetcloud.domain_controller.core.quotes import Terms
from packetcloud.domain_controller.core.usage import UsageRecord
from packetcloud.domain_controller.errors import BundleError, InvalidValueError

FORMAT = "packetcloud-bill-1"
MAX_BUNDLE_BYTES = 1 << 30
"""A million records are about 300 MB."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bill, its records, and the terms of the reservations that they are about."""

    bill: Bill
    records: tuple[UsageRecord, ...]
    terms: dict[tuple[str, int], Terms]

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
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: no saved bill: {error!r}") from None


def verify_bundles(bundles: Sequence[Bundle]) -> list[Verdict]:
    """Compute bills again, each after those before it; the first one is a tenant's first."""
    verdicts = []
    last: Bill | None = None
    before: dict[Item, int] = {}
    for bundle in bundles:
        bill = bundle.bill
        if last is not None and last.tenant != bill.tenant:
            last, before = None, {}
        findings = verify(bill, bundle.records, bundle.terms, last, before)
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
    records = tuple(from_document(UsageRecord, one, "record") for one in document["records"])
    return Bundle(from_document(Bill, document["bill"], "bill"), records, terms)
