"""Payload patterns: what may be installed, what is found, and what stops an expression."""

from __future__ import annotations

import subprocess
import sys

import pytest

from packetcloud.router.errors import PatternError
from packetcloud.router.rules.expression_reader import (
    MAX_EXPRESSION_BYTES,
    MAX_NESTING_COUNT,
    MAX_POSITIONS_COUNT,
    MAX_REPEAT_COUNT,
    parse,
)
from packetcloud.router.rules.patterns import (
    HAS_HYPERSCAN,
    MAX_PATTERNS_COUNT,
    MAX_STARTS_COUNT,
    MAX_WORDLESS_COUNT,
    check_pattern,
    compile_scanner,
    finds,
    load_scanner,
)
from packetcloud.router.rules.rule import MAX_SIZE_BYTES, Pattern
from tests.unit.router.rules.catastrophic import CATASTROPHES

ENGINES = [True, False] if HAS_HYPERSCAN else [False]
"""Whether to use Hyperscan."""
REFUSED = {
    rb"(a)\1": "back references are not in linear time",
    rb"(?P<n>a)(?P=n)": "back references are not in linear time",
    rb"a(?=b)": "looking around is not in linear time",
    rb"a(?!b)": "looking around is not in linear time",
    rb"(?<=a)b": "looking around is not in linear time",
    rb"(?<!a)b": "looking around is not in linear time",
    rb"\bfoo": "\\b and \\B look around",
    rb"(?>a+)b": "atomic groups",
    rb"a++": "possessive repeats",
    rb"(?(1)a|b)": "conditions on groups",
    rb"(?i)a": "`ignore_case`",
    rb"a*": "found in every payload",
    rb"(a|)": "found in every payload",
    rb"^$": "found in every payload",
    rb"(ab": "a ( without its )",
    rb"ab)": "a ) without its (",
    rb"[ab": "a [ without its ]",
    rb"[b-a]": "from one byte to a larger one",
    rb"[\d-z]": "from one byte to a larger one",
    rb"[[:alpha:]]": "write [A-Za-z]",
    rb"[^\x00-\xff]": "no byte is in this set",
    rb"*a": "nothing stands before it",
    rb"{2}": "nothing stands before it",
    rb"a**": "a repeat of a repeat",
    rb"a{2}{3}": "a repeat of a repeat",
    rb"a{2,1}": "fewer times than it must",
    rb"a{,3}": "allowed: {2}, {2,} or {2,4}",
    rb"a^b": "^ may stand only",
    rb"a$b": "$ may stand only",
    rb"(a$)": "$ may not stand in a group",
    rb"\pL": "\\p is not known",
    rb"\Qab": "\\Q is not known",
    rb"\x4": "two hexadecimal digits",
    rb"\012": "bytes in octal",
    b"a\\": "a \\ at the end",
}


@pytest.mark.parametrize("text", REFUSED)
def test_an_expression_is_refused_with_its_reason(text: bytes) -> None:
    """What has no linear time or no one meaning is refused, and the text says why."""
    refusal = check_pattern(Pattern(text, is_regex=True))
    assert refusal is not None
    assert REFUSED[text] in refusal


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (rb"^GET /[a-z]{2,8} HTTP/1\.[01]\r\n", b"GET /index HTTP/1.1\r\n"),
        (rb'{"key": *\d+}', b'say {"key":  12}'),
        (rb"(?P<word>ab)+?c$", b"ababc"),
        (rb"[]a-]x", b"]x"),
        (rb"[^]]x", b"ax"),
        (rb"\AGIF8[79]a|\x89PNG\z", b"...\x89PNG"),
        (rb"a.b", b"a\nb"),
        (b"\xff\\x00", b"\xff\0"),
    ],
)
def test_an_expression_is_found(text: bytes, payload: bytes) -> None:
    """What authors write is understood, and found by both engines."""
    pattern = Pattern(text, is_regex=True)
    assert check_pattern(pattern) is None
    assert finds(pattern, payload)
    for use_hyperscan in ENGINES:
        scanner = compile_scanner([pattern], use_hyperscan=use_hyperscan)
        assert scanner.found(memoryview(payload)) == {0}
        assert scanner.found(memoryview(payload[:-1])) == set()


@pytest.mark.parametrize("use_hyperscan", ENGINES)
def test_a_match_begins_and_ends_in_its_range(use_hyperscan: bool) -> None:
    """A match that begins too early hides none that begins in time, of fixed length or not."""
    patterns = [
        Pattern(b"abc", start=2, end=6),
        Pattern(b"a.*c", is_regex=True, start=2, end=6),
        Pattern(b"a+", is_regex=True, start=2),
    ]
    scanner = compile_scanner(patterns, use_hyperscan=use_hyperscan)
    expected = {
        b"": set(),
        b"abc": set(),
        b"xabc": set(),
        b"xxabc": {0, 1, 2},
        b"xxxabc": {0, 1, 2},
        b"xxxxabc": {2},
        b"abcabc": {0, 1, 2},
        b"axxxxc": set(),
        b"aaa": {2},
    }
    assert {one: scanner.found(memoryview(one)) for one in expected} == expected


def test_a_pattern_that_cannot_lie_in_its_range_is_refused() -> None:
    """A range is refused that is no range, too short, or moves the end that is anchored to."""
    for pattern, words in (
        (Pattern(b"abc", start=1, end=3), "widen the range"),
        (Pattern(b"^a", True, start=1), "allowed with it: start = 0"),
        (Pattern(b"b|a$", True, end=9), "allowed with it: no end"),
        (Pattern(b"a", start=-1), "start = -1; allowed: 0 to"),
        (Pattern(b"a", end=0), "end = 0; allowed: 1 to"),
        (Pattern(b"a", end=MAX_SIZE_BYTES + 1), "allowed: 1 to"),
        (Pattern(b""), "empty"),
    ):
        assert words in (check_pattern(pattern) or "")
        with pytest.raises(PatternError):
            compile_scanner([pattern])
    assert check_pattern(Pattern(b"abc", start=1, end=4)) is None


@pytest.mark.parametrize(
    ("at_cap", "beyond", "words"),
    [
        (b"a" * MAX_EXPRESSION_BYTES, b"a" * (MAX_EXPRESSION_BYTES + 1), "bytes; allowed"),
        (b"a{%d}" % MAX_REPEAT_COUNT, b"a{%d}" % (MAX_REPEAT_COUNT + 1), "repeats"),
        (b"(a{10}){100}", b"(a{10}){101}", "multiplied"),
        (b"([ab]x){8}", b"([ab]x){9}", "104 ns for each byte of payload; allowed: 100"),
        (b"a{1000}b{1000}", b"a{1000}b{1000}c", "written out"),
        (
            b"(" * MAX_NESTING_COUNT + b"a" + b")" * MAX_NESTING_COUNT,
            b"(" * (MAX_NESTING_COUNT + 1) + b"a" + b")" * (MAX_NESTING_COUNT + 1),
            "groups in one another",
        ),
    ],
    ids=["length", "repeats", "nested repeats", "cost", "positions", "groups"],
)
def test_the_size_of_an_expression_is_capped(at_cap: bytes, beyond: bytes, words: str) -> None:
    """At each cap an expression is taken, one more is refused."""
    assert parse(at_cap).positions_count <= MAX_POSITIONS_COUNT
    assert check_pattern(Pattern(at_cap, is_regex=True)) is None
    assert words in (check_pattern(Pattern(beyond, is_regex=True)) or "")


def test_the_number_of_patterns_is_capped() -> None:
    """So many of all rules together, and no more; none is none to scan for."""
    many = [Pattern(b"%08d" % number) for number in range(MAX_PATTERNS_COUNT)]
    scanner = compile_scanner(many, use_hyperscan=False)
    assert scanner.found(memoryview(b"-00000007-")) == {7}
    for wrong in ([*many, Pattern(b"one more")], []):
        with pytest.raises(PatternError, match=f"allowed: 1 to {MAX_PATTERNS_COUNT}"):
            compile_scanner(wrong)


def test_the_number_of_scans_is_capped() -> None:
    """Expressions of no fixed length have so many different starts; those of fixed length more."""
    many = [Pattern(b"a.*b", True, start=start) for start in range(1, MAX_STARTS_COUNT + 1)]
    many += [Pattern(b"ab", start=start) for start in range(20)]
    assert 0 in compile_scanner(many).found(memoryview(b"-ab"))
    with pytest.raises(PatternError, match="different starts"):
        compile_scanner([*many, Pattern(b"a.*b", True, start=99)])


@pytest.mark.parametrize(
    ("text", "word_bytes"),
    [
        (b"abc", 3),
        (b"a.bc", 2),
        (b"a[bB]c", 3),
        (b"a[bc]d", 1),
        (b"(abc|de)+x", 2),
        (b"(ab){2}c", 5),
        (b"a{3,9}b", 4),
        (b"x(ab)?y", 1),
        (b"(ab)*cd", 2),
        (b"abc|d", 1),
        (b"[0-9]{16}", 0),
    ],
)
def test_fixed_bytes_next_to_each_other_are_found(text: bytes, word_bytes: int) -> None:
    """So many stand in every match, side by side; never more than there are."""
    assert parse(text).word_bytes == word_bytes


def test_patterns_without_a_word_are_capped() -> None:
    """So many in all rules, found like the others; one more is refused."""
    letters = range(65, 65 + MAX_WORDLESS_COUNT)
    many = [Pattern(b"[\\x%02x-z]+[0-9]" % letter, True) for letter in letters]
    scanner = compile_scanner([Pattern(b"word"), *many])
    loaded = load_scanner(scanner.to_bytes())
    for one in (scanner, loaded):
        assert one.found(memoryview(b"-z7-")) == set(range(1, MAX_WORDLESS_COUNT + 1))
        assert one.found(memoryview(b"sword")) == {0}
    with pytest.raises(PatternError, match="2 fixed bytes next to each other"):
        compile_scanner([*many, Pattern(b"[0-9]", True)])


def test_catastrophic_expressions_are_refused_or_found_in_linear_time() -> None:
    """Each is refused with a reason, or taken by both engines, which do not go back."""
    refused = {}
    for one in CATASTROPHES:
        refusal = check_pattern(Pattern(one.expression, is_regex=True))
        if refusal is not None:
            refused[one.expression] = refusal
    assert len(CATASTROPHES) == 200
    assert len(refused) == 60
    for text, refusal in refused.items():
        is_looking = rb"\1" in text or b"(?=" in text
        assert ("linear time" in refusal) == is_looking, (text, refusal)


@pytest.mark.parametrize("use_hyperscan", ENGINES)
def test_a_scanner_is_loaded_by_another_process(use_hyperscan: bool) -> None:
    """What was compiled is loaded; what is damaged or of another version is refused."""
    patterns = [Pattern(b"abc"), Pattern(b"x.*y", True, start=3)]
    data = compile_scanner(patterns, use_hyperscan=use_hyperscan).to_bytes()
    assert load_scanner(data).found(memoryview(b"abcxy")) == {0, 1}
    for wrong in (b"", b"\n", data[:-9], data.replace(b"\n", b" "), b"perl\n" + data):
        with pytest.raises(PatternError, match="compile again"):
            load_scanner(wrong)


def test_patterns_are_found_when_the_set_of_re2_has_no_memory_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says then that nothing was found, not even what always is; each is asked for alone."""

    class OutOfMemory:
        def Match(self, payload: memoryview) -> None:
            return None

    patterns = [Pattern(b"abc", start=1), Pattern(b"x.*y", True), Pattern(b"no")]
    scanner = compile_scanner(patterns, use_hyperscan=False)
    assert scanner.found(memoryview(b"xabcy")) == {0, 1}
    monkeypatch.setattr(scanner, "_set", OutOfMemory())
    assert scanner.found(memoryview(b"xabcy")) == {0, 1}
    assert scanner.found(memoryview(b"")) == set()


def test_without_hyperscan_the_same_is_found() -> None:
    """Where it has no wheel RE2 takes its place, and what Hyperscan compiled is refused."""
    program = """
import importlib.util, sys
found_at = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "hyperscan" else found_at(name)
sys.modules["hyperscan"] = None
from packetcloud.router.errors import PatternError
from packetcloud.router.rules.patterns import check_pattern, compile_scanner, load_scanner
from packetcloud.router.rules.rule import Pattern
pattern = Pattern(b"a.*b", True, start=2)
assert check_pattern(pattern) is None
scanner = load_scanner(compile_scanner([pattern]).to_bytes())
print([bool(scanner.found(memoryview(one))) for one in (b"xab", b"xxab")])
try:
    load_scanner(b"hyperscan\\n{}\\n")
except PatternError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "[False, True]",
        "not a scanner of RE2: compiled by b'hyperscan'; compile again",
    ]
