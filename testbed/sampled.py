"""Run a module as a program and sample where its main thread spends CPU time.

`python -m packetcloud.testbed.sampled FILE -- MODULE ARGUMENTS`. A timer of CPU time interrupts it
every few milliseconds and notes the function that is running; a call into C counts for the function
that made it. Costs under one per cent, where a tracing profiler would double the time per chunk.
SIGUSR2 begins the sampling, so that starting up does not count; at the end FILE holds
{"module:function": samples} as JSON.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from types import FrameType

from packetcloud.testbed.instrumented import run_instrumented

BEGIN_SAMPLING = signal.SIGUSR2
INTERVAL_S = 0.002
"""The kernel rounds it up to its own tick, 4 ms in most."""


class Sampler:
    """Counts samples by module and function."""

    def __init__(self) -> None:
        self.samples: Counter[tuple[str, str]] = Counter()

    def prepare(self) -> None:
        """Wait for SIGUSR2."""
        signal.signal(signal.SIGPROF, self._take)
        signal.signal(BEGIN_SAMPLING, lambda *_: self.start())

    def start(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self) -> dict[str, int]:
        """Stop sampling; return the counts by `module:function`, the largest first."""
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        return {f"{module}:{name}": count for (module, name), count in self.samples.most_common()}

    def _take(self, _number: int, frame: FrameType | None) -> None:
        if frame is not None:
            self.samples[frame.f_globals.get("__name__", "?"), frame.f_code.co_qualname] += 1


def main(arguments: list[str]) -> int:
    """Run the module; its own exit code is ours."""
    sampler = Sampler()
    return run_instrumented("sampled", arguments, sampler.prepare, sampler.stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
