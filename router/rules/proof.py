"""Whether a signer may say what its rules say. What is not proven is refused.

The ISP's own keys may say everything. A third party must show, for every destination and every SID
that a rule names, a chain of grants from the key of that name to its own; the same for the service
that the rule leads to, unless the router offers it to everybody. Sources narrow a rule and need no
proof; `both` ways is traffic from the names that are proven.

Source: MobiArch'13 paper, section 3.5; docs/decisions/0012; docs/reference/rules.md, "Refusals".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from packetcloud.chunk.errors import GrantError
from packetcloud.chunk.grant_chains import Doubt, GrantBook, Use
from packetcloud.chunk.grants import Grant
from packetcloud.chunk.names import SID_ZERO
from packetcloud.chunk.timestamps import time_text
from packetcloud.router.rules.document import Head
from packetcloud.router.rules.errors import RuleDocumentError
from packetcloud.router.rules.refusals import Refusal, Refused
from packetcloud.router.rules.rule import Rule


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a router believes."""

    router: bytes
    """Its GUID, 20 bytes."""
    own_keys: frozenset[bytes] = frozenset()
    """Public keys of the ISP, 32 bytes each: they may say everything."""
    open_services: frozenset[bytes] = frozenset()
    """SIDs that every third party may lead its chunks to."""


def refusal_of_head(head: Head, trust: Trust, now_s: float) -> Refused | None:
    """Say why a document is refused as a whole; None: it is not, its rules are asked one by one."""
    if head.audience is not None and trust.router not in head.audience:
        return Refused(
            Refusal.WRONG_AUDIENCE,
            f"the document is not for the router {trust.router.hex()}; allowed: one whose "
            'audience names it or is "any"',
        )
    if head.valid_until_s <= now_s:
        return Refused(
            Refusal.EXPIRED,
            f"the document was valid until {time_text(head.valid_until_s)}; sign a new one",
        )
    return None


def refusal_of_serial(head: Head, last_serial: int) -> Refused | None:
    """Say why a document is refused as one that was here before.

    Args:
        last_serial: the largest of this set of this signer, also of a set that is gone; 0: none.
    """
    if head.serial > last_serial:
        return None
    return Refused(
        Refusal.REPLAYED,
        f'serial {head.serial} of the set "{head.set_name}" is not new; allowed: '
        f"{last_serial + 1} or more",
    )


class Prover:
    """Asks the rules of one document for their proof.

    Args:
        is_revoked: tells of a grant, by its digest, whether its issuer has taken it back.

    Raises:
        RuleDocumentError: the grants name too much; see `packetcloud.chunk.grant_chains`.
    """

    def __init__(
        self,
        signer: bytes,
        grants: Iterable[Grant],
        trust: Trust,
        now_s: float,
        is_revoked: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self.is_own = signer in trust.own_keys
        """The signer is the ISP."""
        self._signer = signer
        self._open_services = trust.open_services
        self._now_s = now_s
        try:
            self._book = GrantBook(() if self.is_own else grants, is_revoked)
        except GrantError as error:
            raise RuleDocumentError(f"envelope: grants: {error}") from None

    def refusal(self, rule: Rule) -> Refused | None:
        """Say why a rule is refused; None: its signer may say it.

        Cost: O(names in the rule) and a search for each name that was not asked for before.
        """
        if rule.valid_until_s <= self._now_s:
            ended = time_text(rule.valid_until_s)
            return Refused(Refusal.EXPIRED, f"the rule was valid until {ended}")
        return None if self.is_own else self._refusal_of_third_party(rule)

    def _refusal_of_third_party(self, rule: Rule) -> Refused | None:
        if rule.valid_until_s == math.inf:
            return Refused(
                Refusal.ENDLESS,
                "a rule of a third party must end; give the rule or its set a valid_until",
            )
        sids = rule.match.sids - _NO_SERVICE
        if not rule.match.destinations and not sids:
            return Refused(
                Refusal.UNBOUNDED,
                "a rule of a third party must name a destination or a SID, as those can be proven",
            )
        service = rule.service.value
        use = Use(service, max(rule.valid_from_s, self._now_s), rule.valid_until_s)
        if service not in self._open_services:
            doubt = self._doubt(service, use)
            if doubt is not None:
                return _refused("service", service, doubt)
        for field, names in (("destination", rule.match.destinations), ("sid", sids)):
            for name in names:
                doubt = self._doubt(name, use)
                if doubt is not None:
                    return _refused(field, name, doubt)
        return None

    def _doubt(self, name: bytes, use: Use) -> Doubt | None:
        return self._book.doubt(name, self._signer, use, self._now_s)


_NO_SERVICE = frozenset({SID_ZERO.value})
"""Plain delivery is nobody's name: asking for it only narrows a rule."""


def _refused(field: str, name: bytes, doubt: Doubt) -> Refused:
    return Refused(Refusal(doubt.fault.value), f"{field} {name.hex()} {doubt.text}")
