"""The core's values as text: what is read is what was written; what is not theirs is refused."""

from __future__ import annotations

import pytest

from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.domain_controller.core.cloudlets import (
    Cloudlet,
    CloudletReport,
    Distance,
    NodeReport,
    Running,
    TypeCount,
)
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.prices import Price, PriceList, Tier
from packetcloud.domain_controller.core.principals import Principal, Role, Service
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import Every, Repeat, Slot
from packetcloud.domain_controller.core.wishes import Constraints, Near, Wish
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import StateError

SIZE = Resources(1500, 1 << 30, 1 << 31, 100)
VALUES = (
    Principal("acme", Role.TENANT, "Acme, Köln"),
    Cloudlet("c1", "north", 250, is_open=False),
    ViType("small", SIZE, 3),
    Service("ids", "acme", SID(bytes(range(20))), "image-1"),
    Wish("small", 3, Slot(5_000, 9_000)),
    Wish(
        "small",
        3,
        Slot(5_000, 9_000, Repeat(Every.DAY, 4)),
        Constraints(None, "north", Near(GUID(bytes(20)), 3), 2),
        "ids",
        17,
    ),
    Wish("small", 1, Slot(5_000, 9_000), Constraints(near=Near(NA(7)))),
    CloudletReport(
        "c1",
        9,
        1_800_000_000_000,
        (NodeReport("n1", SIZE, SIZE, SIZE, vis=(TypeCount("small", 2),)),),
        (Running("r1", "small", 2),),
        NA(4),
        (GUID(b"\x01" * 20),),
        (Distance(NA(5), 2),),
    ),
    PriceList(
        "standard",
        2,
        Currency("EUR"),
        {1: Price(3, 7), 2: Price(5, 1)},
        tiers=(Tier(500, 1000), Tier(1000, 2500)),
    ),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_read_is_what_was_written(value: object) -> None:
    """Every field, also names, enums, mappings and what may be missing."""
    assert load(type(value), dump(value)) == value


def test_a_host_and_a_router_stay_apart() -> None:
    """A GUID that is all digits is no NA, and the other way round."""
    digits = GUID(bytes.fromhex("12" * 20))
    for target in (digits, NA(12)):
        near = load(Near, dump(Near(target)))
        assert near.target == target and type(near.target) is type(target)


@pytest.mark.parametrize("key", ["one", "", "1.0", "1" * 19, " 1"])
def test_a_price_list_by_another_key_than_an_integer_is_refused(key: str) -> None:
    """By its place in the text."""
    text = dump(VALUES[-1]).replace('"2":{', f'"{key}":{{')
    with pytest.raises(StateError, match=r"PriceList.*key .*integers"):
        load(PriceList, text)


def test_a_field_that_a_later_version_added_has_its_default() -> None:
    """A text of an older version lacks it."""
    assert load(Cloudlet, '{"name": "c1", "region": "north"}') == Cloudlet("c1", "north")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "null",
        '{"name": "c1"}',
        '{"name": "c1", "region": "north", "new": 1}',
        '{"name": 7, "region": "north"}',
        '{"name": "c1", "region": "north", "isp_share_permille": true}',
        '{"name": "c1", "region": "north", "isp_share_permille": 2000}',
    ],
)
def test_what_is_no_such_value_is_refused(text: str) -> None:
    """With one error, that names the class."""
    with pytest.raises(StateError, match="Cloudlet"):
        load(Cloudlet, text)
