"""What is kept, as rows for a database: kind -> key -> JSON values, and back.

Only what is kept is in them; everything else is found out again after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.migration import Migration, Step
from packetcloud.cloudlet.core.saved import Awaited, Operation, Saved

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
    saved = Saved(**rows.get("controller", {}).get("", {}))
    for row in rows.get("vi", {}).values():
        vi = Vi(
            **{name: row[name] for name in _OF_VI},
            role=Role(row["role"]),
            state=ViState(row["state"]),
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
    saved.counts = {name: row["count"] for name, row in rows.get("service", {}).items()}
    saved.evacuated = {name for name, row in rows.get("node", {}).items() if row["is_evacuated"]}
    return saved


def _vi_row(vi: Vi) -> dict[str, Any]:
    row = {name: getattr(vi, name) for name in _OF_VI}
    return row | {"role": vi.role.value, "state": vi.state.value}
