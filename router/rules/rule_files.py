"""Rules out of files, without a router: what would be in force if a router had taken them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from packetcloud.chunk.names import name_bytes
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
from packetcloud.router.rules.errors import RuleDocumentError, RulesRefusedError
from packetcloud.router.rules.patterns import check_pattern
from packetcloud.router.rules.proof import refusal_of_serial
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
        RuleDocumentError: a document, or an item of it, cannot be read or is refused; the text says
            which.
    """
    book = _Book()
    for path in paths:
        try:
            book.take(path, own_keys)
        except (RuleDocumentError, RulesRefusedError) as error:
            raise RuleDocumentError(f"{path}: {error}") from None
    return book.rules()


class _Book:
    """The sets of some documents, by signer and name."""

    def __init__(self) -> None:
        self._sets: dict[tuple[bytes, str], dict[str, InstalledRule]] = {}
        self._serials: dict[tuple[bytes, str], int] = {}
        self._number = 0

    def rules(self) -> list[InstalledRule]:
        return [one for rules in self._sets.values() for one in rules.values()]

    def take(self, path: Path, own_keys: Collection[bytes]) -> None:
        """Take the document in a file. Raises: RuleDocumentError, RulesRefusedError."""
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
            its_set = signer, head.set_name
            refused = refusal_of_serial(head, self._serials.get(its_set, 0))
            if refused is not None:
                raise RulesRefusedError(refused)
            self._serials[its_set] = head.serial
            self._change(its_set, head, items, is_own=is_own)

    def _change(
        self, its_set: tuple[bytes, str], head: Head, items: Iterable[Item], *, is_own: bool
    ) -> None:
        rules = self._sets.setdefault(its_set, {})
        before = dict(rules)
        if head.replaces:
            rules.clear()
        for item in repeats_refused(items):
            if isinstance(item, ItemError):
                raise RuleDocumentError(item.text)
            if isinstance(item, Withdrawal):
                rules.pop(item.name, None)
                continue
            self._number += 1
            rules[item.name] = _installed(
                before.get(item.name), self._number, head.set_name, its_set[0], item, is_own=is_own
            )


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
