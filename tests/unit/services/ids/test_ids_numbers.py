"""Numbers in payloads: `byte_test` and `byte_jump`, what they mean and what is refused."""

from __future__ import annotations

import pytest

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.services.ids.flows import FlowTable
from packetcloud.services.ids.inspection import Inspection
from packetcloud.services.ids.rates import Rates
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.rule import ByteJump, ByteTest, NumberAt, Origin
from packetcloud.services.ids.ruleset import compile_rules

HEAD = "alert chunk any any -> any any"


def judge(options: str) -> Inspection:
    ruleset, refused = compile_rules(read_rules(f"{HEAD} ({options} sid:1;)".encode(), {}))
    assert not refused
    assert len(ruleset.entries) == 1
    return Inspection(ruleset, FlowTable(10, 1 << 20, 64), Rates(10))


def alerts(of: Inspection, payload: bytes, number: int = 1) -> bool:
    header = ChunkHeader(GUID(b"\x01" * 20), GUID(b"\x02" * 20), ChunkId(number), len(payload))
    return bool(of.inspect(header, memoryview(payload), 0.0).alerts)


MEANINGS = [
    # options, payloads that match, payloads that do not
    ("byte_test:1,>,2,0;", [b"\x03"], [b"\x02", b""]),
    ("byte_test:2,=,0x1234,1;", [b"-\x12\x34"], [b"\x12\x34-", b"-\x34\x12", b"-\x12"]),
    ("byte_test:2,=,0x1234,1,little;", [b"-\x34\x12"], [b"-\x12\x34"]),
    ("byte_test:1,!=,2,0;", [b"\x03"], [b"\x02", b""]),
    ("byte_test:1,!&,6,0;", [b"\x09", b"\x00"], [b"\x02", b"\x04", b""]),
    ("byte_test:1,^,6,0;", [b"\x07", b"\x00"], [b"\x06"]),
    ("byte_test:1,<=,2,0,bitmask 0xf0;", [b"\x2f", b"\x0f"], [b"\x30"]),
    ("byte_test:3,>=,100,0,string,dec;", [b"100", b"999 "], [b"099", b"abc", b" 10"]),
    ("byte_test:4,=,255,0,string,hex;", [b"00ff", b"0xFF", b"ff g"], [b"fg00", b"gg  "]),
    ("byte_test:3,=,8,0,string,oct;", [b"010", b"10 "], [b"8  "]),
    ("byte_test:2,>,99,0,string,dec;", [b"-1"], [b"+1", b"99"]),
    ('content:"len"; byte_test:1,>,4,0,relative;', [b"len\x05", b"len\x00 len\x05"], [b"len\x04"]),
    ('content:"len"; byte_test:1,=,5,-4,relative;', [b"\x05len"], [b"len\x05"]),
    ('content:"a"; byte_jump:1,0,relative; content:"b"; distance:0; within:1;', [b"a\x02..b"],
     [b"a\x02.b", b"a\x09..b"]),
    ('byte_jump:1,0,align; content:"b"; distance:0; within:1;', [b"\x03....b"], [b"\x03...b."]),
    ('byte_jump:1,1,from_beginning; content:"b"; distance:0; within:1;', [b".\x03.b"],
     [b".\x02.b"]),
    ('byte_jump:1,0,from_end,post_offset -3; content:"b"; distance:0; within:1;',
     [b"\x01...b."], [b"\x00...b.", b"\x09...b."]),
    ('byte_jump:1,0,multiplier 2; content:"b"; distance:0; within:1;', [b"\x02....b"],
     [b"\x02..b.."]),
    ('byte_jump:1,0; isdataat:2,relative;', [b"\x01.ab"], [b"\x01.a", b"\x05.ab"]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "those", "others"), MEANINGS, ids=[one[0] for one in MEANINGS])
def test_what_numbers_mean(options: str, those: list[bytes], others: list[bytes]) -> None:
    """As Suricata has it; where there is no number nothing holds, negated or not."""
    for payload in those:
        assert alerts(judge(options), payload), payload
    for payload in others:
        assert not alerts(judge(options), payload), payload


def test_a_number_over_a_border_is_found() -> None:
    """In a part of a message that begins in another chunk than its length; and one that counts
    from an end of the payload is about single chunks."""
    relative = judge('content:"len"; byte_test:1,>,4,0,relative;')
    assert [alerts(relative, piece, n) for n, piece in enumerate((b"some len", b"\x05!"))] == [
        False,
        True,
    ]
    jumping = judge('content:"a"; byte_jump:1,0,relative; content:"evil"; distance:0; within:4;')
    pieces = (b"..a\x03..", b".ev", b"il.")
    assert [alerts(jumping, piece, n) for n, piece in enumerate(pieces)] == [False, False, True]
    absolute = judge('content:"len"; byte_test:1,=,0x6c,1;')
    assert [alerts(absolute, piece, n) for n, piece in enumerate((b".le", b"n"))] == [False, False]


def test_values_of_options() -> None:
    """Everything that can be said."""
    (rule,) = read_rules(
        f"{HEAD} (byte_test: 4, !<=, 0xff, -2, relative, little, bitmask 0x0F; "
        "byte_jump: 23, 0, string, oct, multiplier 4, align, from_end, post_offset -8; "
        "sid:1;)".encode(),
        {},
    ).rules
    assert rule.parts == (
        ByteTest(NumberAt(4, -2, True, True, 0, 15), "<=", 255, True),
        ByteJump(NumberAt(23, 0, base=8), 4, True, Origin.END, -8),
    )


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("byte_test:1,>,2", "expected COUNT, [!]OPERATOR (< > = <= >= & ^), VALUE, OFFSET"),
        ("byte_test:1,<>,2,0", "expected COUNT"),
        ("byte_test:1,>,x,0", "value 'x' is no number (variables are not kept)"),
        ("byte_test:len,>,1,0", "number of bytes 'len' is no number"),
        ("byte_test:9,>,1,0", "number of bytes 9; allowed: 1 to 8"),
        ("byte_test:24,>,1,0,string,dec", "number of bytes 24; allowed: 1 to 23"),
        ("byte_test:1,>,-1,0", "value -1; allowed: 0 to 18446744073709551615"),
        ("byte_test:1,>,1,65536", "offset 65536; allowed: -65535 to 65535"),
        ("byte_test:1,>,1,0,string", "string goes with one of hex, dec, oct"),
        ("byte_test:1,>,1,0,dec", "string goes with one of hex, dec, oct"),
        ("byte_test:1,>,1,0,string,hex,dec", "string goes with one of hex, dec, oct"),
        ("byte_test:1,>,1,0,big,little", "big and little do not go together"),
        ("byte_test:1,>,1,0,relative,relative", "relative given twice"),
        ("byte_test:1,>,1,0,dce", "'dce'; allowed: relative, big, little"),
        ("byte_test:1,>,1,0,align", "'align'; allowed: relative, big, little"),
        ("byte_test:1,>,1,0,bitmask", "bitmask '' is no number"),
        ("byte_test:1,>,1,0,bitmask 0", "bitmask 0; allowed: 1 to 4294967295"),
        ("byte_test:1,>,1,0,relative 1", "relative takes no value"),
        ("byte_test", "byte_test: needs a value"),
        ("byte_jump:1", "expected COUNT, OFFSET"),
        ("byte_jump:1,0,multiplier 0", "multiplier 0; allowed: 1 to 65535"),
        ("byte_jump:1,0,post_offset 70000", "post_offset 70000; allowed: -65535 to 65535"),
        ("byte_jump:1,0,from_beginning,from_end", "do not go together"),
        ('pcre:"/a/"; byte_test:1,>,1,0,relative', "relative to a pcre"),
        ('content:"a"; distance:x', "variables are not kept"),
    ],
)
def test_what_is_refused(option: str, reason: str) -> None:
    """In one line that says what is allowed."""
    file = read_rules(f"{HEAD} ({option}; sid:1;)".encode(), {})
    assert file.rules == ()
    (refused,) = file.refusals
    assert reason in refused.reason
