"""Sets of GUIDs as rules write them: `any`, one, `!one`, `[a,b,!c]`, `$NAME`; closed under all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packetcloud.chunk.names import GUID_BYTES
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.ids.errors import RuleError

MAX_NESTING_COUNT = 8
"""Lists in lists, and lists that name others."""
MAX_NAMES_COUNT = 10_000
"""GUIDs in one set."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_GUID = re.compile(rf"[0-9A-Fa-f]{{{2 * GUID_BYTES}}}")
_IP_ADDRESS = re.compile(r"(?=.*[.:])[0-9A-Fa-f.:]+(/\d+)?(-[0-9A-Fa-f.:]+)?")
_WORD_END = re.compile(r"[\s,\[\]]|$")


@dataclass(frozen=True, slots=True)
class GuidSet:
    """Some GUIDs, or all but some."""

    names: frozenset[bytes]
    is_complement: bool = False

    def __contains__(self, name: bytes) -> bool:
        return (name in self.names) != self.is_complement

    def complement(self) -> GuidSet:
        return GuidSet(self.names, not self.is_complement)

    def union(self, other: GuidSet) -> GuidSet:
        return self.complement().intersection(other.complement()).complement()

    def intersection(self, other: GuidSet) -> GuidSet:
        if self.is_complement and other.is_complement:
            return GuidSet(self.names | other.names, True)
        if self.is_complement:
            return GuidSet(other.names - self.names)
        return GuidSet(
            self.names - other.names if other.is_complement else self.names & other.names
        )


EVERYBODY = GuidSet(frozenset(), True)
NOBODY = GuidSet(frozenset())
Lists = Mapping[str, GuidSet]


class NotOursError(RuleError):
    """The text speaks of addresses of the IP world, or of a list that nobody gave."""


def parse_guids(text: str, at: int, lists: Lists) -> GuidSet:
    """Read an address field.

    Args:
        at: where `text` begins in its rule, for errors.

    Raises:
        NotOursError: an IP address, or a list without a definition.
        RuleError: malformed, or nobody is left.
    """
    found, end = _parse_one(text, 0, at, lists, 0)
    if text[end:].strip():
        raise RuleError(at + end, f"{text[end:].strip()!r} after the end of the addresses")
    if found == NOBODY:
        raise RuleError(at, f"{text} is nobody")
    if len(found.names) > MAX_NAMES_COUNT:
        raise RuleError(at, f"{len(found.names)} GUIDs; allowed: {MAX_NAMES_COUNT}")
    return found


def parse_lists(text: str) -> dict[str, GuidSet]:
    """Read the parameter `lists`: `HOME_NET=[GUID,GUID];EXTERNAL_NET=!$HOME_NET`.

    Raises:
        ServiceConfigError: names the list and what is wrong with it.
    """
    lists: dict[str, GuidSet] = {}
    for item in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            raise ServiceConfigError(f"lists: {item!r}; expected NAME=[GUID,GUID,...]")
        if name in lists:
            raise ServiceConfigError(f"lists: {name}: given twice")
        try:
            lists[name] = parse_guids(value.strip(), 0, lists)
        except RuleError as error:
            raise ServiceConfigError(f"lists: {name}: {error}") from None
    return lists


def is_name(text: str) -> bool:
    """Tell whether a list can have this name."""
    return _NAME.fullmatch(text) is not None


def _parse_one(text: str, start: int, at: int, lists: Lists, depth: int) -> tuple[GuidSet, int]:
    """Return the set that begins at `start`, and where it ends."""
    is_negated = text.startswith("!", start)
    start += is_negated
    if depth > MAX_NESTING_COUNT:
        raise RuleError(at + start, f"lists in lists; allowed: {MAX_NESTING_COUNT} deep")
    if text.startswith("[", start):
        found, end = _parse_group(text, start + 1, at, lists, depth)
    else:
        ending = _WORD_END.search(text, start)
        end = ending.start() if ending else len(text)
        found = _parse_word(text[start:end], at + start, lists)
    if is_negated:
        if found == EVERYBODY:
            raise RuleError(at + start, "!any is nobody")
        found = found.complement()
    return found, end


def _parse_group(text: str, start: int, at: int, lists: Lists, depth: int) -> tuple[GuidSet, int]:
    """Return what one list holds: the union of its members, without those that are negated."""
    wanted, unwanted, has_wanted = NOBODY, NOBODY, False
    while True:
        while text[start : start + 1].isspace():
            start += 1
        found, end = _parse_one(text, start, at, lists, depth + 1)
        if text.startswith("!", start):
            unwanted = unwanted.union(found.complement())
        else:
            wanted, has_wanted = wanted.union(found), True
        while text[end : end + 1].isspace():
            end += 1
        if text.startswith("]", end):
            everything = wanted if has_wanted else EVERYBODY
            return everything.intersection(unwanted.complement()), end + 1
        if not text.startswith(",", end):
            raise RuleError(at + end, "a list of addresses without its ]")
        start = end + 1


def _parse_word(word: str, at: int, lists: Lists) -> GuidSet:
    if word.lower() == "any":
        return EVERYBODY
    if word.startswith("$"):
        found = lists.get(word[1:])
        if found is None:
            known = ", ".join(f"${name}" for name in lists) or "none"
            raise NotOursError(at, f"no list {word}; lists: {known}")
        return found
    if _GUID.fullmatch(word):
        return GuidSet(frozenset({bytes.fromhex(word)}))
    if _IP_ADDRESS.fullmatch(word):
        raise NotOursError(at, f"{word} is an address of the IP world; chunks have GUIDs")
    raise RuleError(at, f"{word!r} is no GUID of {2 * GUID_BYTES} hexadecimal digits, list or any")
