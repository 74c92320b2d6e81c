"""Laws of the ids service: any text is rules or named refusals; the fast way is the plain one."""

from __future__ import annotations

import itertools
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.streams.wire import Data, Message, MessageKind, encode_message
from packetcloud.services.ids.errors import RuleFileError
from packetcloud.services.ids.flows import FlowTable
from packetcloud.services.ids.inspection import Inspection
from packetcloud.services.ids.matching import Budget, Searched, holds
from packetcloud.services.ids.rates import Rates
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.rule import Content, Rule
from packetcloud.services.ids.ruleset import RuleSet, compile_rules
from tests.unit.services.ids.plain_matcher import plainly_holds

SOURCE, DESTINATION = GUID(b"\xa1" * 20), GUID(b"\xb2" * 20)
PAYLOADS = st.text("abAB", max_size=24).map(str.encode)
CONTENTS = st.text("abB", min_size=1, max_size=4)
FEW = st.integers(0, 9)
PLACES = st.one_of(
    st.just(""),
    st.just("startswith;"),
    st.builds("offset:{};".format, FEW),
    st.builds("depth:{};".format, st.integers(4, 12)),
    st.builds("offset:{}; depth:{};".format, FEW, st.integers(4, 9)),
)
RELATIONS = st.one_of(
    st.builds("distance:{};".format, st.integers(-6, 6)),
    st.builds("within:{};".format, st.integers(4, 9)),
    st.builds("distance:{}; within:{};".format, st.integers(-6, 6), st.integers(4, 9)),
)
ENDINGS = st.sampled_from(["", "", "nocase;", "endswith;", "nocase; endswith;", "fast_pattern;"])
NEGATIONS = st.sampled_from(["", "", "!"])
EXPRESSIONS = st.sampled_from(["ab", "a+b", "^b", "b$", "(a|B)b", "[aA]{3}", "b.a"])
VALUES = st.integers(0x60, 0x64)
WORDS = st.sampled_from(
    ["", ",relative", ",relative,little", ",bitmask 0x3", ",relative,bitmask 6"]
)
NUMBERS = st.one_of(
    st.builds(
        "byte_test:{},{}{},{},{}{};".format,
        st.integers(1, 2),
        NEGATIONS,
        st.sampled_from(["<", ">", "=", "<=", ">=", "&", "^"]),
        VALUES,
        st.integers(-2, 4),
        WORDS,
    ),
    st.builds(
        "byte_jump:1,{}{},post_offset {}{};".format,
        st.integers(-2, 4),
        st.sampled_from(["", ",relative", ",relative,bitmask 3", ",bitmask 3,align"]),
        st.integers(-99, -90),
        st.sampled_from(["", ",from_beginning", ",from_end", ",multiplier 2"]),
    ),
)
PARTS = st.one_of(
    st.builds('content:{}"{}"; {} {}'.format, NEGATIONS, CONTENTS, PLACES, ENDINGS),
    st.builds('content:{}"{}"; {} {}'.format, NEGATIONS, CONTENTS, RELATIONS, ENDINGS),
    st.builds('content:{}"{}"; {} {}'.format, NEGATIONS, CONTENTS, RELATIONS, ENDINGS),
    st.builds('pcre:{}"/{}/s{}";'.format, NEGATIONS, EXPRESSIONS, st.sampled_from(["", "i", "R"])),
    st.builds("isdataat:{}{}{};".format, NEGATIONS, FEW, st.sampled_from(["", ",relative"])),
    NUMBERS,
)
RULES = st.lists(PARTS, min_size=1, max_size=4).map(" ".join)


def read(texts: list[str]) -> RuleSet:
    """Compile those of the rules that are taken."""
    lines = (
        f"alert chunk any any -> any any ({text} sid:{sid};)" for sid, text in enumerate(texts, 1)
    )
    ruleset, refused = compile_rules(read_rules("\n".join(lines).encode(), {}))
    assert refused == ()
    return ruleset


def told(
    inspection: Inspection, number: int, payload: bytes, kind: int = PayloadType.DATA
) -> set[Rule]:
    """Inspect one chunk of the flow and return the rules that alert."""
    header = ChunkHeader(SOURCE, DESTINATION, ChunkId(number), len(payload), payload_type=kind)
    decision = inspection.inspect(header, memoryview(payload), 0.0)
    assert decision.doubt is None
    return {alert.rule for alert in decision.alerts}


@settings(max_examples=250)
@given(st.lists(RULES, min_size=1, max_size=8), st.lists(PAYLOADS, min_size=1, max_size=4))
def test_the_fast_way_is_the_plain_one(texts: list[str], payloads: list[bytes]) -> None:
    """Of one chunk exactly those rules alert that hold when every way of placing is tried."""
    ruleset = read(texts)
    inspection = Inspection(ruleset, FlowTable(10, 1 << 20, 0), Rates(10))
    for number, payload in enumerate(payloads):
        expected = {
            entry.rule for entry in ruleset.entries if plainly_holds(entry.rule.parts, payload)
        }
        assert told(inspection, 2 * number, payload) == expected


LONG = st.text("abB", min_size=6, max_size=14)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(LONG, PLACES.filter(lambda text: "depth" not in text), ENDINGS), max_size=6),
    LONG,
    LONG,
)
def test_rare_bytes_of_contents_lead_to_whole_ones(
    contents: list[tuple[str, str, str]], head: str, tail: str
) -> None:
    """Contents longer than what the scan looks for are found exactly where they are, and where
    most of them is."""
    ruleset = read([f'content:"{text}"; {place} {ending}' for text, place, ending in contents])
    inspection = Inspection(ruleset, FlowTable(10, 1 << 20, 0), Rates(10))
    pieces = [text[cut:] + tail for text, _, _ in contents for cut in (0, 1)]
    payload = (head + "".join(pieces)).encode()
    expected = {entry.rule for entry in ruleset.entries if plainly_holds(entry.rule.parts, payload)}
    assert told(inspection, 1, payload) == expected


CHAINS = st.lists(
    st.builds(
        'content:"{}"; {}'.format,
        CONTENTS,
        st.one_of(st.just(""), RELATIONS),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=250)
@given(CHAINS, PAYLOADS, st.lists(st.integers(0, 24), max_size=6), st.randoms())
def test_what_lies_over_borders_is_found_in_any_order(
    contents: list[str], message: bytes, cuts: list[int], order: Random
) -> None:
    """A message in pieces, shuffled, alerts exactly where the whole message would.

    Where no content counts from an end of the payload, and no end of a chunk is forgotten.
    """
    first = contents[0].split(";")[0] + ";"
    ruleset = read([" ".join([first, *contents[1:]])])
    inspection = Inspection(ruleset, FlowTable(10, 1 << 20, 64), Rates(10))
    places = sorted({0, len(message), *(cut for cut in cuts if cut < len(message))})
    pieces = [
        (number, message[start:end])
        for number, (start, end) in enumerate(itertools.pairwise(places), 100)
    ]
    order.shuffle(pieces)
    found = [told(inspection, number, piece) for number, piece in pieces]
    # What came last before a chunk is searched with it, too: these are the orders that count.
    is_in_order = pieces == sorted(pieces)
    for entry in ruleset.entries:
        is_told = any(entry.rule in one for one in found)
        is_expected = plainly_holds(entry.rule.parts, message)
        assert is_told >= is_expected
        if is_in_order:
            assert is_told == is_expected


@settings(max_examples=80)
@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=3).map(sorted),
    st.lists(st.sampled_from([PayloadType.DATA, PayloadType.FILE, 99]), min_size=4, max_size=4),
    st.permutations(range(4)),
)
def test_what_lies_in_chunks_of_any_type_is_found_in_any_order(
    cuts: list[int], kinds: list[int], order: list[int]
) -> None:
    """A content in four pieces under successive numbers, of whatever types, some of them empty."""
    inspection = Inspection(read(['content:"abcdef";']), FlowTable(10, 1 << 20, 64), Rates(10))
    pieces = [b"abcdef"[start:end] for start, end in itertools.pairwise([0, *cuts, 6])]
    assert any(told(inspection, 100 + one, pieces[one], kinds[one]) for one in order)


@settings(max_examples=120)
@given(
    CHAINS,
    PAYLOADS.filter(bool),
    st.lists(st.tuples(st.integers(0, 24), st.integers(1, 12)), max_size=8),
    st.integers(1, 3),
    st.randoms(),
)
def test_parts_that_overlap_hide_nothing_in_any_order(
    contents: list[str],
    message: bytes,
    more: list[tuple[int, int]],
    together: int,
    order: Random,
) -> None:
    """A stream in parts that overlap each other, shuffled, several in a chunk, alerts where the
    whole would; and what says the same everywhere is never in doubt."""
    first = contents[0].split(";")[0] + ";"
    ruleset = read([" ".join([first, *contents[1:]])])
    inspection = Inspection(ruleset, FlowTable(10, 1 << 20, 64), Rates(10))
    cuts = sorted({0, len(message), *(start for start, _ in more if start < len(message))})
    spans = [*itertools.pairwise(cuts), *((start, start + size) for start, size in more)]
    parts = [Data(1, start, (message[start:end],)) for start, end in spans if start < len(message)]
    order.shuffle(parts)
    found: set[Rule] = set()
    for number in range(0, len(parts), together):
        frames = tuple(parts[number : number + together])
        payload = encode_message(Message(MessageKind.REQUEST, 1, number, frames))
        found |= told(inspection, number, payload, PayloadType.STREAM)
    for entry in ruleset.entries:
        assert (entry.rule in found) >= plainly_holds(entry.rule.parts, message)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_rules_or_refusals(data: bytes) -> None:
    """A line that is nothing at all is refused with a place within it."""
    try:
        file = read_rules(data, {})
    except RuleFileError as error:
        assert data[:2] == b"\x1f\x8b", error
        return
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    for refusal in file.refusals:
        assert 1 <= refusal.line <= len(lines)
        assert 1 <= refusal.column <= len(lines[refusal.line - 1]) + 2
        assert refusal.reason


@settings(max_examples=300)
@given(RULES, st.integers(0, 300), st.text(max_size=3))
def test_a_damaged_rule_is_a_rule_or_a_refusal(text: str, at: int, dirt: str) -> None:
    """Whatever stands in the middle of a rule, the engine takes what the reader takes."""
    line = f"alert chunk any any -> any any ({text} sid:1;)"
    at %= len(line)
    file = read_rules((line[:at] + dirt + line[at + 1 :]).encode("utf-8", "replace"), {})
    ruleset, refused = compile_rules(file)
    assert len(ruleset.entries) + len(refused) == len(file.rules)
    for entry in ruleset.entries:
        holds(entry.plan, Searched(memoryview(b"abab")), Budget(1 << 20))
        assert all(part.pattern for part in entry.rule.parts if isinstance(part, Content))
