"""Which VI type is the cheapest for a wanted load, by what was measured of each.

Source: paper, section 3.2; docs/reference/reservations.md, "Advice and drift".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from packetcloud.domain_controller.core.checks import check_integer, check_name
from packetcloud.domain_controller.core.cloudlets import MAX_VIS_COUNT
from packetcloud.domain_controller.core.prices import ONE_TIER, PriceList
from packetcloud.domain_controller.core.quotes import Share, split_into_bands
from packetcloud.domain_controller.core.resources import NOTHING, Resources, ViType
from packetcloud.domain_controller.core.slots import HOUR_MS
from packetcloud.domain_controller.errors import InvalidValueError

MAX_CHUNKS_PER_S = 10**12
DEFAULT_RESERVE_PERMILLE = 200
"""Load comes in bursts, and a measurement is of one machine: a fifth more than wanted."""
MAX_RESERVE_PERMILLE = 10_000
"""Eleven times what is wanted: more is a slip."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Chunks per second that one VI of a type processes: `packetcloud service benchmark`."""

    vi_type: str
    chunks_per_s: int

    def __post_init__(self) -> None:
        check_name("measured.vi_type", self.vi_type)
        check_integer("measured.chunks_per_s", self.chunks_per_s, 0, MAX_CHUNKS_PER_S)


@dataclass(frozen=True, slots=True)
class Advice:
    """A way to carry the load."""

    vi_type: str
    count: int
    chunks_per_s: int
    """What so many VIs process together."""
    micros_per_hour: int


def advise(
    wanted_chunks_per_s: int,
    measured: Iterable[Measured],
    types: Mapping[str, ViType],
    prices: PriceList,
    *,
    reserve_permille: int = DEFAULT_RESERVE_PERMILLE,
    held: Resources = NOTHING,
    capacity: Resources | None = None,
) -> tuple[Advice, ...]:
    """Return the ways to carry a load, the cheapest first; among equals the one with fewest VIs.

    With `capacity` (what third parties can have of a cloudlet) and `held` (what the tenant has of
    it already) tiers count. Types that were not measured, do no chunk, have no price, or of which
    too many were needed, are left out.

    Raises:
        InvalidValueError: names the field that is wrong.
    """
    check_integer("wanted_chunks_per_s", wanted_chunks_per_s, 1, MAX_CHUNKS_PER_S)
    check_integer("reserve_permille", reserve_permille, 0, MAX_RESERVE_PERMILLE)
    needed = wanted_chunks_per_s * (1000 + reserve_permille)
    found: list[tuple[Fraction, int, str, Advice]] = []
    for one in measured:
        vi_type = types.get(one.vi_type)
        if vi_type is None:
            known = ", ".join(sorted(types)) or "none"
            raise InvalidValueError("measured.vi_type", repr(one.vi_type), known)
        if not one.chunks_per_s or vi_type.price_tier not in prices.vi_time:
            continue
        count = -(-needed // (one.chunks_per_s * 1000))
        if count > MAX_VIS_COUNT:
            continue
        tiers = prices.tiers if capacity is not None else ONE_TIER
        share = Share("any", count, held, capacity)
        base = prices.vi_price(vi_type.price_tier)
        bands = split_into_bands(base, tiers, vi_type.resources, share)
        exact = sum(
            (
                Fraction(band.price.micros * band.count * HOUR_MS, band.price.units)
                for band in bands
            ),
            Fraction(),
        )
        advice = Advice(vi_type.name, count, one.chunks_per_s * count, round(exact))
        found.append((exact, count, vi_type.name, advice))
    return tuple(one[3] for one in sorted(found, key=lambda one: one[:3]))
