"""Run `packetcloud ARGUMENTS` and sample where its main thread spends CPU time.

`python -m packetcloud.testbed.sampled FILE -- ARGUMENTS`. A timer of CPU time interrupts it
every few milliseconds and notes the function that is running; a call into C counts for the function
that made it. Costs under one per cent, where a tracing profiler would double the time per chunk.
SIGUSR2 begins the sampling, so that starting up does not count; at the end FILE holds
{"module:function": samples} as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

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
    if len(arguments) < 2 or arguments[1] != "--":
        print("usage: sampled FILE -- ARGUMENTS...", file=sys.stderr)
        return 2
    from packetcloud.cli.main import main as packetcloud

    sampler = Sampler()
    sampler.prepare()
    try:
        return packetcloud(arguments[2:])
    finally:
        Path(arguments[0]).write_text(json.dumps(sampler.stop()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
