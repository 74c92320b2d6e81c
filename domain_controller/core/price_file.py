"""Price lists as TOML: text in, a checked list out; every mistake is one readable sentence.

Source: docs/reference/price-list.md.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from packetcloud.chunk.toml_files import TomlFiles, TomlTable
from packetcloud.domain_controller.core.checks import check_integer, shown
from packetcloud.domain_controller.core.money import Currency, parse_money
from packetcloud.domain_controller.core.prices import MAX_UNITS, ONE_TIER, Price, PriceList, Tier
from packetcloud.domain_controller.core.slots import DAY_MS, HOUR_MS, SECOND_MS
from packetcloud.domain_controller.errors import InvalidValueError, PriceListError

FORMAT = 1
SAMPLE = "prices.toml"
MAX_PRICE_LIST_BYTES = 1 << 20
"""A price list is some KiB; a larger text is something else."""
_FILES = TomlFiles(PriceListError)
TIMES_MS = {"second": SECOND_MS, "minute": 60 * SECOND_MS, "hour": HOUR_MS, "day": DAY_MS}


class PriceTable(TomlTable):
    """A table of a price list: no value is taken for one of another type."""

    model_config = ConfigDict(strict=True)


class ViTimeTable(PriceTable):
    """`[[vi_time]]`: what a VI of a price tier costs while it is held."""

    price_tier: int
    price: str
    per: Literal["second", "minute", "hour", "day"] = "hour"


class MeterTable(PriceTable):
    """`[chunks]`, `[bytes]`: what so many cost that VIs were given."""

    price: str
    per: Annotated[int, Field(ge=1, le=MAX_UNITS)]


class TierTable(PriceTable):
    """`[[tier]]`: what VIs cost by which a tenant's share grows to `up_to_permille`."""

    up_to_permille: int
    factor_permille: int


class PriceListFile(PriceTable):
    """A whole file; `price_list = 1` is the version of this format."""

    price_list: int
    name: str
    version: int
    currency: str
    minor_digits: int = 2
    vi_time: list[ViTimeTable]
    chunks: MeterTable | None = None
    bytes: MeterTable | None = None
    tier: list[TierTable] = Field(default_factory=list)


def sample_price_list() -> str:
    """Return the text of the list that comes with PacketCloud."""
    return files(__package__).joinpath(SAMPLE).read_text(encoding="utf-8")


def parse_price_list(text: str, origin: str) -> PriceList:
    """Read a price list; `origin` is the name of the file in errors.

    Raises:
        PriceListError: names file, table and key, and says what is allowed.
    """
    if len(text) > MAX_PRICE_LIST_BYTES:
        raise PriceListError(f"{origin}: over {MAX_PRICE_LIST_BYTES} bytes; is it the right file?")
    file = _FILES.parse(text, PriceListFile, origin)
    try:
        return _price_list(file)
    except InvalidValueError as error:
        raise PriceListError(f"{origin}: {error}") from None


def _price_list(file: PriceListFile) -> PriceList:
    check_integer("price_list", file.price_list, FORMAT, FORMAT)
    vi_time: dict[int, Price] = {}
    for number, table in enumerate(file.vi_time, 1):
        where = f"[[vi_time]] number {number}"
        if table.price_tier in vi_time:
            given = f"{table.price_tier} twice"
            raise InvalidValueError(f"{where} price_tier", given, "each tier once")
        vi_time[table.price_tier] = _price(where, table.price, TIMES_MS[table.per])
    nothing = Price(0, 1)
    return PriceList(
        file.name,
        file.version,
        Currency(file.currency, file.minor_digits),
        vi_time,
        _price("[chunks]", file.chunks.price, file.chunks.per) if file.chunks else nothing,
        _price("[bytes]", file.bytes.price, file.bytes.per) if file.bytes else nothing,
        tuple(Tier(table.up_to_permille, table.factor_permille) for table in file.tier) or ONE_TIER,
    )


def _price(where: str, text: str, units: int) -> Price:
    micros = parse_money(f"{where} price", text)
    if micros < 0:
        raise InvalidValueError(f"{where} price", shown(text), "0 or more")
    return Price(micros, units)
