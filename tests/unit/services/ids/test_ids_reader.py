"""Rule files: every option, every refusal with its line and column."""

from __future__ import annotations

import gzip

import pytest

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.ids import reader
from packetcloud.services.ids.errors import RuleFileError
from packetcloud.services.ids.guid_sets import EVERYBODY, GuidSet, parse_lists
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.rule import (
    Action,
    BitOperation,
    Content,
    DataAt,
    FlowBits,
    Pcre,
    Rate,
    Rule,
    Side,
    SizeRange,
    Threshold,
    ThresholdKind,
    Track,
)

A, B, C = (digit * 40 for digit in "abc")
SET_A, SET_B = (GuidSet(frozenset({bytes.fromhex(name)})) for name in (A, B))
LISTS = parse_lists(f"HOME_NET=[{A},{B}];EXTERNAL_NET=!$HOME_NET")


def one(text: str, **options: bool) -> Rule:
    """Return the rule that this text is."""
    file = read_rules(text.encode(), LISTS, **options)
    assert file.refusals == ()
    (rule,) = file.rules
    return rule


def options(text: str) -> Rule:
    return one(f"alert chunk any any -> any any ({text} sid:1;)")


def parts(text: str) -> tuple[object, ...]:
    return options(text).parts


def refusal(text: str, **widens: bool) -> tuple[int, int, str]:
    """Return line, column and reason of the one refusal of a file without any rule."""
    file = read_rules(text.encode("utf-8", "surrogateescape"), LISTS, **widens)
    assert file.rules == ()
    (refused,) = file.refusals
    return refused.line, refused.column, refused.reason


def test_a_whole_rule() -> None:
    """Everything that a rule can say is in the value."""
    rule = one(
        "# a comment\n"
        "\n"
        f"drop chunk {A} any -> [{B},!{C}] any \\\n"
        '  (msg:"A \\"quoted\\" one\\; really"; content:"abc"; gid:3; sid:77; rev:2; \\\n'
        "   classtype:trojan-activity; reference:url,example.org/a; \\\n"
        "   metadata:created_at 2026_01_01, tag x; \\\n"
        "   flow:established,to_server; flowbits:isset,a|b; flowbits:set,c; noalert; \\\n"
        "   threshold:type limit, track by_src, count 2, seconds 60;)\n"
    )
    assert rule == Rule(
        line=3,
        action=Action.DROP,
        source=SET_A,
        destination=SET_B,
        sid=77,
        gid=3,
        rev=2,
        msg='A "quoted" one; really',
        category="Trojan activity",
        priority=1,
        metadata=(("created_at", "2026_01_01"), ("tag", "x")),
        parts=(Content(b"abc"),),
        side=Side.TO_SERVER,
        is_established=True,
        bits=(FlowBits(BitOperation.IS_SET, ("a", "b")), FlowBits(BitOperation.SET, ("c",))),
        threshold=Threshold(ThresholdKind.LIMIT, Track.SOURCE, 2, 60),
        is_silent=True,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('content:"abc";', Content(b"abc")),
        ('content: "abc" ;', Content(b"abc")),
        ('content:!"abc";', Content(b"abc", is_negated=True)),
        ('content:"a|0D 0a|b|63|";', Content(b"a\r\nbc")),
        (r'content:"\"\;\:\\";', Content(b'";:\\')),
        ('content:"ABC"; nocase;', Content(b"abc", is_nocase=True)),
        ('content:"é";', Content("é".encode())),
        ('content:"abc"; offset:3; depth:5;', Content(b"abc", start=3, end=8)),
        ('content:"abc"; depth:5;', Content(b"abc", end=5)),
        ('content:"abc"; startswith;', Content(b"abc", end=3)),
        ('content:"abc"; endswith;', Content(b"abc", is_at_end=True)),
        ('content:"abc"; fast_pattern;', Content(b"abc", is_fast=True)),
        ('content:"abc"; fast_pattern:only;', Content(b"abc", is_fast=True)),
        ('content:"abc"; rawbytes;', Content(b"abc")),
        ("isdataat:10;", DataAt(10)),
        ("isdataat:!1,relative;", DataAt(1, is_negated=True, is_relative=True)),
        ("isdataat: ! 1 , relative , rawbytes;", DataAt(1, is_negated=True, is_relative=True)),
        ('pcre:"/a+b/";', Pcre(b"a+b")),
        ('pcre:!"/a\\/b/Ri";', Pcre(b"(?i)a\\/b", is_negated=True, is_relative=True)),
        ('pcre:"/a b # c/xsm";', Pcre(b"(?msx)a b # c")),
        ('pcre:"/a|b/A";', Pcre(b"\\A(?:a|b)")),
        ('pcre:"/a/AxG";', Pcre(b"(?x)\\A(?:a\n)")),
        ('pcre:"/a/E";', Pcre(b"a")),
    ],
)
def test_parts(text: str, expected: object) -> None:
    """Each option about the payload, as it is meant."""
    (part,) = parts(text)
    assert part == expected


def test_modifiers_belong_to_the_content_before() -> None:
    """Relative ones, too; a pcre in between does not take them."""
    assert parts(
        'content:"a"; content:"b"; distance:-2; within:9; content:"c"; pcre:"/x/"; nocase;'
    ) == (
        Content(b"a"),
        Content(b"b", distance=-2, within=9),
        Content(b"c", is_nocase=True),
        Pcre(b"x"),
    )


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10", {10}, {9, 11}),
        ("=10", {10}, {9, 11}),
        ("!10", {9, 11}, {10}),
        ("<10", {0, 9}, {10}),
        ("<=10", {10}, {11}),
        (">10", {11, 1 << 20}, {10}),
        (">=10", {10}, {9}),
        ("10<>13", {11, 12}, {10, 13}),
    ],
)
def test_sizes(text: str, inside: set[int], outside: set[int]) -> None:
    """Ranges leave out their ends, as in Suricata."""
    size = options(f"dsize:{text};").size
    assert isinstance(size, SizeRange)
    assert all(one in size for one in inside)
    assert not any(one in size for one in outside)


def test_flow_and_rates() -> None:
    """Directions have two names each; words that are true of every chunk are noted."""
    assert options("flow:from_client;").side is Side.TO_SERVER
    assert options("flow:from_server,not_established;").is_established is False
    assert options("flow:to_client,no_stream;").is_of_one_chunk
    assert options("flowbits:noalert;").is_silent
    rule = options("detection_filter:track by_both, count 3, seconds 5;")
    assert rule.threshold == Threshold(ThresholdKind.FILTER, Track.BOTH, 3, 5)
    text = (
        "rate-limit chunk any any -> any any (rate: track by_flow, bytes 1000, seconds 2; sid:1;)"
    )
    assert one(text).rate == Rate(Track.FLOW, 1000, 2, True)
    text = "rate-limit chunk any any <> any any (rate: track by_src, chunks 10, seconds 1; sid:1;)"
    assert one(text).rate == Rate(Track.SOURCE, 10, 1, False)
    assert one(text).is_two_way
    file = read_rules(b"alert ip any any -> any any (flow:stateless; sid:1;)", {})
    assert [note.text for note in file.notes] == [
        "without a content: asked of every chunk",
        "flow:stateless: true of every chunk",
    ]


def test_addresses() -> None:
    """Lists, negations and lists in lists are sets; `any` is everybody."""

    def source(text: str) -> GuidSet:
        return one(f"alert chunk {text} any -> any any (sid:1;)").source

    a, b, c = (bytes.fromhex(name) for name in (A, B, C))
    assert source("any") == EVERYBODY
    assert source(f"[{A}, {B}]") == GuidSet(frozenset({a, b}))
    assert source(f"!{A}") == GuidSet(frozenset({a}), True)
    assert source(f"[!{A},!{B}]") == source(f"![{A},{B}]") == source("!$HOME_NET")
    assert source("$EXTERNAL_NET") == source("!$HOME_NET")
    assert source(f"[$HOME_NET,{C},!{A}]") == GuidSet(frozenset({b, c}))
    assert source(f"[$EXTERNAL_NET,{A}]") == GuidSet(frozenset({b}), True)
    assert c in source("$EXTERNAL_NET")
    assert a not in source("$EXTERNAL_NET")


def test_a_file_defines_lists_and_classes() -> None:
    """As Snort's files do; a definition holds from its line on."""
    file = read_rules(
        f"ipvar SERVERS [{A},{B}]\n"
        "var OTHERS !$SERVERS\n"
        "config classification: our-own,Our own kind,2\n"
        "alert chunk $SERVERS any -> $OTHERS any (classtype:our-own; sid:1;)\n".encode(),
        {},
    )
    (rule,) = file.rules
    assert (rule.category, rule.priority) == ("Our own kind", 2)
    assert rule.destination == rule.source.complement()


HEAD = "alert chunk any any -> any any "


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("alert", 1, 6, "expected protocol"),
        ("allow chunk any any -> any any (sid:1;)", 1, 1, "unknown action 'allow'"),
        ("rejectboth chunk any any -> any any (sid:1;)", 1, 1, "who receives a chunk"),
        ("alert quux any any -> any any (sid:1;)", 1, 7, "unknown protocol 'quux'"),
        ("alert tcp any any -> any any (sid:1;)", 1, 7, "protocol tcp: is one of the IP world"),
        ("alert ip 10.0.0.0/8 any -> any any (sid:1;)", 1, 10, "is an address of the IP world"),
        ("alert ip [any,10.0.0.1] any -> any any (sid:1;)", 1, 15, "address of the IP world"),
        ("alert ip $DNS any -> any any (sid:1;)", 1, 10, "no list $DNS; lists: $HOME_NET"),
        ("alert ip any 80 -> any any (sid:1;)", 1, 14, "port 80: chunks have no ports"),
        ("alert ip any any => any any (sid:1;)", 1, 18, "direction '=>'"),
        ("alert ip any any -> any any sid:1;", 1, 29, "expected ("),
        ("alert ip any any -> any any (sid:1;", 1, 36, "a rule ends with )"),
        (f"alert ip [{A} any -> any any (sid:1;)", 1, 10, "without its ]"),
        (f"alert ip {A}0 any -> any any (sid:1;)", 1, 10, "is no GUID of 40"),
        ("alert ip !any any -> any any (sid:1;)", 1, 11, "!any is nobody"),
        (f"alert ip [{A},!{A}] any -> any any (sid:1;)", 1, 10, "is nobody"),
        (HEAD + '(content:"a";)', 1, 1, "no sid"),
        (HEAD + '(content:"a"; http_uri; sid:1;)', 1, 46, "http_uri: there is no such buffer"),
        (HEAD + '(http.uri; content:"a"; sid:1;)', 1, 33, "http.uri: there is no such buffer"),
        (HEAD + "(flags:S; sid:1;)", 1, 33, "flags: chunks have no headers of IP"),
        (
            HEAD + "(byte_extract:1,2,x; sid:1;)",
            1,
            33,
            "byte_extract: what is read",
        ),
        (HEAD + "(quux:1; sid:1;)", 1, 33, "quux: unknown"),
        (HEAD + '(content:"a;b"; sid:1;)', 1, 43, r"a ; in quotes is written \; or |3B|"),
        (HEAD + '(content:"a; sid:1;)', 1, 43, "a ; in quotes"),
        (HEAD + "(sid:1)", 1, 33, "sid: the option does not end with ;"),
        (HEAD + "(;sid:1;)", 1, 33, "expected an option, found ';'"),
        (HEAD + "(content:abc; sid:1;)", 1, 33, "content: expected a text in quotes"),
        (HEAD + '(content:""; sid:1;)', 1, 42, "content: 0 bytes; allowed: 1 to 255"),
        (HEAD + '(content:"a|0|"; sid:1;)', 1, 43, "content: |0| are no hexadecimal bytes"),
        (HEAD + '(content:"ab|00"; sid:1;)', 1, 44, "without the second |"),
        (HEAD + r'(content:"a\n"; sid:1;)', 1, 43, r"content: \n; allowed"),
        (HEAD + "(nocase; sid:1;)", 1, 33, "nocase: no content before it"),
        (HEAD + '(content:"abc"; depth:2; sid:1;)', 1, 33, "3 bytes are never found in depth:2"),
        (HEAD + '(content:"a"; content:"abc"; within:2; sid:1;)', 1, 46, "never found in within:2"),
        (HEAD + '(content:"a"; depth:x; sid:1;)', 1, 46, "depth: 'x' is no number"),
        (HEAD + '(content:"a"; offset:-1; sid:1;)', 1, 46, "offset: -1; allowed: 0 to"),
        (HEAD + '(content:"a"; offset:1; offset:2; sid:1;)', 1, 56, "offset: given twice"),
        (HEAD + '(content:"a"; offset:1; distance:2; sid:1;)', 1, 33, "do not go with offset"),
        (HEAD + '(content:"a"; startswith; depth:2; sid:1;)', 1, 33, "startswith does not go"),
        (HEAD + '(pcre:"/a/"; content:"b"; distance:1; sid:1;)', 1, 45, "relative to a pcre"),
        (HEAD + '(pcre:"a"; sid:1;)', 1, 38, 'pcre: expected "/EXPRESSION/FLAGS"'),
        (HEAD + '(pcre:"/a/U"; sid:1;)', 1, 42, "flag U is about http.uri"),
        (HEAD + '(pcre:"/a/q"; sid:1;)', 1, 42, "pcre: unknown flag q"),
        (HEAD + '(pcre:"/a$/E"; sid:1;)', 1, 43, "pcre: flag E"),
        (HEAD + '(pcre:"/(a{100}){100}/"; sid:1;)', 1, 40, "over 2000 bytes and sets"),
        (HEAD + '(pcre:"/(?P<flow_x>a)/"; sid:1;)', 1, 38, "captured variables"),
        (HEAD + "(isdataat:x; sid:1;)", 1, 33, "isdataat:x; expected"),
        (HEAD + "(dsize:9<>10; sid:1;)", 1, 33, "no size lies between 9 and 10"),
        (HEAD + "(dsize; sid:1;)", 1, 33, "dsize: needs a value"),
        (HEAD + "(sid:0;)", 1, 33, "sid: '0'; allowed: 1 to"),
        (HEAD + "(sid:1; sid:2;)", 1, 40, "sid: given twice"),
        (HEAD + "(sid:1; flow:up;)", 1, 40, "flow: unknown word 'up'"),
        (HEAD + "(sid:1; flow:to_server,to_client;)", 1, 40, "both directions"),
        (HEAD + "(sid:1; flow:only_frag;)", 1, 40, "chunks are never fragments"),
        (HEAD + "(sid:1; flowbits:set,a|b;)", 1, 40, "flowbits: set takes one name"),
        (HEAD + "(sid:1; flowbits:raise,a;)", 1, 40, "flowbits: 'raise'; allowed"),
        (
            HEAD + "(sid:1; threshold:type limit, track by_src, count 1;)",
            1,
            40,
            "seconds is missing",
        ),
        (HEAD + "(sid:1; threshold:type backoff, track by_flow;)", 1, 40, "type 'backoff'"),
        (HEAD + "(sid:1; rate:track by_src, chunks 1, seconds 1;)", 1, 1, "go together"),
        ("rate-limit ip any any -> any any (sid:1;)", 1, 1, "go together"),
        (HEAD + "(sid:1; priority:256;)", 1, 40, "priority: 256; allowed: 1 to 255"),
        ("portvar HTTP 80", 1, 1, "portvar: chunks have no ports"),
        ("ipvar HOME_NET any", 1, 1, "there is a list HOME_NET already"),
        (f"# x\n\nalert ip {A} any \\\n  -> any any \\\n (sid:1; quux;)", 5, 10, "quux: unknown"),
    ],
)
def test_refusals_name_line_and_column(text: str, line: int, column: int, reason: str) -> None:
    """Whatever is not taken is refused where it stands, in words that say why."""
    found = refusal(text)
    assert found[:2] == (line, column)
    assert reason in found[2]


def test_what_is_of_the_ip_world_can_be_read_as_any() -> None:
    """Only if it is wanted, and every such reading is noted."""
    text = b'alert tcp $DNS any -> [10.0.0.1,10.0.0.2] [80,443] (content:"a"; sid:1;)'
    file = read_rules(text, {}, widens=True)
    (rule,) = file.rules
    assert (rule.source, rule.destination) == (EVERYBODY, EVERYBODY)
    assert [note.text for note in file.notes] == [
        "protocol tcp read as any",
        "address $DNS read as any",
        "address [10.0.0.1,10.0.0.2] read as any",
        "port [80,443] read as any",
    ]
    assert read_rules(b"alert quux any any -> any any (sid:1;)", {}, widens=True).refusals


def test_a_later_revision_takes_the_place_of_an_earlier_one() -> None:
    """The same number again is refused unless its revision is higher."""
    rule = HEAD + '(content:"%s"; sid:5; rev:%d;)\n'
    file = read_rules((rule % ("a", 1) + rule % ("b", 2) + rule % ("c", 2)).encode(), {})
    assert [one.parts for one in file.rules] == [(Content(b"b"),)]
    assert [(one.line, one.reason) for one in file.refusals] == [
        (3, "sid 5: line 2 has it, with rev 2, not less")
    ]
    assert file.notes[0].text == "sid 5: line 2 takes its place"


def test_caps_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules, bytes of a rule and of a file, and rules that every chunk pays for."""
    monkeypatch.setattr(reader, "MAX_RULES_COUNT", 3)
    monkeypatch.setattr(reader, "MAX_UNSEEN_COUNT", 2)
    lines = [HEAD + f'(content:"a"; sid:{sid};)' for sid in range(1, 5)]
    file = read_rules("\n".join(lines).encode(), {})
    assert len(file.rules) == 3
    assert [(one.line, one.reason) for one in file.refusals] == [(4, "over 3 rules")]
    lines = [HEAD + f"(dsize:>{sid}; sid:{sid};)" for sid in range(1, 4)]
    file = read_rules("\n".join(lines).encode(), {})
    assert [one.line for one in file.refusals] == [3]
    long = HEAD + f'(msg:"{"x" * 8192}"; sid:1;)'
    assert "allowed: 8192" in refusal(long)[2]
    monkeypatch.setattr(reader, "MAX_FILE_BYTES", 1000)
    read_rules(b"#" * 1000, {})
    for data in (b"#" * 1001, gzip.compress(b"#" * 1001)):
        with pytest.raises(RuleFileError, match="over 0 MiB"):
            read_rules(data, {})


def test_packed_files() -> None:
    """gzip is unpacked; a damaged or cut one is refused."""
    text = (HEAD + "(sid:1;)").encode()
    packed = gzip.compress(text)
    assert read_rules(packed, {}).rules == read_rules(text, {}).rules
    for damaged in (packed[:-9], b"\x1f\x8bgarbage"):
        with pytest.raises(RuleFileError, match="damaged gzip file"):
            read_rules(damaged, {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("HOME_NET", "expected NAME="),
        (f"A={A};A={B}", "A: given twice"),
        ("A=10.0.0.1", "A: 10.0.0.1 is an address of the IP world"),
        ("A=[a", "A: 'a' is no GUID"),
    ],
)
def test_wrong_lists(text: str, reason: str) -> None:
    """The parameter's mistakes are named, too."""
    with pytest.raises(ServiceConfigError, match="lists: ") as caught:
        parse_lists(text)
    assert reason in str(caught.value)
