"""Chains of grants: whether the holder of a key may speak for a name, and why not.

Source: docs/decisions/0012; docs/reference/rules.md, "Grants".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grants import Grant
from packetcloud.chunk.names import name_bytes

MAX_CHAIN_LINKS_COUNT = 8
"""From the name's own key to the signer's."""
MAX_GRANTS_OF_NAME_COUNT = 32
"""Grants in one book that name the same name: bounds the search for a chain."""
MAX_BOOK_NAMES_COUNT = 65_536
"""Names of all grants in one book, added up."""


class Fault(StrEnum):
    """Why a key may not speak for a name."""

    FORGED = "forged"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    OUTLIVES_GRANT = "outlives grant"
    NO_PROOF = "no proof"
    CHAIN_BROKEN = "chain broken"
    CHAIN_TOO_LONG = "chain too long"
    WIDENED = "widened"
    NOT_DELEGABLE = "not delegable"
    SERVICE_NOT_GRANTED = "service not granted"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the holder of a key may not speak for a name."""

    fault: Fault
    text: str
    """A sentence without its subject: what is wrong with the grants, and what would do."""


@dataclass(frozen=True, slots=True)
class Use:
    """What somebody wants to speak for a name for."""

    service: bytes
    """SID that the rule leads to."""
    valid_from_s: float
    valid_until_s: float


class GrantBook:
    """The grants that came with a document. Each signature is verified once, 0.1 ms.

    Args:
        is_revoked: tells of a grant, by its digest, whether its issuer has taken it back.

    Raises:
        GrantError: they name too much; see the caps of this module.
    """

    def __init__(
        self, grants: Iterable[Grant], is_revoked: Callable[[bytes], bool] = lambda _: False
    ) -> None:
        self._about: dict[bytes, list[Grant]] = {}
        self._forged: set[bytes] = set()
        self._revoked: set[bytes] = set()
        self._holders: set[bytes] = set()
        self._proven: dict[bytes, dict[bytes, list[Grant]]] = {}
        self._why: dict[tuple[bytes, bytes], Doubt] = {}
        self._holder = self._holder_name = b""
        """Who was asked about last: of one document it is always the same."""
        names_count = 0
        for grant in grants:
            names_count += len(grant.names)
            if names_count > MAX_BOOK_NAMES_COUNT:
                raise GrantError(f"over {MAX_BOOK_NAMES_COUNT} names in all grants together")
            if not grant.is_genuine:
                self._forged |= grant.names
            elif is_revoked(grant.digest):
                self._revoked |= grant.names
            else:
                self._enter(grant)

    def doubt(self, name: bytes, holder: bytes, use: Use, now_s: float) -> Doubt | None:
        """Say why `holder` (a public key) may not speak for `name`; None: it may.

        Cost: O(grants about the name) the first time, then O(those to the holder).
        """
        if holder != self._holder:
            self._holder, self._holder_name = holder, name_bytes(holder)
        if self._holder_name == name:
            return None
        grants = self._chain_ends(name).get(holder)
        if not grants:
            return self._missing(name, holder)
        suitable = [grant for grant in grants if grant.allows(use.service)]
        if not suitable:
            return Doubt(
                Fault.SERVICE_NOT_GRANTED,
                f"is granted, but not for the service {use.service.hex()}; "
                "get a grant that lists it",
            )
        if any(_covers(grant, use) for grant in suitable):
            return None
        return _doubt_of_time(suitable[0], use, now_s)

    def _enter(self, grant: Grant) -> None:
        self._holders.add(grant.to)
        for name in grant.names:
            about = self._about.setdefault(name, [])
            if len(about) >= MAX_GRANTS_OF_NAME_COUNT:
                raise GrantError(f"over {MAX_GRANTS_OF_NAME_COUNT} grants name {name.hex()}")
            about.append(grant)

    def _chain_ends(self, name: bytes) -> dict[bytes, list[Grant]]:
        """Return the grants about a name that a chain from its key leads to, by their holder.

        Breadth first, each grant at its shortest distance: a loop is never followed.
        """
        proven = self._proven.get(name)
        if proven is not None:
            return proven
        about = self._about.get(name)
        if about is None:
            return {}
        proven = self._proven[name] = {}
        links = [grant for grant in about if name_bytes(grant.issuer) == name]
        rest = [grant for grant in about if name_bytes(grant.issuer) != name]
        for _ in range(MAX_CHAIN_LINKS_COUNT):
            for grant in links:
                proven.setdefault(grant.to, []).append(grant)
            nearer = links
            links = [grant for grant in rest if any(grant.narrows(one) for one in nearer)]
            rest = [grant for grant in rest if not any(grant.narrows(one) for one in nearer)]
        return proven

    def _missing(self, name: bytes, holder: bytes) -> Doubt:
        if name not in self._about:
            return self._none(name)  # not kept: anybody can think of names
        key = (name, holder)
        if key not in self._why:
            self._why[key] = self._broken_link(name, holder)
        return self._why[key]

    def _broken_link(self, name: bytes, holder: bytes) -> Doubt:
        """Go back from the holder towards the key of the name, and say what is in the way."""
        grant = next((one for one in self._about[name] if one.to == holder), None)
        if grant is None:
            return self._none(name)
        passed = {grant}
        while name_bytes(grant.issuer) != name:
            before = [one for one in self._about[name] if one.to == grant.issuer]
            if not before:
                return self._no_link_before(name, grant)
            before = [one for one in before if one not in passed]
            if not before:
                text = "is granted in a circle that its own key is not in; add the grant by its key"
                return Doubt(Fault.CHAIN_BROKEN, text)
            fitting = next((one for one in before if grant.narrows(one)), None)
            if fitting is None:
                return _widening(grant, before[0])
            grant = fitting
            passed.add(grant)
        return Doubt(
            Fault.CHAIN_TOO_LONG,
            f"is not granted within {MAX_CHAIN_LINKS_COUNT} links from its own key; "
            "get a grant from somebody nearer to it",
        )

    def _none(self, name: bytes) -> Doubt:
        if name in self._forged:
            return _forgery("the grant to the signer")
        if name in self._revoked:
            return _REVOKED
        return Doubt(
            Fault.NO_PROOF,
            "belongs to another key, and no grant gives it to the signer; "
            "get one from its owner: packetcloud rule grant",
        )

    def _no_link_before(self, name: bytes, grant: Grant) -> Doubt:
        issuer = grant.issuer.hex()
        if name in self._forged:
            return _forgery(f"the grant to its issuer, the key {issuer},")
        if name in self._revoked:
            return _REVOKED
        if grant.issuer in self._holders:
            return Doubt(
                Fault.WIDENED,
                f"is granted by the key {issuer}, which was granted other names only",
            )
        return Doubt(
            Fault.CHAIN_BROKEN,
            f"is granted by the key {issuer}, which does not own it and brings no grant; "
            "add the grants before it",
        )


_REVOKED = Doubt(
    Fault.REVOKED, "was granted, and the issuer of a grant has revoked it; get a new grant"
)


def _covers(grant: Grant, use: Use) -> bool:
    return grant.valid_from_s <= use.valid_from_s and use.valid_until_s <= grant.valid_until_s


def _doubt_of_time(grant: Grant, use: Use, now_s: float) -> Doubt:
    record = grant.to_json()
    if grant.valid_until_s <= now_s:
        return Doubt(Fault.EXPIRED, f"was granted until {record['valid_until']}; get a new grant")
    if use.valid_from_s < grant.valid_from_s:
        return Doubt(
            Fault.NOT_YET_VALID,
            f"is granted from {record['valid_from']} on; allowed: a valid_from not before that",
        )
    return Doubt(
        Fault.OUTLIVES_GRANT,
        f"is granted until {record['valid_until']}; allowed: a valid_until not after that",
    )


def _widening(grant: Grant, before: Grant) -> Doubt:
    issuer = grant.issuer.hex()
    if not before.may_delegate:
        return Doubt(
            Fault.NOT_DELEGABLE, f"is granted by the key {issuer}, which may not grant it on"
        )
    is_time_within = (
        before.valid_from_s <= grant.valid_from_s and grant.valid_until_s <= before.valid_until_s
    )
    what = "more services" if is_time_within else "a longer time"
    return Doubt(Fault.WIDENED, f"is granted by the key {issuer} for {what} than was granted to it")


def _forgery(what: str) -> Doubt:
    return Doubt(Fault.FORGED, f"is not granted: the signature of {what} does not fit")
