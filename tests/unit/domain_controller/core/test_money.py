"""Money: integers only, rounded half to even, written and read without loss."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.domain_controller.core.money import (
    MAX_MICROS,
    Currency,
    check_micros,
    divide_half_even,
    format_money,
    parse_money,
    to_minor,
)
from packetcloud.domain_controller.errors import InvalidValueError

EUR = Currency("EUR")


@given(st.integers(), st.integers(1))
def test_division_is_to_the_nearest_and_half_to_even(dividend: int, divisor: int) -> None:
    """As Python rounds exact fractions."""
    assert divide_half_even(dividend, divisor) == round(Fraction(dividend, divisor))


@given(st.integers(-MAX_MICROS, MAX_MICROS), st.integers(0, 4))
def test_bills_round_once_to_what_they_can_name(micros: int, digits: int) -> None:
    """The rest is at most half of the smallest amount, as decimal arithmetic has it."""
    currency = Currency("XTS", digits)
    exact = Decimal(micros).scaleb(-6).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN)
    assert Decimal(to_minor(micros, currency)).scaleb(-6) == exact
    assert Decimal(format_money(micros, currency).removesuffix(" XTS")) == exact


@given(st.integers(-MAX_MICROS, MAX_MICROS))
def test_what_is_written_exactly_is_read_back(micros: int) -> None:
    """All six digits are shown, and the sign."""
    assert parse_money("price", format_money(micros, EUR, is_exact=True).split()[0]) == micros


@pytest.mark.parametrize(
    "text",
    [
        *("", "1.", ".5", "1.0000001", "1e3", "NaN", "inf", "+1", " 1", "1 ", "0x1", "١", "1_0"),
        *(1, 1.0, True, None, math.nan, "9" * 14, "9999999999999"),
    ],
)
def test_only_decimal_texts_are_money(text: object) -> None:
    """No float, no exponent, no digits that would be lost, no more than fits."""
    with pytest.raises(InvalidValueError, match="price"):
        parse_money("price", text)


@pytest.mark.parametrize("value", [MAX_MICROS + 1, -MAX_MICROS - 1, 1.0, True, math.nan, None])
def test_an_amount_is_an_integer_that_databases_keep(value: object) -> None:
    """One more than the largest is refused."""
    check_micros("amount", MAX_MICROS)
    check_micros("amount", -MAX_MICROS)
    with pytest.raises(InvalidValueError, match="amount"):
        check_micros("amount", value)


@pytest.mark.parametrize(("code", "digits"), [("eur", 2), ("EURO", 2), ("", 2), ("EUR", 5)])
def test_a_currency_has_three_letters_and_few_digits(code: str, digits: int) -> None:
    """Anything else is refused by name."""
    with pytest.raises(InvalidValueError, match="currency"):
        Currency(code, digits)
