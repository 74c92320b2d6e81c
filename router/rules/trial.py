"""Tries a document of rules without any router: would it be read, and would it be believed?

Source: docs/reference/rules.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from packetcloud.router.rules.document import (
    Head,
    Item,
    ItemError,
    Withdrawal,
    head_of_line,
    lines_of,
    read_items,
    repeats_refused,
)
from packetcloud.router.rules.errors import RulesRefusedError
from packetcloud.router.rules.fields import CheckPattern
from packetcloud.router.rules.proof import Prover, Trust, refusal_of_head
from packetcloud.router.rules.signed import SignedDocument, open_signed
from packetcloud.router.rules.written import is_signed, open_written

MAX_LISTED_COUNT = 1000
"""Refused items that a trial lists; all are counted."""
_TELL_EACH_COUNT = 5000


@dataclass(slots=True)
class Trial:
    """What became of a document."""

    head: Head
    signer: bytes | None = None
    """Public key; None: it is not signed."""
    is_own: bool | None = None
    """The signer is the ISP; None: not asked."""
    rule_count: int = 0
    withdrawal_count: int = 0
    refused_count: int = 0
    refused: list[ItemError] = field(default_factory=list)
    """The first `MAX_LISTED_COUNT`."""

    def count(self, item: Item) -> None:
        """Count one item."""
        if isinstance(item, Withdrawal):
            self.withdrawal_count += 1
        elif not isinstance(item, ItemError):
            self.rule_count += 1
        else:
            self.refused_count += 1
            if len(self.refused) < MAX_LISTED_COUNT:
                self.refused.append(item)


def try_document(
    stream: BinaryIO,
    check_pattern: CheckPattern,
    now_s: float,
    trust: Trust | None = None,
    *,
    is_at_its_audience: bool = False,
    tell: Callable[[int], None] = lambda _: None,
) -> Trial:
    """Read a document as a router would.

    Args:
        stream: one that can seek: a signed document, or one as people write it.
        now_s: seconds since 1970.
        trust: whom the router believes; None: do not ask for proof.
        is_at_its_audience: whatever router `trust` says, try it at one that the document is for.
        tell: hears now and then how many items were read.

    Raises:
        RuleDocumentError: it cannot be read as a whole.
        RulesRefusedError: it is refused as a whole; also where proof is asked of an unsigned one.
    """
    if trust is None and not is_signed(stream):
        body = open_written(stream)
        lines = lines_of(body)
        trial = Trial(head_of_line(next(lines, b"")))
        items = read_items(lines, trial.head, check_pattern)
    else:
        document = open_signed(stream)
        trial = Trial(document.head, document.signer)
        items = document.items(check_pattern)
        if trust is not None:
            if is_at_its_audience and document.head.audience is not None:
                trust = replace(trust, router=min(document.head.audience))
            refused = refusal_of_head(document.head, trust, now_s)
            if refused is not None:
                raise RulesRefusedError(refused)
            trial.is_own = document.signer in trust.own_keys
            items = _proven(document, items, trust, now_s)
    for number, item in enumerate(repeats_refused(items), 1):
        trial.count(item)
        if not number % _TELL_EACH_COUNT:
            tell(number)
    return trial


def _proven(
    document: SignedDocument, items: Iterator[Item], trust: Trust, now_s: float
) -> Iterator[Item]:
    prover = Prover(document.signer, document.grants, trust, now_s)
    for number, item in enumerate(items, 1):
        refused = None if isinstance(item, Withdrawal | ItemError) else prover.refusal(item)
        if refused is None or isinstance(item, Withdrawal | ItemError):
            yield item
        else:
            yield ItemError(number, item.name, "", f'item {number} "{item.name}": {refused}')
