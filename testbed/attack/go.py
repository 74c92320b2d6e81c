"""How an attacker waits for its time: SIGUSR1, whichever thread of the process takes it."""

from __future__ import annotations

import signal
import threading

from packetcloud.testbed.processes import emit_event


def wait_for_go() -> None:
    """Say `ready`, and return at SIGUSR1."""
    go = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: go.set())
    emit_event("ready")
    while not go.wait(0.05):
        pass
