"""Price lists: what VI time, chunks and bytes cost, and how prices grow with a tenant's share.

Everything is a ratio of integers, so that a price is exact whatever it is multiplied with.
Source: docs/decisions/0015-domain-controller.md; docs/reference/price-list.md.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.domain_controller.core.checks import (
    MAX_INTEGER,
    check_integer,
    check_name,
    check_type,
    shown,
)
from packetcloud.domain_controller.core.money import MAX_MICROS, Currency, divide_half_even
from packetcloud.domain_controller.core.resources import MAX_PRICE_TIER
from packetcloud.domain_controller.errors import InvalidValueError

MAX_UNITS = 1 << 53
"""Units for which a price is given: what every JSON reader takes exactly."""
MAX_TIERS_COUNT = 32
MAX_FACTOR_PERMILLE = 1_000_000
"""A thousand times the base price."""
MAX_VERSION = 1 << 31


class Meter(StrEnum):
    """What is counted and has a price."""

    VI_TIME = "vi-time"
    """Milliseconds for which VIs were held, of all VIs together; priced by VI type."""
    CHUNKS = "chunks"
    """Chunks that VIs of a reservation were given, counted by the router."""
    BYTES = "bytes"
    """Bytes of these chunks and of what the VIs sent back, counted by the router."""


@dataclass(frozen=True, slots=True)
class Price:
    """So many millionths for so many units."""

    micros: int
    units: int

    def __post_init__(self) -> None:
        check_integer("price.micros", self.micros, 0, MAX_INTEGER)
        check_integer("price.units", self.units, 1, MAX_INTEGER)

    def cost(self, quantity: int) -> int:
        """Return what a quantity costs, rounded once, half to even."""
        return divide_half_even(quantity * self.micros, self.units)

    def times_permille(self, factor: int) -> Price:
        """Return this price, so many thousandths of it, in lowest terms."""
        micros, units = self.micros * factor, self.units * 1000
        common = math.gcd(micros, units)
        return Price(micros // common, units // common)


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of the VIs by which a tenant's share grows to at most `up_to_permille`."""

    up_to_permille: int
    factor_permille: int
    """Of the base price."""

    def __post_init__(self) -> None:
        check_integer("tier.up_to_permille", self.up_to_permille, 1, 1000)
        check_integer("tier.factor_permille", self.factor_permille, 1000, MAX_FACTOR_PERMILLE)


ONE_TIER = (Tier(1000, 1000),)


@dataclass(frozen=True, slots=True)
class PriceList:
    """One version of a price list. It never changes: a change is a new version."""

    name: str
    version: int
    currency: Currency
    vi_time: Mapping[int, Price]
    """By price tier of the VI type; units are milliseconds."""
    chunk_price: Price = Price(0, 1)
    byte_price: Price = Price(0, 1)
    tiers: tuple[Tier, ...] = ONE_TIER
    """Ascending; the first costs the base price, the last goes up to the whole cloudlet."""

    def __post_init__(self) -> None:
        check_name("price_list.name", self.name)
        check_integer("price_list.version", self.version, 1, MAX_VERSION)
        check_type("price_list.currency", self.currency, Currency, "a currency")
        for tier, price in self.vi_time.items():
            check_integer("price_list.vi_time", tier, 1, MAX_PRICE_TIER)
            _check_price(f"price_list.vi_time.{tier}", price)
        if not self.vi_time:
            raise InvalidValueError("price_list.vi_time", "nothing", "at least one price tier")
        _check_price("price_list.chunk_price", self.chunk_price)
        _check_price("price_list.byte_price", self.byte_price)
        _check_tiers(self.tiers)

    def vi_price(self, price_tier: int) -> Price:
        """Return the base price of VI time.

        Raises:
            InvalidValueError: the list has no price for this tier.
        """
        price = self.vi_time.get(price_tier)
        if price is None:
            tiers = ", ".join(map(str, sorted(self.vi_time)))
            raise InvalidValueError(
                "vi_type.price_tier",
                str(price_tier),
                f"a tier of price list {self.name} version {self.version}: {tiers}",
            )
        return price

    def to_text(self) -> str:
        """Return the canonical form: what the digest is made of, one fact a line."""
        lines = [
            "packetcloud price list 1",
            f"list {self.name} {self.version}",
            f"currency {self.currency.code} {self.currency.minor_digits}",
        ]
        for tier, price in sorted(self.vi_time.items()):
            lines.append(f"vi-time {tier} {price.micros} {price.units}")
        lines.append(f"chunks {self.chunk_price.micros} {self.chunk_price.units}")
        lines.append(f"bytes {self.byte_price.micros} {self.byte_price.units}")
        lines += [f"tier {tier.up_to_permille} {tier.factor_permille}" for tier in self.tiers]
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form: comments and the order of tables do not change it."""
        return hashlib.sha256(self.to_text().encode()).digest()


def _check_price(where: str, price: Price) -> None:
    check_type(where, price, Price, "a price")
    check_integer(f"{where}.micros", price.micros, 0, MAX_MICROS)
    check_integer(f"{where}.units", price.units, 1, MAX_UNITS)


def _check_tiers(tiers: tuple[Tier, ...]) -> None:
    check_integer("price_list.tiers: how many", len(tiers), 1, MAX_TIERS_COUNT)
    if tiers[0].factor_permille != 1000:
        given = str(tiers[0].factor_permille)
        raise InvalidValueError("tier 1: factor_permille", given, "1000: the base price")
    for number, (lower, upper) in enumerate(itertools.pairwise(tiers), 2):
        if upper.up_to_permille <= lower.up_to_permille:
            raise InvalidValueError(
                f"tier {number}: up_to_permille",
                shown(upper.up_to_permille),
                f"more than the {lower.up_to_permille} of the tier before it",
            )
        if upper.factor_permille < lower.factor_permille:
            raise InvalidValueError(
                f"tier {number}: factor_permille",
                shown(upper.factor_permille),
                f"at least the {lower.factor_permille} of the tier before it",
            )
    if tiers[-1].up_to_permille != 1000:
        given = str(tiers[-1].up_to_permille)
        raise InvalidValueError("the last tier: up_to_permille", given, "1000: all of a cloudlet")
