"""What `bench rules` makes of its measurements, and what it measures with."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.router.rules.patterns import check_pattern, compile_scanner
from packetcloud.router.rules.rule import Rule
from packetcloud.router.rules.signed import open_signed
from packetcloud.testbed.bench.rule_install import lag_figures
from packetcloud.testbed.bench.rule_lookups import rate_ratio
from packetcloud.testbed.bench.rules import rules_keys
from packetcloud.testbed.lagged import LagMeter
from packetcloud.testbed.traffic.rule_documents import (
    PATTERNS_PER_RULE,
    header_rules,
    pattern_rules,
    withdrawals,
    write_document,
)
from packetcloud.testbed.traffic.rule_patterns import (
    HURTFUL_BYTES,
    hurtful_expressions,
    make_patterns,
    near_miss_payload,
    random_payload,
    text_payload,
)
from packetcloud.testbed.traffic.rule_traffic import make_names

IDENTITY = Identity.generate()


def _cell(rate: float) -> dict[str, object]:
    return {"even": {"decision_per_s": rate, "table_per_s": 2 * rate}, "zipf": {}}


def test_ratios_are_over_the_fewest_rules() -> None:
    """Whatever the order in which sizes were measured; what was not measured is unknown."""
    lookups = {"sizes": {"1000000": _cell(45.0), "100": _cell(50.0)}}
    assert rate_ratio(lookups, 1_000_000, "decision") == pytest.approx(0.9)
    assert rate_ratio(lookups, 1_000_000, "nftables") is None
    assert rate_ratio(lookups, 10_000_000, "decision") is None


def test_every_figure_at_the_top_is_there() -> None:
    """From a report of all parts; the slower of ordinary payloads and the longer of two stalls."""
    document = {
        "lookups": {"sizes": {"100": _cell(50.0), "1000000": _cell(45.0)}},
        "patterns": {
            "counts": {
                "1000": {
                    "random_gbps": {"median": 30.0},
                    "text_gbps": {"median": 12.0},
                    "near_misses_gbps": {"median": 1.0},
                }
            },
            "hurtful": {"worst_scan_ms": 2.0},
        },
        "install": {
            "rules": 1_000_000,
            "install_s": 15.0,
            "memory": {"router_bytes_per_rule": 40.0, "keeper_bytes_per_rule": 9.0},
            "phases": {
                "busy": {"stall_max_ms": 9.0},
                "install": {"stall_max_ms": 3.0},
                "withdraw": {"stall_max_ms": 4.0},
            },
        },
        "path": {"ratio_with_rules": 0.85},
    }
    found = rules_keys(document)
    assert found["ratio_1m"] == found["table_ratio_1m"] == pytest.approx(0.9)
    assert found["ratio_10m"] is None
    assert found["patterns_1000_gbps"] == 12.0
    assert found["max_stall_ms"] == 4.0
    assert (found["install_1m_s"], found["bytes_per_rule"]) == (15.0, 40.0)
    assert found["keeper_bytes_per_rule"] == 9.0
    assert (found["path_ratio_with_rules"], found["hurtful_worst_ms"]) == (0.85, 2.0)


def test_what_was_not_measured_is_unknown() -> None:
    """No key is missing, and none is made up."""
    assert set(rules_keys({}).values()) == {None}


def _items(file: Path) -> list[object]:
    signed = open_signed(io.BytesIO(file.read_bytes()))
    assert signed.signer == IDENTITY.public_key
    return list(signed.items(check_pattern))


def test_documents_are_taken_as_they_are(tmp_path: Path) -> None:
    """Every rule is one that a router accepts, with the name that it is about."""
    names = make_names(100)
    write_document(tmp_path / "in", IDENTITY, "bench", 1, header_rules(names))
    rules = _items(tmp_path / "in")
    assert [next(iter(one.match.destinations)) for one in rules if isinstance(one, Rule)] == [
        name.tobytes() for name in names
    ]
    write_document(tmp_path / "out", IDENTITY, "bench", 2, withdrawals(100))
    assert [getattr(one, "name", None) for one in _items(tmp_path / "out")] == [
        f"r{number}" for number in range(100)
    ]


def test_patterns_come_through_a_document_unchanged(tmp_path: Path) -> None:
    """Literals, expressions, case and ranges; sixteen to a rule."""
    patterns = make_patterns(100)
    write_document(tmp_path / "in", IDENTITY, "patterns", 1, pattern_rules(patterns))
    rules = [one for one in _items(tmp_path / "in") if isinstance(one, Rule)]
    assert len(rules) == -(-100 // PATTERNS_PER_RULE)
    assert [pattern for rule in rules for pattern in rule.match.patterns] == list(patterns)


def test_patterns_are_different_and_found() -> None:
    """The same each time, and one scan finds those that stand in a payload."""
    patterns = make_patterns(200)
    assert patterns == make_patterns(200) and len(set(patterns)) == 200
    kinds = [one.is_regex for one in patterns]
    assert 40 < sum(kinds) < 80
    planted = [n for n, one in enumerate(patterns) if not one.is_regex and one.end is None][:20]
    payload = b" ".join(patterns[number].expression for number in planted)
    assert set(planted) <= compile_scanner(patterns).found(memoryview(payload))


def test_payloads_have_their_length_and_are_not_the_same() -> None:
    """A near miss is none of the patterns."""
    patterns = make_patterns(50)
    payloads = random_payload(5000), text_payload(5000), near_miss_payload(5000, patterns)
    assert {len(one) for one in payloads} == {5000} and len(set(payloads)) == 3
    literals = [one.expression for one in patterns if not one.is_regex]
    assert any(one[:-1] in payloads[2] for one in literals)
    assert not any(one in payloads[2] for one in literals)


def test_hurtful_payloads_are_long() -> None:
    """As long as is promised, give or take what they repeat."""
    for _, payload in hurtful_expressions():
        assert abs(len(payload) - HURTFUL_BYTES) <= 16


class _Reactor:
    """Calls later, when told."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, object]] = []

    def callLater(self, delay: float, function: object) -> None:
        self.calls.append((delay, function))


def test_only_a_loop_that_is_late_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By how much, and when; the next question follows at once."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    meter, reactor = LagMeter(), _Reactor()
    meter._reactor = reactor
    meter._begin()
    now += 0.0012
    meter._tick()
    assert meter.lags == []
    now += 0.001 + 0.007
    meter._tick()
    ((at_s, late_s, waited_s),) = json.loads(json.dumps(meter.lags))
    assert (at_s, late_s) == (pytest.approx(now), pytest.approx(0.007))
    assert waited_s >= 0.0
    assert len(reactor.calls) == 3


def test_what_the_machine_took_is_no_stall() -> None:
    """Of the lags of a phase; one that began in it counts, whenever it ended."""
    lags = [(1.0, 0.1, 0.0), (5.0, 0.020, 0.018), (6.0, 0.007, 0.001), (10.005, 0.008, 0.0)]
    found = lag_figures(lags, 2.0, 10.0)
    assert found["late_max_ms"] == pytest.approx(20.0)
    assert found["stall_max_ms"] == pytest.approx(8.0)
    assert found["stalls"] == 2
    assert found["stalls_at_s"] == [[4.0, 6.0], [8.005, 8.0]]
    assert lag_figures(lags, 20.0, 30.0)["stall_max_ms"] == 0.0
