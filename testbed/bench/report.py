"""What every benchmark's JSON starts with, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packetcloud.testbed.bench.rounds import Record, Timing
from packetcloud.testbed.machine import describe_machine, describe_software
from packetcloud.testbed.peers.tools import tool_versions

FORMAT = "packetcloud-bench-1"
LOOPBACK_NOTE = (
    "not root: measured on loopback, where no link mode applies; these figures do not compare with "
    "those of the three link modes. Run it as root for namespaces and veth pairs."
)

Document = dict[str, Any]


def begin_document(
    benchmark: str, timing: Timing, is_loopback: bool, tools: tuple[str, ...]
) -> Document:
    """Return the head of the report: what ran, on what, against which versions."""
    return {
        "format": FORMAT,
        "benchmark": benchmark,
        **describe_software(),
        "machine": describe_machine(),
        "peers": tool_versions(*tools),
        "topology": "loopback" if is_loopback else "namespaces",
        "seconds": timing.seconds,
        "warmup_s": timing.warmup,
        "repeats": timing.repeats,
        "notes": [LOOPBACK_NOTE] if is_loopback else [],
    }


def runs_of(records: Mapping[str, Record]) -> Document:
    """Every contender's runs and CPU, for the reader who wants more than medians."""
    return {
        "runs": {name: record.spread() for name, record in records.items()},
        "cpu_s_per_gb": {name: record.cpu_s_per_gb for name, record in records.items()},
    }


def failures_of(records: Mapping[str, Record]) -> list[str]:
    return [f"{name}: {text}" for name, record in records.items() for text in record.failures]


def write_document(document: Document, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
