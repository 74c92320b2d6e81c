"""`packetcloud bench rules`: many header rules and payload patterns, and what changing them costs.

Source: docs/reference/bench.md, "rules".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Timing
from packetcloud.testbed.bench.rule_install import QUIET_S, RULES, measure_install
from packetcloud.testbed.bench.rule_lookups import SIZES, measure_lookups, rate_ratio
from packetcloud.testbed.bench.rule_path import PATTERNS, measure_path
from packetcloud.testbed.bench.rule_patterns import COUNTS, measure_hurtful, measure_patterns
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import can_make_namespaces

PARTS = ("lookups", "patterns", "install", "path")
ORDINARY_KINDS = ("random", "text")
"""Payloads by which patterns are judged; near misses are made to hurt."""


@dataclass(frozen=True, slots=True)
class RulesPlan:
    """What to measure, and how much of it."""

    parts: Collection[str] = PARTS
    sizes: Sequence[int] = SIZES
    """Header rules, for the lookups."""
    patterns: Sequence[int] = COUNTS
    installed: int = RULES
    """Header rules, for installing and for the path."""
    path_patterns: int = PATTERNS
    quiet_s: float = QUIET_S


def bench_rules(plan: RulesPlan, timing: Timing, progress: Progress) -> Document:
    """Measure what the plan says; what fails later than our own lookups stands in the report."""
    mode = LinkMode.WIRE if can_make_namespaces() else None
    document = begin_document("rules", timing, mode is None, ("nft", "ovs-vswitchd"))
    document |= {"parts": list(plan.parts), "failures": []}
    if "lookups" in plan.parts:
        document["lookups"] = measure_lookups(plan.sizes, timing.repeats, progress)
        document["notes"] += [
            f"{name} left out: {why}" for name, why in document["lookups"]["missing"].items()
        ]
    if "patterns" in plan.parts:
        document["patterns"] = measure_patterns(plan.patterns, timing.repeats, progress)
        document["patterns"]["hurtful"] = measure_hurtful(progress)
    if "install" in plan.parts:
        try:
            document["install"] = measure_install(plan.installed, mode, progress, plan.quiet_s)
        except ChildError as error:
            document["failures"].append(f"install: {error}")
    if "path" in plan.parts:
        try:
            figures = measure_path(plan.installed, plan.path_patterns, mode, timing, progress)
            document["path"], failures = figures
            document["failures"] += failures
        except ChildError as error:
            document["failures"].append(f"path: {error}")
    return {**document, **rules_keys(document)}


def rules_keys(document: Document) -> Document:
    """Return the figures that a reader looks for first; None where a part was not run."""
    lookups = document.get("lookups", {})
    install = document.get("install", {})
    phases = install.get("phases", {})
    hurtful = document.get("patterns", {}).get("hurtful", {})
    found: Document = {}
    for size, short in ((1_000_000, "1m"), (10_000_000, "10m")):
        found[f"ratio_{short}"] = rate_ratio(lookups, size, "decision")
        for figure in ("table", "nftables", "openvswitch"):
            found[f"{figure}_ratio_{short}"] = rate_ratio(lookups, size, figure)
    stalls = [phases[name]["stall_max_ms"] for name in ("install", "withdraw") if name in phases]
    return found | {
        "bytes_per_rule": install.get("memory", {}).get("router_bytes_per_rule"),
        "keeper_bytes_per_rule": install.get("memory", {}).get("keeper_bytes_per_rule"),
        "install_1m_s": install.get("install_s") if install.get("rules") == 1_000_000 else None,
        "max_stall_ms": max(stalls, default=None),
        "patterns_1000_gbps": _patterns_gbps(document.get("patterns", {}), 1000),
        "hurtful_worst_ms": hurtful.get("worst_scan_ms"),
        "path_ratio_with_rules": document.get("path", {}).get("ratio_with_rules"),
    }


def _patterns_gbps(patterns: Document, count: int) -> float | None:
    """Return the pace with so many patterns, in whichever ordinary payload it is less."""
    counted = patterns.get("counts", {}).get(str(count))
    if counted is None:
        return None
    return min(float(counted[f"{kind}_gbps"]["median"]) for kind in ORDINARY_KINDS)
