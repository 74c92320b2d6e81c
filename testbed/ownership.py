"""Whose a thing of an experiment is: its name holds pid and start time of the process that made it.

So whoever comes next knows whether its maker still lives, and sweeps what a killed one left.
"""

from __future__ import annotations

import os
from pathlib import Path


def owner_tag() -> str:
    """Return this process's mark: `PID-START`."""
    pid = os.getpid()
    return f"{pid}-{started_at(pid)}"


def is_abandoned(name: str, prefix: str) -> bool:
    """Tell whether `name`, `PREFIX-PID-START-...`, was made by a process that is dead."""
    parts = name.split("-")
    if len(parts) < 4 or parts[0] != prefix or not parts[1].isdigit():
        return False
    return started_at(int(parts[1])) != parts[2]


def started_at(pid: int) -> str | None:
    """When `pid` started, in clock ticks since boot, so that a reused pid is not mistaken.

    None: there is no such process, or it is dead and only waits to be waited for.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    # A zombie is dead, though its number is still taken.
    return None if fields[0] == "Z" else fields[19]
