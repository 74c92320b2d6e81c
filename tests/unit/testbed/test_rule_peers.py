"""What is said to nftables and Open vSwitch has the form that their protocols ask for."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from packetcloud.testbed.peers import nftables, openflow
from packetcloud.testbed.traffic.rule_traffic import RuleTraffic, Spread, make_names

NAMES = make_names(3000)


def _netlink_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[20:length]
        data = data[length:]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x7FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def test_every_name_is_an_entry_of_an_nftables_transaction() -> None:
    """In one batch, in messages whose attributes are shorter than 64 KiB, in order."""
    begin, *messages, end = _netlink_messages(nftables.transaction("m3000", NAMES, 7))
    assert (begin[0], end[0]) == (16, 17)
    keys, values = [], []
    for _, body in messages:
        parts = dict(_attributes(body))
        assert parts[1] == b"names\0" and parts[2] == b"m3000\0"
        for _, entry in _attributes(parts[3]):
            fields = dict(_attributes(entry))
            keys.append(dict(_attributes(fields[1]))[1])
            values.append(int.from_bytes(dict(_attributes(fields[2]))[1], "little"))
    assert keys == [bytes(name) for name in NAMES]
    assert values == list(range(7, 3007))


def test_the_rules_read_every_name_of_a_packet() -> None:
    """Twelve names of 20 bytes, each in its place, in each of the maps."""
    text = nftables.ruleset([100, 10_000])
    for size in (100, 10_000):
        for number in range(nftables.NAMES_PER_PACKET):
            place = f"@ih,{number * 160},128 . @ih,{number * 160 + 128},32 map @m{size}"
            assert text.count(f"{place}\n") == 2  # to ask, and to check
    assert nftables.packets(NAMES[:24]).shape == (2, 240)
    assert bytes(nftables.packets(NAMES[:24])[1][:20]) == bytes(NAMES[12])


def test_flows_match_one_name_each() -> None:
    """As long as their heads say; the name in the two registers."""
    found = openflow.flows(5, NAMES)
    for row, name in zip(found[:3], NAMES, strict=False):
        message = bytes(row)
        assert struct.unpack_from("!BBH", message) == (4, 14, len(message))
        assert message[24] == 5
        assert message[56:72] + message[76:80] == bytes(name)


def test_a_packet_asks_a_thousand_questions() -> None:
    """Each sets both registers to a name and looks it up in the table."""
    found = openflow.questions(7, NAMES)
    assert len(found) == 3
    message = bytes(found[1])
    assert struct.unpack_from("!BBH", message) == (4, 13, len(message))
    (actions_bytes,) = struct.unpack_from("!H", message, 16)
    actions = message[24 : 24 + actions_bytes]
    asked = []
    while actions:
        kind, length = struct.unpack_from("!HH", actions)
        if kind == 25 and length == 24:
            asked.append(actions[8:24])
        elif kind == 25:
            asked[-1] += actions[8:12]
        else:
            assert actions[12] == 7
        actions = actions[length:]
    assert asked == [bytes(name) for name in NAMES[1000:2000]]


@pytest.mark.parametrize("spread", Spread)
def test_traffic_is_the_same_each_time_and_meets_only_what_is_there(spread: Spread) -> None:
    """Two that are made alike draw alike, and go on to others."""
    one, other = (RuleTraffic(1000, spread) for _ in range(2))
    first = one.draw(5000)
    assert np.array_equal(first, other.draw(5000))
    assert not np.array_equal(first, one.draw(5000))
    assert first.min() >= 0 and first.max() < 1000


def test_zipf_traffic_meets_few_rules_most_of_the_time() -> None:
    """The most frequent of 1000 has 1/7.5 of all, each of the others its share of that."""
    counts = np.sort(np.bincount(RuleTraffic(1000, Spread.ZIPF).draw(100_000)))[::-1]
    assert counts[0] == pytest.approx(100_000 / 7.485, rel=0.05)
    assert counts[9] == pytest.approx(counts[0] / 10, rel=0.15)
    even = np.bincount(RuleTraffic(1000, Spread.EVEN).draw(100_000))
    assert even.max() < 2 * even.mean()


def test_more_names_begin_with_fewer() -> None:
    """So that a larger table holds all that a smaller one does."""
    assert np.array_equal(make_names(10), NAMES[:10])
    assert len({bytes(name) for name in NAMES}) == len(NAMES)
