"""Thresholds and rates: which matches have effect, by Suricata's counting."""

from __future__ import annotations

import pytest

from packetcloud.services.ids.rates import Effect, Rates
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.rule import Rule

A, B, C = (bytes([number]) * 20 for number in (1, 2, 3))
WORDS = {Effect.NONE: ".", Effect.FULL: "F", Effect.ACTION_ONLY: "a"}


def rule(option: str, action: str = "alert", sid: int = 1) -> Rule:
    text = f"{action} chunk any any -> any any ({option}; sid:{sid};)"
    (found,) = read_rules(text.encode(), {}).rules
    return found


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("threshold:type limit, track by_src, count 2, seconds 10", "FFaaaaaaaaaFFaa"),
        ("threshold:type threshold, track by_src, count 3, seconds 10", "..F..F..F....F."),
        ("threshold:type both, track by_src, count 3, seconds 10", "..Faaaaaaaa..Fa"),
        ("detection_filter:track by_src, count 3, seconds 10", "...FFFFFFFF...F"),
        ("threshold:type threshold, track by_src, count 1, seconds 10", "FFFFFFFFFFFFFFF"),
    ],
)
def test_a_match_each_second(option: str, expected: str) -> None:
    """F: told and acted on, a: acted on only, a dot: nothing. A window has its ten seconds, ends
    included, and the next one begins with the match after them."""
    rates, one = Rates(10), rule(option)
    found = [WORDS[rates.count(one, A, B, float(second))] for second in range(15)]
    assert "".join(found) == expected


@pytest.mark.parametrize(
    ("track", "pairs"),
    [
        ("by_src", {(A, B), (A, C)}),
        ("by_dst", {(A, B), (C, B)}),
        ("by_both", {(A, B)}),
        ("by_flow", {(A, B), (B, A)}),
        ("by_rule", {(A, B), (B, A), (A, C), (C, B)}),
    ],
)
def test_what_is_counted_together(track: str, pairs: set[tuple[bytes, bytes]]) -> None:
    """By source, destination, both, flow or all together; another rule counts for itself."""
    for pair in [(A, B), (B, A), (A, C), (C, B)]:
        rates = Rates(10)
        option = f"threshold:type limit, track {track}, count 1, seconds 60"
        assert rates.count(rule(option), A, B, 0.0) is Effect.FULL
        is_same = rates.count(rule(option), *pair, 1.0) is Effect.ACTION_ONLY
        assert is_same == (pair in pairs)
        assert rates.count(rule(option, sid=2), *pair, 1.0) is Effect.FULL


def test_a_bucket_fills_again() -> None:
    """So many in so many seconds, at once or one by one; a clock that stands still gives none."""
    rates = Rates(10)
    one = rule("rate:track by_src, chunks 4, seconds 8", "rate-limit")
    assert one.rate is not None

    def take(now: float) -> bool:
        assert one.rate is not None
        return rates.take(one, one.rate, A, B, 1000, now)

    assert [take(0.0) for _ in range(5)] == [True] * 4 + [False]
    assert [take(1.0), take(2.0), take(2.0), take(1.0)] == [False, True, False, False]
    assert [take(100.0) for _ in range(5)] == [True] * 4 + [False]


def test_bytes_are_counted_whole() -> None:
    """A chunk larger than the bucket passes a full one and empties it."""
    rates = Rates(10)
    one = rule("rate:track by_src, bytes 1000, seconds 10", "rate-limit")
    assert one.rate is not None
    sizes = [(0.0, 5000), (0.0, 1), (5.0, 400), (5.0, 101), (5.0, 100)]
    found = [rates.take(one, one.rate, A, B, size, now) for now, size in sizes]
    assert found == [True, False, True, False, True]
