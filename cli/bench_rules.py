"""The tables that `packetcloud bench rules` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packetcloud.cli.output import Table

_FIGURES = ("table", "decision", "cached", "nftables", "openvswitch", "openvswitch_search")
_KINDS = ("random", "text", "near_misses")


def rules_tables(document: dict[str, Any]) -> list[Table]:
    """Return the tables of the parts that were measured."""
    tables: list[Table] = []
    for part, make in (
        ("lookups", _lookups),
        ("patterns", _patterns),
        ("install", _install),
        ("path", _path),
    ):
        if part in document:
            tables += make(document)
    return tables


def _lookups(document: dict[str, Any]) -> Iterator[Table]:
    titles = ("rules", "traffic", "table", "decision", "cached", "nftables", "OVS", "its search")
    rows = [
        (int(size), spread, *(cell[spread].get(f"{figure}_per_s") for figure in _FIGURES))
        for spread in ("even", "zipf")
        for size, cell in document["lookups"]["sizes"].items()
    ]
    yield Table(titles, rows, "Lookups per second of one core")
    keys = ("ratio", "table_ratio", "nftables_ratio", "openvswitch_ratio")
    ratios = [(size, *(document[f"{key}_{size}"] for key in keys)) for size in ("1m", "10m")]
    contenders = ("rules", "decision", "table", "nftables", "OVS")
    yield Table(contenders, ratios, "Rate over that with the fewest rules, evenly hit")


def _patterns(document: dict[str, Any]) -> Iterator[Table]:
    patterns = document["patterns"]
    paces = [
        (int(count), *(cell[f"{kind}_gbps"]["median"] for kind in _KINDS), cell["compile_s"])
        for count, cell in patterns["counts"].items()
    ]
    titles = ("patterns", "random", "text", "near misses", "compile s")
    yield Table(titles, paces, f"Payload inspection by {patterns['engine']}, Gbit/s of one core")
    hurtful = patterns["hurtful"]
    keys = ("expressions", "refused", "worst_scan_ms", "worst_scan_together_ms")
    worst = ("expressions", "refused", "worst ms", "worst ms, all at once")
    title = f"Expressions known to hurt, each on {hurtful['payload_bytes'] // 1000} KB"
    yield Table(worst, [[hurtful[key] for key in keys]], title)


def _install(document: dict[str, Any]) -> Iterator[Table]:
    install = document["install"]
    keys = ("seconds", "stall_max_ms", "stalls", "late_max_ms", "delay_p50_ms", "delay_max_ms")
    rows = [(name, *(one.get(key) for key in keys)) for name, one in install["phases"].items()]
    titles = ("phase", "s", "stall, ms", "times > 5 ms", "loop late", "chunks p50", "longest")
    yield Table(titles, rows, f"Small chunks while {install['rules']} rules change")
    memory = install["memory"]
    row = [memory[f"{which}_bytes_per_rule"] for which in ("router", "keeper")]
    yield Table(("router", "keeper"), [row], "Bytes per rule")


def _path(document: dict[str, Any]) -> Iterator[Table]:
    path = document["path"]
    names = ("without", "header_rules", "header_rules_and_patterns")
    row = [path[f"{name}_gbps"] for name in names]
    row += [path["ratio_header_rules"], path["ratio_with_rules"]]
    titles = ("no rules", "header rules", "and patterns", "header rules/none", "all/none")
    title = f"A - R - B with {path['rules']} header rules and {path['patterns']} patterns, Gbit/s"
    yield Table(titles, [row], title)
