"""Rules out of files, without a router: what would be in force if a router had taken them all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from packetcloud.chunk.names import name_bytes
from packetcloud.router.rules.document import (
    ItemError,
    Withdrawal,
    head_of_line,
    lines_of,
    read_items,
)
from packetcloud.router.rules.errors import RuleDocumentError
from packetcloud.router.rules.patterns import check_pattern
from packetcloud.router.rules.rule import InstalledRule, Rule
from packetcloud.router.rules.signed import open_signed
from packetcloud.router.rules.written import is_signed, open_written

UNSIGNED = bytes(20)
"""Stands for the signer of a document that nobody has signed."""


def rules_of_files(paths: Sequence[Path], own_keys: Collection[bytes]) -> list[InstalledRule]:
    """Return the rules of documents, taken one after the other as a router takes them.

    Proof is not asked for: `rule check` does that.

    Args:
        own_keys: public keys of the ISP; a signed document is the ISP's if one of them signed it.
            Without any, and where nobody signed, it counts as the ISP's.

    Raises:
        RuleDocumentError: a document cannot be read, or an item of it is refused; the text says
            which.
        RulesRefusedError: a signature is not right.
    """
    sets: dict[tuple[bytes, str], dict[str, InstalledRule]] = {}
    number = 0
    for path in paths:
        with path.open("rb") as stream:
            if is_signed(stream):
                document = open_signed(stream)
                head, signer = document.head, name_bytes(document.signer)
                is_own = not own_keys or document.signer in own_keys
                items = document.items(check_pattern)
            else:
                lines = lines_of(open_written(stream))
                head = head_of_line(next(lines, b""))
                signer, is_own = UNSIGNED, True
                items = read_items(lines, head, check_pattern)
            rules = sets.setdefault((signer, head.set_name), {})
            before = dict(rules)
            if head.replaces:
                rules.clear()
            for item in items:
                if isinstance(item, ItemError):
                    raise RuleDocumentError(f"{path}: {item.text}")
                if isinstance(item, Withdrawal):
                    rules.pop(item.name, None)
                    continue
                number += 1
                rules[item.name] = _installed(
                    before.get(item.name), number, head.set_name, signer, item, is_own=is_own
                )
    return [one for rules in sets.values() for one in rules.values()]


def _installed(
    before: InstalledRule | None,
    number: int,
    set_name: str,
    signer: bytes,
    rule: Rule,
    *,
    is_own: bool,
) -> InstalledRule:
    """Return a rule in force; one that says what it said before keeps its age."""
    if before is not None and (before.rule, before.is_own) == (rule, is_own):
        return before
    return InstalledRule(number, set_name, signer, is_own, rule)
