"""Price lists, tiers and quotes: exact, and every mistake in a file is one readable sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.domain_controller.core.money import MAX_MICROS, Currency, format_money
from packetcloud.domain_controller.core.price_file import (
    MAX_PRICE_LIST_BYTES,
    parse_price_list,
    sample_price_list,
)
from packetcloud.domain_controller.core.prices import (
    MAX_TIERS_COUNT,
    ONE_TIER,
    Price,
    PriceList,
    Tier,
)
from packetcloud.domain_controller.core.quotes import Share, make_terms, quote, split_into_bands
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import HOUR_MS, Every, Repeat, Slot
from packetcloud.domain_controller.errors import InvalidValueError, PriceListError

HEAD = 'price_list = 1\nname = "a"\nversion = 1\ncurrency = "EUR"\n'
TIME = '[[vi_time]]\nprice_tier = 1\nprice = "1"\n'
ONE = ViType("one", Resources(1000))
TIERS = (Tier(250, 1000), Tier(500, 1500), Tier(1000, 2500))
HOURLY = Price(1000, HOUR_MS)
LIST = PriceList("a", 1, Currency("EUR"), {1: HOURLY}, tiers=TIERS)


def test_the_sample_is_a_price_list() -> None:
    """What comes with PacketCloud can be read, and prices every tier of its VI types."""
    prices = parse_price_list(sample_price_list(), "prices.toml")
    assert set(prices.vi_time) == {1, 2, 3, 5}
    assert prices.vi_price(1).cost(HOUR_MS) == 4000


def test_the_digest_is_about_what_counts() -> None:
    """Comments and order do not change it; every price, bound and name does."""
    text = HEAD + TIME + TIME.replace("1\n", "2\n", 1)
    other = "# a comment\n" + HEAD + TIME.replace("1\n", "2\n", 1) + TIME
    digest = parse_price_list(text, "f").digest
    assert parse_price_list(other, "f").digest == digest
    changes = {
        '"a"': '"b"',
        "version = 1": "version = 2",
        "EUR": "USD",
        'price = "1"': 'price = "1.000001"',
        "price_tier = 2": "price_tier = 3",
    }
    digests = {parse_price_list(text.replace(*pair), "f").digest for pair in changes.items()}
    assert len(digests | {digest}) == len(changes) + 1


def test_the_list_on_the_page_is_one_and_costs_what_the_page_says() -> None:
    """4 VIs of one processor for an hour, of 8: 0.02."""
    page = Path(__file__).parents[4] / "docs" / "reference" / "price-list.md"
    found = re.search(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    assert found is not None
    prices = parse_price_list(found[1], "price-list.md")
    share = Share("c", 4, capacity=Resources(8000))
    offer = quote(make_terms(prices, ONE, Slot(0, HOUR_MS), [share]), 0)
    assert format_money(offer.total_micros, prices.currency) == "0.02 EUR"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a =", "not TOML"),
        (HEAD.replace("1", "9" * 5000, 1) + TIME, "not TOML"),
        (HEAD.replace("1", "2", 1) + TIME, "price_list = 2"),
        (HEAD.replace("1", "true", 1) + TIME, "price_list = True"),
        ("x = 1\n" + HEAD + TIME, "x: unknown table; allowed: price_list, name"),
        (HEAD, "vi_time: missing"),
        ("vi_time = []\n" + HEAD, "at least one price tier"),
        (HEAD + TIME.replace('"1"', "1"), r"\[\[vi_time\]\] number 1 price = 1"),
        (HEAD + TIME.replace('"1"', "0.5"), r"number 1 price = 0.5"),
        (HEAD + TIME.replace('"1"', "nan"), r"number 1 price = nan"),
        (HEAD + TIME.replace('"1"', '"-1"'), "0 or more"),
        (HEAD + TIME.replace('"1"', '"1.0000001"'), "at most six digits"),
        (HEAD + TIME.replace('"1"', '"9999999999999"'), "price"),
        (HEAD + TIME + 'per = "year"', "'second', 'minute', 'hour' or 'day'"),
        (HEAD + TIME + TIME, "number 2 price_tier = 1 twice"),
        (HEAD + TIME.replace("= 1", "= 0"), "price_list.vi_time = 0"),
        (HEAD + TIME + "[chunks]\nprice = '1'\nper = 0", r"\[chunks\] per = 0"),
        (HEAD + TIME + "[bytes]\nprice = '1'\nunit = 1", r"\[bytes\] unit: unknown key; allowed"),
        (HEAD.replace('"EUR"', '"euro"') + TIME, "currency.code"),
        (HEAD.replace('"a"', '"A"') + TIME, "price_list.name"),
        (HEAD + TIME + "[[tier]]\nup_to_permille = 900\nfactor_permille = 1000", "the last tier"),
        (HEAD + TIME + "[[tier]]\nup_to_permille = 1000\nfactor_permille = 1001", "tier 1"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    """File, table, key, what stands there, what is allowed."""
    with pytest.raises(PriceListError, match=message) as caught:
        parse_price_list(text, "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert "\n" not in str(caught.value)


def test_a_text_that_is_too_long_is_not_read() -> None:
    """At the cap it is, one more character and it is not."""
    text = HEAD + TIME
    parse_price_list(text + "#" * (MAX_PRICE_LIST_BYTES - len(text)), "f")
    with pytest.raises(PriceListError, match="over"):
        parse_price_list(text + "#" * (MAX_PRICE_LIST_BYTES - len(text) + 1), "f")


@pytest.mark.parametrize(
    "tiers",
    [
        (),
        (Tier(500, 1000), Tier(500, 1500), Tier(1000, 1500)),
        (Tier(500, 1000), Tier(700, 2000), Tier(1000, 1500)),
    ],
)
def test_tiers_ascend(tiers: tuple[Tier, ...]) -> None:
    """Bounds grow, and prices do not fall."""
    with pytest.raises(InvalidValueError, match="tier"):
        replace(LIST, tiers=tiers)


def test_tiers_are_bounded() -> None:
    """At the cap they are taken, one more is not."""
    most = tuple(Tier(n, 1000) for n in range(1, MAX_TIERS_COUNT)) + ONE_TIER
    replace(LIST, tiers=most)
    with pytest.raises(InvalidValueError, match="how many"):
        replace(LIST, tiers=(*most[:-1], Tier(999, 1000), most[-1]))


def test_the_share_is_taxed_as_an_income_is() -> None:
    """8 processors: 2 VIs within a quarter, 2 within a half, the rest dearer."""
    bands = split_into_bands(HOURLY, TIERS, ONE.resources, Share("c", 5, capacity=Resources(8000)))
    assert [(band.count, band.factor_permille) for band in bands] == [
        (2, 1000),
        (2, 1500),
        (1, 2500),
    ]
    assert [band.price.cost(HOUR_MS) for band in bands] == [1000, 1500, 2500]
    held = Share("c", 3, Resources(1000), Resources(8000))
    bands = split_into_bands(HOURLY, TIERS, ONE.resources, held)
    assert [(band.count, band.factor_permille) for band in bands] == [(1, 1000), (2, 1500)]


@given(
    st.integers(1, 40),
    st.tuples(*[st.integers(0, 50)] * 4),
    st.tuples(*[st.integers(0, 8)] * 4).filter(any),
    st.tuples(*[st.integers(0, 200)] * 4),
)
def test_each_vi_belongs_to_the_tier_that_its_share_reaches(
    count: int,
    held: tuple[int, int, int, int],
    size: tuple[int, int, int, int],
    capacity: tuple[int, int, int, int],
) -> None:
    """As counting one VI after the other tells, by exact shares."""
    share = Share("c", count, Resources(*held), Resources(*capacity))
    bands = split_into_bands(HOURLY, TIERS, Resources(*size), share)
    factors = [band.factor_permille for band in bands for _ in range(band.count)]
    expected = []
    for number in range(1, count + 1):
        for tier in TIERS:
            if tier is TIERS[-1] or all(
                1000 * (have + number * one) <= whole * tier.up_to_permille
                for have, one, whole in zip(held, size, capacity, strict=True)
                if one
            ):
                expected.append(tier.factor_permille)
                break
    assert factors == expected


def test_a_quote_is_the_sum_of_its_lines_and_counts_what_is_left() -> None:
    """All occurrences, all bands, every cloudlet; not what is over."""
    slot = Slot(0, HOUR_MS, Repeat(Every.DAY, 3))
    shares = [Share("c1", 3, capacity=Resources(8000)), Share("c2", 1, capacity=Resources(8000))]
    offer = quote(make_terms(LIST, ONE, slot, shares), 0)
    assert [(line.cloudlet, line.count, line.micros) for line in offer.lines] == [
        ("c1", 2, 6000),
        ("c1", 1, 4500),
        ("c2", 1, 3000),
    ]
    assert offer.total_micros == 13_500
    later = quote(make_terms(LIST, ONE, slot, shares), HOUR_MS // 2)
    assert later.total_micros == 13_500 * 5 // 6


def test_the_isps_own_vis_have_no_tiers() -> None:
    """They cost the base price whatever their share is."""
    offer = quote(make_terms(LIST, ONE, Slot(0, HOUR_MS), [Share("c", 100)]), 0)
    assert offer.total_micros == 100_000


def test_a_sum_that_is_more_than_money_is_refused() -> None:
    """At the largest amount it is taken; one more millionth is not."""
    prices = replace(LIST, vi_time={1: Price(MAX_MICROS, HOUR_MS)}, tiers=ONE_TIER)
    slot = Slot(0, HOUR_MS)
    assert quote(make_terms(prices, ONE, slot, [Share("c", 1)]), 0).total_micros == MAX_MICROS
    with pytest.raises(InvalidValueError, match="total_micros"):
        quote(make_terms(prices, ONE, slot, [Share("c", 2)]), 0)


def test_a_type_without_a_price_is_named() -> None:
    """The error says which tiers the list has."""
    with pytest.raises(InvalidValueError, match="tier of price list a version 1: 1"):
        LIST.vi_price(2)


@given(
    st.integers(0, 10**12), st.integers(1, 10**9), st.integers(1000, 10**6), st.integers(0, 10**15)
)
def test_a_factor_loses_nothing(micros: int, units: int, factor: int, quantity: int) -> None:
    """The dearer price is the exact product."""
    price = Price(micros, units).times_permille(factor)
    assert price.micros * units * 1000 == micros * factor * price.units
    assert price.cost(quantity) == Price(micros * factor, units * 1000).cost(quantity)
