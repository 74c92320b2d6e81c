"""What payload patterns take of the scanner, and how much of it one signer may have.

All patterns are found in one scan, so each has a part in what every scan costs, and some things the
scanner has only few of. Third parties together have a part of each, and one of them a part of that:
what is left is the ISP's own. Source: docs/decisions/0014; docs/reference/rules.md, "Shares".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.router.rules.expression import WORD_BYTES
from packetcloud.router.rules.patterns import (
    MAX_PATTERNS_COUNT,
    MAX_STARTS_COUNT,
    MAX_WORDLESS_COUNT,
    Demand,
)
from packetcloud.router.rules.scan_cost import texts_ns
from packetcloud.router.settings import RuleSettings

MAX_THIRD_PARTY_STARTS_COUNT = MAX_STARTS_COUNT // 2
MAX_SIGNER_STARTS_COUNT = 1
"""Of one third party."""
MAX_THIRD_PARTY_WORDLESS_COUNT = MAX_WORDLESS_COUNT // 2
MAX_SIGNER_WORDLESS_COUNT = 2
"""Of one third party."""


class Good(StrEnum):
    """What there is only so much of."""

    PATTERNS = "different patterns"
    WORDLESS = f"patterns without {WORD_BYTES} fixed bytes next to each other"
    STARTS = 'different starts ("from") of expressions of no fixed length'
    SCAN = "ns for each byte of payload that a scan may take"


ADVICE = {
    Good.PATTERNS: "withdraw rules with other patterns first",
    Good.WORDLESS: "write more fixed text into the expression",
    Good.STARTS: 'use a "from" that is in use already, or an expression of a fixed length',
    Good.SCAN: "write longer fixed texts that end differently, and fewer sets and repeats",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a good somebody may have."""

    most: int
    setting: str = ""
    """Key of the router's config; empty: a fixed number."""


@dataclass(frozen=True, slots=True)
class Share:
    """What somebody may have of the scanner; of a good that is not named: as much as there is."""

    whose: str
    limits: Mapping[Good, Limit]

    def problem(self, good: Good, wanted: int) -> str | None:
        """Say why there cannot be so much of a good; None: there can."""
        limit = self.limits.get(good)
        if limit is None or wanted <= limit.most:
            return None
        setting = f" ([rules] {limit.setting})" if limit.setting else ""
        return f"{wanted} {good} in {self.whose}; allowed: {limit.most}{setting}; {ADVICE[good]}"


ALL = Share(
    "all rules",
    {
        Good.PATTERNS: Limit(MAX_PATTERNS_COUNT),
        Good.WORDLESS: Limit(MAX_WORDLESS_COUNT),
        Good.STARTS: Limit(MAX_STARTS_COUNT),
    },
)
"""What one scanner can do."""


def share_of_all(settings: RuleSettings) -> Share:
    """Return what all rules together may have, the ISP's among them."""
    limits = {**ALL.limits, Good.PATTERNS: Limit(settings.max_patterns, "max_patterns")}
    return Share(ALL.whose, limits)


def share_of_third_parties(settings: RuleSettings) -> Share:
    """Return what all third parties may have together."""
    return Share(
        "the rules of all third parties",
        {
            Good.PATTERNS: Limit(settings.max_third_party_patterns, "max_third_party_patterns"),
            Good.WORDLESS: Limit(MAX_THIRD_PARTY_WORDLESS_COUNT),
            Good.STARTS: Limit(MAX_THIRD_PARTY_STARTS_COUNT),
            Good.SCAN: Limit(settings.max_third_party_scan_ns, "max_third_party_scan_ns"),
        },
    )


def share_of_signer(settings: RuleSettings) -> Share:
    """Return what one third party may have."""
    return Share(
        "the rules of this signer",
        {
            Good.PATTERNS: Limit(settings.max_signer_patterns, "max_signer_patterns"),
            Good.WORDLESS: Limit(MAX_SIGNER_WORDLESS_COUNT),
            Good.STARTS: Limit(MAX_SIGNER_STARTS_COUNT),
            Good.SCAN: Limit(settings.max_signer_scan_ns, "max_signer_scan_ns"),
        },
    )


class ScannerLoad:
    """What some patterns take of the scanner together."""

    def __init__(self, demands: Iterable[Demand] = ()) -> None:
        self._counts = dict.fromkeys((Good.PATTERNS, Good.WORDLESS, Good.SCAN), 0)
        self._starts: set[int] = set()
        self._texts: list[bytes] = []
        self.add(demands)

    def add(self, demands: Iterable[Demand]) -> None:
        """Add patterns that are not among them yet."""
        for one in demands:
            self._counts[Good.PATTERNS] += 1
            self._counts[Good.WORDLESS] += one.is_wordless
            self._counts[Good.SCAN] += one.expression_ns
            if one.late_start:
                self._starts.add(one.late_start)
            if one.text is not None:
                self._texts.append(one.text)

    def with_more(self, good: Good, demands: Collection[Demand] = ()) -> int:
        """Return how much of a good these and some others take. Cost: O(n log n) for `SCAN`."""
        match good:
            case Good.PATTERNS:
                return self._counts[good] + len(demands)
            case Good.WORDLESS:
                return self._counts[good] + sum(one.is_wordless for one in demands)
            case Good.STARTS:
                return len(self._starts | {one.late_start for one in demands} - {0})
            case Good.SCAN:
                texts = self._texts + [one.text for one in demands if one.text is not None]
                expressions_ns = sum(one.expression_ns for one in demands)
                return self._counts[good] + expressions_ns + texts_ns(texts)
