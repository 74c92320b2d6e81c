"""What a reservation will cost: the terms of an offer, and their sum line by line.

Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packetcloud.domain_controller.core.checks import (
    check_digest,
    check_integer,
    check_name,
    check_type,
)
from packetcloud.domain_controller.core.cloudlets import MAX_SEQUENCE, MAX_VIS_COUNT
from packetcloud.domain_controller.core.money import Currency, check_micros
from packetcloud.domain_controller.core.prices import (
    MAX_FACTOR_PERMILLE,
    MAX_TIERS_COUNT,
    MAX_VERSION,
    ONE_TIER,
    Price,
    PriceList,
    Tier,
)
from packetcloud.domain_controller.core.resources import NOTHING, Resources, ViType
from packetcloud.domain_controller.core.slots import Slot
from packetcloud.domain_controller.core.wishes import MAX_SPREAD_COUNT


@dataclass(frozen=True, slots=True)
class Band:
    """VIs of a part that have one price."""

    count: int
    factor_permille: int
    price: Price

    def __post_init__(self) -> None:
        check_integer("band.count", self.count, 1, MAX_VIS_COUNT)
        check_integer("band.factor_permille", self.factor_permille, 1000, MAX_FACTOR_PERMILLE)
        check_type("band.price", self.price, Price, "a price")


@dataclass(frozen=True, slots=True)
class PartTerms:
    """What the VIs on one cloudlet cost; the first VI belongs to the first band, and so on."""

    cloudlet: str
    bands: tuple[Band, ...]

    def __post_init__(self) -> None:
        check_name("terms.cloudlet", self.cloudlet)
        check_integer("terms.bands: how many", len(self.bands), 1, MAX_TIERS_COUNT)

    @property
    def count(self) -> int:
        """VIs on this cloudlet."""
        return sum(band.count for band in self.bands)


@dataclass(frozen=True, slots=True)
class Terms:
    """The prices of an offer. Usage names the terms under which it was metered, by number."""

    number: int
    list_name: str
    list_version: int
    list_digest: bytes
    currency: Currency
    vi_type: str
    slot: Slot
    """Usage outside of it is not billed."""
    parts: tuple[PartTerms, ...]
    chunk_price: Price
    byte_price: Price

    def __post_init__(self) -> None:
        check_integer("terms.number", self.number, 1, MAX_SEQUENCE)
        check_name("terms.list_name", self.list_name)
        check_integer("terms.list_version", self.list_version, 1, MAX_VERSION)
        check_digest("terms.list_digest", self.list_digest)
        check_name("terms.vi_type", self.vi_type)
        check_type("terms.slot", self.slot, Slot, "a slot")
        check_integer("terms.parts: how many", len(self.parts), 1, MAX_SPREAD_COUNT)

    def part(self, cloudlet: str) -> PartTerms | None:
        """Return what holds on a cloudlet; None: it has no part in this."""
        return next((part for part in self.parts if part.cloudlet == cloudlet), None)


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant holds of a cloudlet already, and of how much.

    Attributes:
        held: of each kind the most that it holds at any time of the slot.
        capacity: what third parties can have there; None: the ISP's own, which has no tiers.
    """

    cloudlet: str
    count: int
    held: Resources = NOTHING
    capacity: Resources | None = None


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """VIs of one price on one cloudlet, over all of the slot that is left."""

    cloudlet: str
    count: int
    factor_permille: int
    price: Price
    vi_ms: int
    micros: int


@dataclass(frozen=True, slots=True)
class Quote:
    """What the time of the VIs will cost; chunks and bytes come as they are counted."""

    terms: Terms
    lines: tuple[QuoteLine, ...]

    @property
    def total_micros(self) -> int:
        """The sum of the lines, not yet rounded to what a bill can name."""
        return sum(line.micros for line in self.lines)


def split_into_bands(
    base: Price, tiers: Sequence[Tier], size: Resources, share: Share
) -> tuple[Band, ...]:
    """Return the prices of `share.count` VIs, the cheapest first.

    A VI belongs to the first tier whose bound the tenant's share is within once it holds this VI
    too; of processors, memory, disk and I/O the largest share counts.
    """
    bands: list[Band] = []
    taken = 0
    for tier in tiers:
        is_last = tier is tiers[-1]
        upto = share.count if is_last else min(share.count, _fitting(tier, size, share))
        if upto > taken:
            price = base.times_permille(tier.factor_permille)
            bands.append(Band(upto - taken, tier.factor_permille, price))
            taken = upto
    return tuple(bands)


def make_terms(
    prices: PriceList, vi_type: ViType, slot: Slot, shares: Sequence[Share], number: int = 1
) -> Terms:
    """Return the prices of a reservation with these parts.

    Raises:
        InvalidValueError: the list has no price for the type.
    """
    base = prices.vi_price(vi_type.price_tier)
    parts = tuple(
        PartTerms(
            share.cloudlet,
            split_into_bands(
                base,
                prices.tiers if share.capacity is not None else ONE_TIER,
                vi_type.resources,
                share,
            ),
        )
        for share in shares
    )
    return Terms(
        number,
        prices.name,
        prices.version,
        prices.digest,
        prices.currency,
        vi_type.name,
        slot,
        parts,
        prices.chunk_price,
        prices.byte_price,
    )


def quote(terms: Terms, now_ms: int) -> Quote:
    """Return what the VIs will cost in what is left of the slot.

    Raises:
        InvalidValueError: the sum is more than money can be.
    """
    left_ms = sum(max(0, end - max(begin, now_ms)) for begin, end in terms.slot.occurrences())
    lines = tuple(
        QuoteLine(
            part.cloudlet,
            band.count,
            band.factor_permille,
            band.price,
            band.count * left_ms,
            band.price.cost(band.count * left_ms),
        )
        for part in terms.parts
        for band in part.bands
    )
    result = Quote(terms, lines)
    check_micros("quote.total_micros", result.total_micros)
    return result


def _fitting(tier: Tier, size: Resources, share: Share) -> int:
    """Return with how many VIs the tenant's share is still within the bound of a tier."""
    assert share.capacity is not None
    counts = []
    for capacity, held, one in zip(
        share.capacity.amounts, share.held.amounts, size.amounts, strict=True
    ):
        if one:
            # held + n * one <= capacity * bound / 1000, in integers
            counts.append((capacity * tier.up_to_permille - 1000 * held) // (1000 * one))
    return max(0, min(counts))
