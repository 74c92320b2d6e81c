"""How far hosts of an experiment, which stand for other machines, give way to router and VIs."""

from __future__ import annotations

import os
from enum import StrEnum

NICENESS = 10


class Priority(StrEnum):
    """Of a process."""

    OWN = "own"
    """As every process."""
    LOW = "low"
    """It leaves others nine tenths of a core that is full."""
    IDLE = "idle"
    """It has what nobody else wants (SCHED_IDLE), and nothing on a machine that is full. Where only
    such a process runs the system places what it wakes as if nobody did."""

    @property
    def words(self) -> str:
        """What a report says of it."""
        return {"own": "", "low": f"niceness {NICENESS}", "idle": "SCHED_IDLE"}[self]


def set_priority(priority: Priority) -> None:
    """Give this process a priority."""
    if priority is Priority.LOW:
        os.nice(NICENESS)
    elif priority is Priority.IDLE:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
