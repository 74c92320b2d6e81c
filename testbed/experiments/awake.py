"""Keeps a processor from falling asleep: `python -m packetcloud.testbed.experiments.awake`.

It runs only where nobody else wants to (SCHED_IDLE). A processor that has nothing to do halts, and
what wakes it pays for that; beside this program it does not, so what remains of a slow first chunk
is caches that others have used meanwhile.
"""

from __future__ import annotations

import os
import sys

from packetcloud.testbed.processes import emit_event


def main() -> int:
    """Turn until killed."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    emit_event("ready")
    while True:
        pass


if __name__ == "__main__":
    sys.exit(main())
