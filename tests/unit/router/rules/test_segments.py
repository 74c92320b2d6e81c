"""Segments: how entries lie, what they take, and files that are not as they were written."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.errors import SegmentError
from packetcloud.router.rules.crowding import MAX_RULES_PER_KEY_COUNT, crowded
from packetcloud.router.rules.rule import Direction, InstalledRule, Match
from packetcloud.router.rules.segment import TupleTable, load_segment, open_segment
from packetcloud.router.rules.segment_entries import entry_count
from packetcloud.router.rules.segment_hash import HASH_MASK, SHIFT, Field, multipliers
from packetcloud.router.rules.segment_layout import EMPTY, homes_of
from packetcloud.router.rules.segment_writer import merge_segments, write_segment
from packetcloud.router.rules.store import Held
from packetcloud.router.rules.table import Table
from tests.unit.router.rules.table_rules import (
    SECRET,
    A,
    B,
    C,
    ask,
    installed,
    name,
    numbers,
    segment,
    table,
)

HIT_COUNT_BYTES = 8


def exact_rules(count: int) -> list[InstalledRule]:
    return [installed(index, destinations=[name(index)]) for index in range(count)]


@pytest.mark.parametrize("fields", [1, 2, 5])
def test_an_exact_rule_takes_little_memory(tmp_path: Path, fields: int) -> None:
    """64 bytes at the most for a rule with its hit counter, however many fields it names."""
    everything = {"sources": [A], "sids": [A], "payload_types": [0], "ingress": [C]}
    words = dict(list(everything.items())[: fields - 1])
    count = 10_000
    rules = [installed(index, destinations=[name(index)], **words) for index in range(count)]
    loaded = segment(tmp_path, rules)
    assert loaded.array_bytes + HIT_COUNT_BYTES * count <= 64 * count


def longest_search(one: TupleTable) -> int:
    """How many slots behind its home the worst entry stands."""
    slots = one.array()
    (at,) = np.nonzero(slots[:, 0] != EMPTY)
    return int((at - homes_of(slots[at, 0], one.homes)).max())


@pytest.mark.parametrize("kind", ["counted", "random", "alike"])
def test_searches_are_short(tmp_path: Path, kind: str) -> None:
    """Whatever the names are like: no entry stands far from home, and half the slots are free."""
    count = 30_000
    draw = random.Random(7)
    names = {
        "counted": [name(index) for index in range(count)],
        "random": [draw.randbytes(20) for _ in range(count)],
        "alike": [bytes(8) + draw.randbytes(4) + bytes(8) for _ in range(count)],
    }[kind]
    rules = [installed(index, destinations=[one]) for index, one in enumerate(names)]
    (one,) = segment(tmp_path, rules).tuples
    assert longest_search(one) <= 32
    assert len(one.slots) // 2 >= 2 * len(set(names))


def test_names_ground_for_one_secret_crowd_no_other(tmp_path: Path) -> None:
    """Whoever knew the secret could fill one place; for a table of another they are like any."""
    factor = multipliers(SECRET)[Field.DESTINATION]
    ground = []
    candidate = 0
    while len(ground) < 300:
        candidate += 1
        total = int.from_bytes(name(candidate), "little") * factor
        if (total >> SHIFT & HASH_MASK) >> 72 == 0:
            ground.append(name(candidate))
    rules = [installed(index, destinations=[one]) for index, one in enumerate(ground)]
    (known,) = segment(tmp_path, rules).tuples
    (unknown,) = segment(tmp_path, rules, bytes(32)).tuples
    assert longest_search(known) > 250
    assert longest_search(unknown) <= 16


def test_more_policies_than_a_slot_can_name(tmp_path: Path) -> None:
    """Each rule with a priority of its own: the policy is read from a run then."""
    count = 70_000
    rules = (
        installed(index, destinations=[name(index)], priority=index, size_min=index)
        for index in range(count)
    )
    loaded = segment(tmp_path, rules)
    asked = Table(1, [loaded])
    assert loaded.policy_count == count
    for index in (0, 1, 65_534, 65_535, 65_536, count - 1):
        (contest,) = ask(asked, destination=name(index)).contests
        (contender,) = contest.contenders
        assert contender.number == index
        assert (contender.late.size_min if contender.late else 0) == index
    again = tmp_path / "again"
    merge_segments(again, [loaded], {65_536})
    merged = Table(1, [load_segment(again)])
    assert numbers(ask(merged, destination=name(69_999))) == [69_999]
    assert numbers(ask(merged, destination=name(65_536))) == []


def test_entries_are_counted_before_they_are_made() -> None:
    """One, or one for each member of each set of several."""
    assert entry_count(Match()) == 1
    assert entry_count(Match(frozenset([A]), frozenset([B]))) == 1
    assert entry_count(Match(frozenset([A, B]), frozenset([B]))) == 2
    assert entry_count(Match(frozenset([A, B]), frozenset([A, B, C]))) == 5


def test_merging_leaves_out_what_is_withdrawn(tmp_path: Path) -> None:
    """A merged segment takes no more than one written from the rules that are left."""
    first, second = exact_rules(100)[:60], exact_rules(100)[60:]
    merged = tmp_path / "merged"
    merge_segments(merged, [segment(tmp_path, first), segment(tmp_path, second)], range(0, 100, 2))
    left = segment(tmp_path, exact_rules(100)[1::2])
    assert load_segment(merged).array_bytes == left.array_bytes
    everything = tmp_path / "nothing"
    merge_segments(everything, [left], range(100))
    assert load_segment(everything).tuples == []


def test_segments_of_two_secrets_are_not_merged(tmp_path: Path) -> None:
    """Their entries stand under different hashes."""
    with pytest.raises(LocalMisuseError, match="secrets"):
        merge_segments(
            tmp_path / "m", [segment(tmp_path, []), segment(tmp_path, [], bytes(32))], ()
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"destinations": [b"short"]}, "20 bytes"),
        ({"sources": [b""]}, "20 bytes"),
        ({"payload_types": [65_536]}, "65535"),
        ({"priority": 1 << 63}, "64 bits"),
    ],
)
def test_what_no_chunk_can_have_is_not_written(
    tmp_path: Path, words: dict[str, object], message: str
) -> None:
    """A rule that cannot be entered as it stands is an error of the caller, and leaves no file."""
    with pytest.raises(LocalMisuseError, match=message):
        segment(tmp_path, [installed(1, **words)])
    with pytest.raises(LocalMisuseError, match="32 bits"):
        segment(tmp_path, [installed(1 << 32)])
    with pytest.raises(LocalMisuseError, match="32 bytes"):
        segment(tmp_path, [], b"short")
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    """At every length."""
    path = tmp_path / "segment"
    write_segment(path, exact_rules(3), {}, SECRET)
    whole = path.read_bytes()
    needed = len(whole.rstrip(b"\0"))
    for length in range(needed):
        path.write_bytes(whole[:length])
        with pytest.raises(SegmentError, match="damaged"):
            load_segment(path)


def test_a_flipped_bit_is_refused_or_means_nothing(tmp_path: Path) -> None:
    """Each byte in turn: refused, unless it is one of those that fill gaps; never misread."""
    path = tmp_path / "segment"
    rules = [installed(1, destinations=[B], payload_types=[0, 1], ingress=[B, C])]
    write_segment(path, rules, {}, SECRET)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            loaded = load_segment(path)
        except SegmentError:
            refused += 1
        else:
            assert whole[at] == 0
            assert numbers(ask(Table(1, [loaded]))) == [1]
    assert refused > len(whole) / 2


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    """The text says what the file is not."""
    path = tmp_path / "segment"
    write_segment(path, [], {}, SECRET)
    path.write_bytes(b"PCRULES\x02" + path.read_bytes()[8:])
    with pytest.raises(SegmentError, match=r"segment: no table of rules of version 1"):
        load_segment(path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """The old file is whole and nothing lies beside it."""
    path = tmp_path / "segment"
    write_segment(path, [installed(1)], {}, SECRET)
    before = path.read_bytes()
    beside = tmp_path / "segment.new"
    beside.mkdir()
    with pytest.raises(OSError, match=r"segment\.new"):
        write_segment(path, [installed(2)], {}, SECRET)
    assert path.read_bytes() == before


def test_the_memory_of_a_closed_segment_is_given_back(tmp_path: Path) -> None:
    """After the table has been asked too; asking it again is a mistake that is found."""
    asked = table(tmp_path, *exact_rules(100))
    assert numbers(ask(asked, destination=name(7))) == [7]
    asked.segments[0].close()
    with pytest.raises(ValueError, match="released"):
        ask(asked, destination=name(7))


def test_a_segment_is_looked_at_where_it_lies(tmp_path: Path) -> None:
    """Opened instead of loaded it answers the same, and may be crowded; its head is checked."""
    path = tmp_path / "segment"
    write_segment(path, exact_rules(1000), {}, SECRET)
    opened = open_segment(path)
    assert numbers(ask(Table(1, [opened]), destination=name(999))) == [999]
    assert crowded(segment(tmp_path, exact_rules(1000)), [opened]) == {}
    opened.close()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SegmentError, match="damaged"):
        open_segment(path)


def test_a_third_party_has_its_part_of_a_key(tmp_path: Path) -> None:
    """At each part all are taken, one more is not, and the text says whose part it was."""
    words = {"destinations": [B]}
    older = segment(tmp_path, [installed(number, **words) for number in range(600)])
    new = segment(tmp_path, [installed(4000 + number, **words) for number in range(10)])
    for held, problem in (
        (Held(246, 502), None),
        (Held(247, 300), "257 rules of this signer would name the same; allowed: 256"),
        (Held(100, 503), "513 rules of third parties would name the same; allowed: 512"),
    ):
        found = crowded(new, [older], held=lambda numbers, held=held: held)
        assert sorted(found) == ([] if problem is None else list(range(4000, 4010)))
        assert all(text.startswith(str(problem)) for text in found.values())
    many = segment(tmp_path, [installed(number, **words) for number in range(1015)])
    found = crowded(new, [many], held=lambda numbers: Held(0, 0))
    assert all(text.startswith("1025 rules would name the same") for text in found.values())
    assert len(found) == 10


@pytest.mark.parametrize("both", list(Direction))
def test_a_key_takes_so_many_rules_and_no_more(tmp_path: Path, both: Direction) -> None:
    """Rules of a crowded key are named, over all segments, without those withdrawn."""
    words = {"destinations": [B], "direction": both}
    limit = MAX_RULES_PER_KEY_COUNT
    full = segment(tmp_path, [installed(index, size_min=index, **words) for index in range(limit)])
    others = [installed(5000, destinations=[C]), installed(5001, sources=[B])]
    new = segment(tmp_path, [installed(4000, **words), *others])
    assert crowded(full, []) == {}
    assert crowded(segment(tmp_path, others), [full]) == {}
    assert [*crowded(new, [full])] == [4000]
    assert crowded(new, [full], {17}) == {}
    over = segment(tmp_path, [installed(index, **words) for index in range(limit + 1)])
    assert sorted(crowded(over, [])) == list(range(limit + 1))
