"""The engines find what the plainest search finds, for any patterns and payloads."""

from __future__ import annotations

import re

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from packetcloud.router.rules.patterns import check_pattern, compile_scanner, finds, load_scanner
from packetcloud.router.rules.rule import Pattern
from tests.unit.router.rules.naive import naively_finds
from tests.unit.router.rules.test_patterns import ENGINES

LETTERS = st.sampled_from([b"a", b"b", b"B", b"k", b".", b"[ab]", b"[^a]", b"[^B-b]", b"\\x00"])
SPECIAL = st.sampled_from(
    [b"\\w", b"\\W", b"\\d", b"\\s", b"\\S", b"\\n", b"\\.", b"\xe9", b"\xc9"]
)
BOUNDS = st.sampled_from([b"*", b"+", b"?", b"{2}", b"{1,3}", b"{0,2}", b"{2,}", b"*?", b"{0}"])


def _larger(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(b"".join),
        st.builds(lambda part, bound: b"(?:%b)%b" % (part, bound), inner, BOUNDS),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: b"(%b)" % b"|".join(parts)),
    )


REGEXES = st.builds(
    lambda begin, inner, end: begin + inner + end,
    st.sampled_from([b"", b"", b"", b"^"]),
    st.recursive(st.one_of(LETTERS, SPECIAL), _larger, max_leaves=8),
    st.sampled_from([b"", b"", b"", b"$"]),
)
PAYLOADS = st.one_of(
    st.text(alphabet="abBkK\n \0\xe9\xc9", max_size=24).map(lambda text: text.encode("latin-1")),
    st.binary(max_size=24),
)


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Patterns that may be installed."""
    is_regex = draw(st.booleans())
    word = st.text(alphabet="abBk", min_size=1, max_size=4).map(str.encode)
    start = draw(st.sampled_from([0, 0, 1, 2, 5]))
    end = draw(st.sampled_from([None, None, 3, 6, 12]))
    pattern = Pattern(
        draw(REGEXES if is_regex else word), is_regex, draw(st.booleans()), start, end
    )
    assume(check_pattern(pattern) is None)
    return pattern


@settings(max_examples=400)
@given(st.lists(patterns(), min_size=1, max_size=6), st.lists(PAYLOADS, min_size=1, max_size=6))
@example([Pattern(b"a.*b", True, start=2)], [b"ab", b"abab", b"a.ab", b"xxab"])
@example([Pattern(b"a+", True, start=1, end=2)], [b"aa", b"ab", b"ba"])
def test_engines_find_what_the_plainest_search_finds(
    chosen: list[Pattern], payloads: list[bytes]
) -> None:
    """Hyperscan, RE2 and `finds` agree with sets of places, loaded or compiled."""
    scanners = [compile_scanner(chosen, use_hyperscan=one) for one in ENGINES]
    scanners += [load_scanner(scanner.to_bytes()) for scanner in scanners]
    for payload in payloads:
        there = {n for n, one in enumerate(chosen) if naively_finds(one, payload)}
        for scanner in scanners:
            assert scanner.found(memoryview(payload)) == there
        assert {n for n, one in enumerate(chosen) if finds(one, payload)} == there


@settings(max_examples=400)
@given(REGEXES, st.booleans(), PAYLOADS)
def test_expressions_mean_what_they_mean_elsewhere(
    text: bytes, ignore_case: bool, payload: bytes
) -> None:
    """What is accepted means what Python's `re` means by it, for bytes, `.` every byte."""
    pattern = Pattern(text, True, ignore_case)
    assume(check_pattern(pattern) is None)
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    in_python = re.compile(re.sub(rb"\$\Z", rb"\\Z", text), flags)
    assert naively_finds(pattern, payload) == (in_python.search(payload) is not None)


@settings(max_examples=1000)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.lists(
            st.sampled_from([b"(", b")", b"[", b"]", b"^", b"-", b"{2}", b"*", b"|", b"\\", b"a"])
        ).map(b"".join),
    )
)
def test_any_bytes_are_accepted_or_refused_with_a_text(text: bytes) -> None:
    """Nothing but a text comes out of any bytes, and what is accepted compiles."""
    for is_regex in (False, True):
        pattern = Pattern(text, is_regex)
        refusal = check_pattern(pattern)
        if refusal is None:
            for use_hyperscan in ENGINES:
                compile_scanner([pattern], use_hyperscan=use_hyperscan)
        else:
            assert refusal
