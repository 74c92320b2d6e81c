"""What `bench ids` measures with."""

from __future__ import annotations

from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.rule import Content
from packetcloud.testbed.bench.ids import IdsPlan, bench_ids
from packetcloud.testbed.bench.ids_rules import KINDS, PAYLOAD_BYTES, corpus, payload, site_rules
from packetcloud.testbed.bench.rounds import Timing


def test_made_up_rules_are_taken_whole() -> None:
    """A thousand, the same each time, of the sizes that people write."""
    text = site_rules(1000)
    assert text == site_rules(1000) != site_rules(1000, seed=2)
    file = read_rules(text.encode(), {})
    assert (len(file.rules), file.refusals, file.notes) == (1000, (), ())
    contents = [part for rule in file.rules for part in rule.parts if isinstance(part, Content)]
    assert len({one.pattern for one in contents}) > 1500
    assert {one.is_nocase for one in contents} == {True, False}
    assert {one.is_relative for one in contents} == {True, False}


def test_near_misses_are_no_matches() -> None:
    """Most of a content is there a thousand times, a whole one hardly ever."""
    patterns = [b"needle/in/haystack", b"another|one"]
    data = payload("near_misses", patterns)
    assert len(data) == PAYLOAD_BYTES
    assert sum(data.count(one[:-1]) for one in patterns) > 1000
    assert not any(one in data for one in patterns)


def test_no_chunk_is_asked_twice_in_a_row() -> None:
    """A cache that holds the last one holds nothing of the next; made anew they are the same."""
    contents = [b"needle/in/haystack"]
    for kind in KINDS:
        made = corpus(kind, contents, 3)
        assert len(set(made)) == 3 and made == corpus(kind, contents, 3)
        assert {len(one) for one in made} == {PAYLOAD_BYTES}
        lines = [set(one.split(b" ")[:1000]) for one in made]
        assert len(lines[0] & lines[1]) < 0.9 * len(lines[0])


def test_the_report_has_its_keys() -> None:
    """Figures of each kind, and at the top those of the slowest."""
    document = bench_ids(Timing(1, 0, 1), lambda _: None, IdsPlan(rules=10, chunks=1))
    assert document["failures"] == []
    assert set(document["kinds"]) == set(KINDS)
    for name in ("ids_gbps", "hyperscan_gbps", "re2_gbps", "python_re_gbps"):
        assert document[name] == min(found[name] for found in document["kinds"].values()) > 0
