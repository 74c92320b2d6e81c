"""Whose a thing of an experiment is: its name holds pid and start time of the process that made it.

So whoever comes next knows whether its maker still lives, and sweeps what a killed one left.
"""

from __future__ import annotations

import os
from pathlib import Path


def owner_tag() -> str:
    """Return this process's mark: `PID-START`."""
    pid = os.getpid()
    return f"{pid}-{_start_time(pid)}"


def is_abandoned(name: str, prefix: str) -> bool:
    """Tell whether `name`, `PREFIX-PID-START-...`, was made by a process that is dead."""
    parts = name.split("-")
    if len(parts) < 4 or parts[0] != prefix or not parts[1].isdigit():
        return False
    return _start_time(int(parts[1])) != parts[2]


def _start_time(pid: int) -> str | None:
    """When `pid` started, in clock ticks since boot, so that a reused pid is not mistaken."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()[19]
