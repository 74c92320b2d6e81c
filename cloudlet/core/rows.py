"""What is kept, as rows for a database: kind -> key -> JSON values, and back.

Only what is kept is in them; everything else is found out again after a restart.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, astuple
from typing import Any

from packetcloud.cloudlet.core.instances import Charge, Evidence, Role, Vi, ViState
from packetcloud.cloudlet.core.migration import Migration, Step
from packetcloud.cloudlet.core.saved import (
    Answered,
    Awaited,
    Counts,
    Meter,
    Operation,
    Piece,
    Reserved,
    RuleSet,
    Saved,
    Stretch,
    TrafficMeter,
    TrafficState,
)
from packetcloud.cloudlet.core.values import Allotment
from packetcloud.domain_controller.core.installations import RefusedRule, RulesState
from packetcloud.domain_controller.core.usage import UsageRecord

Rows = dict[str, dict[str, dict[str, Any]]]
_OF_VI = (
    *(
        "number",
        "service",
        "vi_type",
        "node",
        "instance",
        "token",
        "address",
        "slot",
        "owner_epoch",
    ),
    *("why", "restarts", "is_leaving", "is_draining", "is_restricted"),
)
_LATER_OF_VI = (
    *("resize_to", "restrictions", "restricted_until_s", "image", "boot_cpus"),
    *("reservation", "is_condemned", "counted_boot", "backoff_count", "ready_at"),
)
"""Databases of earlier versions have none of these; what a VI begins with is right for them."""


def to_rows(saved: Saved) -> Rows:
    """Return the rows of all that is kept."""
    return {
        "controller": {
            "": {
                "epoch": saved.epoch,
                "version": saved.version,
                "next_number": saved.next_number,
            }
        },
        "clock": {"": {"clock_s": saved.clock_s}},
        "vi": {str(vi.number): _vi_row(vi) for vi in saved.vis.values()},
        "migration": {
            str(one.old): {
                "operation": one.operation,
                "old": one.old,
                "twin": one.twin,
                "step": one.step.value,
            }
            for one in saved.migrations.values()
        },
        "operation": {
            str(one.number): {
                "number": one.number,
                "awaited": one.awaited.value,
                "vi": one.vi,
                "node": one.node,
                "vi_type": one.vi_type,
            }
            for one in saved.operations.values()
        },
        "service": {name: {"count": count} for name, count in saved.counts.items()},
        "node": {name: {"is_evacuated": True} for name in saved.evacuated},
    }


def from_rows(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Saved:
    """Return what `to_rows` was given.

    Raises:
        KeyError, ValueError, TypeError: the rows are of another version.
    """
    clock = rows.get("clock", {}).get("", {})
    saved = Saved(**rows.get("controller", {}).get("", {}), **clock)
    for row in rows.get("vi", {}).values():
        vi = Vi(
            **{name: row[name] for name in _OF_VI},
            **{name: row[name] for name in _LATER_OF_VI if name in row},
            role=Role(row["role"]),
            state=ViState(row["state"]),
            record=tuple(Charge(*one) for one in row.get("record", ())),
            violations=row.get("violations", {}),
            counted=row.get("counted", row.get("violations", {})),
            evidence=tuple(Evidence(*one) for one in row.get("evidence", ())),
            allotted=Allotment(*row.get("allotted", ())),
            crashes=deque(row.get("crashes", ())),
            due_at=row.get("starts_at", math.inf),
        )
        saved.vis[vi.number] = vi
    for row in rows.get("migration", {}).values():
        migration = Migration(row["operation"], row["old"], row["twin"], Step(row["step"]))
        saved.migrations[migration.old] = migration
    for row in rows.get("operation", {}).values():
        operation = Operation(
            row["number"], Awaited(row["awaited"]), row["vi"], row["node"], row["vi_type"]
        )
        saved.operations[operation.number] = operation
    _read_domain(rows, saved)
    saved.counts = {name: row["count"] for name, row in rows.get("service", {}).items()}
    saved.evacuated = {name for name, row in rows.get("node", {}).items() if row["is_evacuated"]}
    return saved


def to_domain_rows(saved: Saved) -> Rows:
    """Return the rows of what the domain controller wants, and of usage; only its events change
    them, and they may be many."""
    return {
        "domain": {"": {"epoch": saved.domain_epoch}},
        "reserved": {name: asdict(one) for name, one in saved.reserved.items()},
        "answered": {name: asdict(one) for name, one in saved.answered.items()},
        "meter": {
            name: {
                "name": one.name,
                "number": one.number,
                "previous": one.previous,
                "until_ms": one.until_ms,
                "written": asdict(one.written) if one.written is not None else None,
            }
            for name, one in saved.meters.items()
        },
        "traffic": {
            str(number): {
                "reservation": one.reservation,
                "name": one.name,
                "previous": one.previous,
                "number": one.number,
                "until_ms": one.until_ms,
                "written": asdict(one.written),
            }
            for number, one in saved.traffic.items()
            if one.written is not None
        },
        "usage": {
            f"{meter}/{number}": {"text": record.to_bytes().decode("ascii")}
            for (meter, number), record in saved.records.items()
        },
        "rule_set": {name: asdict(one) for name, one in saved.rule_sets.items()},
    }


def _read_domain(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], saved: Saved) -> None:
    saved.domain_epoch = rows.get("domain", {}).get("", {}).get("epoch", 0)
    for name, row in rows.get("reserved", {}).items():
        occurrences = tuple((begin, end) for begin, end in row["occurrences"])
        saved.reserved[name] = Reserved(**dict(row) | {"occurrences": occurrences})
    for name, row in rows.get("answered", {}).items():
        saved.answered[name] = Answered(**row)
    for name, row in rows.get("meter", {}).items():
        written = Piece(**row["written"]) if row["written"] is not None else None
        # What was open goes on from where it was last written down.
        meter = Meter(row["name"], row["number"], row["previous"], row["until_ms"], written)
        meter.open = written
        saved.meters[name] = meter
    for key, row in rows.get("traffic", {}).items():
        written_state = _traffic_state(row["written"])
        states = {"written": written_state, "now": written_state}
        saved.traffic[int(key)] = TrafficMeter(**dict(row) | states)
    for row in rows.get("usage", {}).values():
        record = UsageRecord.from_bytes(row["text"].encode("ascii"))
        saved.records[record.meter, record.number] = record
    for name, row in rows.get("rule_set", {}).items():
        state, refusals = RulesState(row["state"]), (RefusedRule(**one) for one in row["refusals"])
        saved.rule_sets[name] = RuleSet(**dict(row) | {"state": state, "refusals": tuple(refusals)})


def _traffic_state(row: Mapping[str, Any]) -> TrafficState:
    open_ = row["open"]
    stretch = None
    if open_ is not None:
        stretch = Stretch(**dict(open_) | {"counts": Counts(**open_["counts"])})
    return TrafficState(row["boot"], Counts(**row["counts"]), stretch)


def _vi_row(vi: Vi) -> dict[str, Any]:
    row = {name: getattr(vi, name) for name in (*_OF_VI, *_LATER_OF_VI)}
    if vi.state is ViState.BACKING_OFF:  # in others each sign of life would be written down
        row["starts_at"] = vi.due_at
    return row | {
        "role": vi.role.value,
        "state": vi.state.value,
        "record": [astuple(one) for one in vi.record],
        "violations": dict(vi.violations),
        "counted": dict(vi.counted),
        "evidence": [astuple(one) for one in vi.evidence],
        "allotted": astuple(vi.allotted),
        "crashes": list(vi.crashes),
    }
