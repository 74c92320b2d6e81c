"""One timed run of one contender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from packetcloud.testbed.meter import Meter

GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a run that counts: from the first byte after the warm-up to the last.

    `begin_s` and `end_s` are of CLOCK_MONOTONIC.
    """

    begin_s: float
    end_s: float
    payload_bytes: int

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s

    @property
    def goodput_gbps(self) -> float:
        return self.payload_bytes * 8 / self.seconds / GIGA if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What one run gave."""

    goodput_gbps: float
    seconds: float
    cpu_s_per_gb: Mapping[str, float] = field(default_factory=dict)
    """CPU seconds per 10^9 bytes of payload, by process."""
    details: Mapping[str, object] = field(default_factory=dict)


def make_trial(window: Window, meter: Meter, **details: object) -> Trial:
    """Put goodput and CPU of the same stretch of time together."""
    gigabytes = window.payload_bytes / GIGA
    used = meter.cpu_seconds(window.begin_s, window.end_s)
    per_gb = {name: cpu_s / gigabytes for name, cpu_s in used.items()} if gigabytes else {}
    return Trial(window.goodput_gbps, window.seconds, per_gb, details)
