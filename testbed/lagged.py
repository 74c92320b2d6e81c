"""Run a module as a program and note whenever its event loop is late.

`python -m packetcloud.testbed.lagged FILE -- MODULE ARGUMENTS`. Every millisecond the loop is asked
to do nothing; how long after its time it does so is its lag, the longest time for which a chunk
that came at the worst moment waited. At the end FILE holds [[moment, lag, waited], ...] as JSON, in
seconds, moments by CLOCK_MONOTONIC: of all lags of half a millisecond or more, and for how much of
each the thread could have run and others had the processor.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from packetcloud.testbed.instrumented import run_instrumented

INTERVAL_S = 0.001
NOTED_S = 0.0005
_LOOK_S = 0.01
_SCHEDULED = Path("/proc/thread-self/schedstat")


class LagMeter:
    """Calls itself in the reactor of this process, as soon as there is one that runs."""

    def __init__(self) -> None:
        self.lags: list[tuple[float, float, float]] = []
        self._reactor: Any = None
        self._due_s = 0.0
        self._waited_s = 0.0

    def start(self) -> None:
        threading.Thread(target=self._find, name="lag-meter", daemon=True).start()

    def _find(self) -> None:
        while True:
            module: Any = sys.modules.get("twisted.internet.reactor")
            if module is not None and getattr(module, "running", False):
                self._reactor = module
                module.callFromThread(self._begin)
                return
            time.sleep(_LOOK_S)

    def _begin(self) -> None:
        self._waited_s = waited_s()
        self._due_s = time.monotonic() + INTERVAL_S
        self._reactor.callLater(INTERVAL_S, self._tick)

    def _tick(self) -> None:
        now_s = time.monotonic()
        if now_s - self._due_s >= NOTED_S:
            self.lags.append((now_s, now_s - self._due_s, waited_s() - self._waited_s))
        self._begin()


def waited_s() -> float:
    """Return how long this thread could have run and others had the processor, until now."""
    try:
        with _SCHEDULED.open("rb", buffering=0) as file:
            return int(file.read(64).split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0  # a kernel that does not count it: then all of a lag is our own


def main(arguments: list[str]) -> int:
    """Run the module; its own exit code is ours."""
    meter = LagMeter()
    return run_instrumented("lagged", arguments, meter.start, lambda: meter.lags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
