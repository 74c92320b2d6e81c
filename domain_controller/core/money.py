"""Money: integers of a millionth of the currency's unit. No float comes near it.

Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packetcloud.domain_controller.core.checks import check_integer, shown
from packetcloud.domain_controller.errors import InvalidValueError

MICROS = 1_000_000
"""Parts of the currency's unit that are counted."""
MAX_MICROS = (1 << 62) - 1
"""The largest amount, about 4.6 million millions of the unit: a sum of two still fits 63 bits."""
MAX_MINOR_DIGITS = 4
_MINOR_MICROS = (1_000_000, 100_000, 10_000, 1_000, 100)
_CODE = re.compile(r"[A-Z]{3}")
_AMOUNT = re.compile(r"(-?)(\d{1,13})(?:\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency, and how many digits bills have after the point."""

    code: str
    """Three capital letters, ISO 4217."""
    minor_digits: int = 2

    def __post_init__(self) -> None:
        if type(self.code) is not str or _CODE.fullmatch(self.code) is None:
            raise InvalidValueError("currency.code", shown(self.code), "three capital letters")
        check_integer("currency.minor_digits", self.minor_digits, 0, MAX_MINOR_DIGITS)

    @property
    def minor_micros(self) -> int:
        """What the smallest amount on a bill is worth."""
        return _MINOR_MICROS[self.minor_digits]


def check_micros(where: str, value: object) -> None:
    """Refuse what is not an amount of money.

    Raises:
        InvalidValueError: names `where`.
    """
    check_integer(where, value, -MAX_MICROS, MAX_MICROS)


def divide_half_even(dividend: int, divisor: int) -> int:
    """Return the nearest integer of a quotient; half way between two: the even one.

    `divisor` is at least 1.
    """
    quotient, rest = divmod(dividend, divisor)
    twice = 2 * rest
    if twice > divisor or (twice == divisor and quotient & 1):
        return quotient + 1
    return quotient


def to_minor(micros: int, currency: Currency) -> int:
    """Return an amount rounded to what a bill can name, in millionths."""
    return divide_half_even(micros, currency.minor_micros) * currency.minor_micros


def format_money(micros: int, currency: Currency, *, is_exact: bool = False) -> str:
    """Return an amount for people: `12.34 EUR`; `is_exact`: with all six digits."""
    digits = 6 if is_exact else currency.minor_digits
    scaled = divide_half_even(micros, 10 ** (6 - digits))
    sign = "-" if scaled < 0 else ""
    whole, part = divmod(abs(scaled), 10**digits)
    return f"{sign}{whole}{f'.{part:0{digits}}' if digits else ''} {currency.code}"


def parse_money(where: str, text: object) -> int:
    """Return the millionths that a decimal text names: `0.25` is 250 000.

    Raises:
        InvalidValueError: names `where`.
    """
    match = _AMOUNT.fullmatch(text) if type(text) is str and text.isascii() else None
    if match is None:
        allowed = 'a decimal number in quotes with at most six digits after the point: "0.25"'
        raise InvalidValueError(where, shown(text), allowed)
    sign, whole, part = match.groups()
    micros = int(whole) * MICROS + int((part or "").ljust(6, "0"))
    micros = -micros if sign else micros
    check_micros(where, micros)
    return micros
