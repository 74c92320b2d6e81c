"""What `packetcloud bench rules` prints of a report."""

from __future__ import annotations

from typing import Any

from packetcloud.cli.bench_rules import rules_tables

_RATES = {"table_per_s": 4.0, "decision_per_s": 3.0, "cached_per_s": 2.0, "nftables_per_s": 1.0}
_PHASE = {
    "seconds": 20.0,
    "stall_max_ms": 1.5,
    "stalls": 0,
    "late_max_ms": 2.5,
    "delay_p50_ms": 0.5,
    "delay_max_ms": 3.5,
}
REPORT: dict[str, Any] = {
    **{
        f"{name}ratio_{size}": None
        for name in ("", "table_", "nftables_", "openvswitch_")
        for size in ("1m", "10m")
    },
    "lookups": {"sizes": {"100": {"even": _RATES, "zipf": _RATES}}},
    "patterns": {
        "engine": "hyperscan",
        "counts": {
            "10": {
                "compile_s": 0.1,
                "random_gbps": {"median": 60.0},
                "text_gbps": {"median": 20.0},
                "near_misses_gbps": {"median": 10.0},
            }
        },
        "hurtful": {
            "payload_bytes": 100_000,
            "expressions": 28,
            "refused": 7,
            "worst_scan_ms": 6.0,
            "worst_scan_together_ms": 9.0,
        },
    },
    "install": {
        "rules": 1000,
        "phases": {"quiet": _PHASE, "install": _PHASE},
        "memory": {"router_bytes_per_rule": 41.0, "keeper_bytes_per_rule": 12.0},
    },
    "path": {
        "rules": 1000,
        "patterns": 10,
        "without_gbps": 7.0,
        "header_rules_gbps": 6.9,
        "header_rules_and_patterns_gbps": 6.0,
        "ratio_header_rules": 0.98,
        "ratio_with_rules": 0.86,
    },
}


def test_every_part_has_its_tables() -> None:
    """Each row has a value for each column; a peer that was left out has none."""
    tables = rules_tables(REPORT)
    assert len(tables) == 7
    for table in tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert tables[0].rows[0] == (100, "even", 4.0, 3.0, 2.0, 1.0, None, None)


def test_parts_that_were_not_measured_have_none() -> None:
    """Nothing stands there that was not measured."""
    some = {key: REPORT[key] for key in ("path",)}
    (table,) = rules_tables(some)
    assert list(table.rows[0]) == [7.0, 6.9, 6.0, 0.98, 0.86]
