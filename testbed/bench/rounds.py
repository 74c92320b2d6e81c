"""Interleaved repeats: ours, peer 1, peer 2, ours, peer 1, ... and what they add up to.

Interleaved, because a machine's speed drifts: every contender meets the same drift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.errors import ChildError, MissingToolError, TestbedError

Progress = Callable[[str], None]
"""Told before every run what comes now."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long and how often."""

    seconds: int = 5
    """Of each run, after the warm-up."""
    warmup: int = 1
    """Seconds at the start of each run that do not count."""
    repeats: int = 5


class Contender(Protocol):
    """Something to measure, ours or a peer."""

    @property
    def name(self) -> str: ...

    def run(self, timing: Timing) -> Trial: ...


@dataclass(slots=True)
class Record:
    """All runs of one contender."""

    trials: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    missing: str | None = None
    """Why there is nothing to compare with."""

    @property
    def goodput_gbps(self) -> float | None:
        """The median; None without a run that worked."""
        return median(t.goodput_gbps for t in self.trials) if self.trials else None

    @property
    def cpu_s_per_gb(self) -> dict[str, float]:
        """Medians by process."""
        names = {name for trial in self.trials for name in trial.cpu_s_per_gb}
        return {
            name: median(t.cpu_s_per_gb[name] for t in self.trials if name in t.cpu_s_per_gb)
            for name in sorted(names)
        }

    def spread(self) -> dict[str, object]:
        """Median, extremes and every sample, so that a reader can judge the noise."""
        samples = [trial.goodput_gbps for trial in self.trials]
        return {
            "median_gbps": self.goodput_gbps,
            "min_gbps": min(samples, default=None),
            "max_gbps": max(samples, default=None),
            "samples_gbps": samples,
            "details": [dict(trial.details) for trial in self.trials],
            "failures": self.failures,
            "missing": self.missing,
        }


def run_rounds(
    contenders: Sequence[Contender],
    timing: Timing,
    progress: Progress,
    first_must_work: bool = True,
) -> dict[str, Record]:
    """Run every contender `timing.repeats` times, in turn.

    A peer that is not installed is left out; a run that fails is recorded and the others go on.

    Raises:
        TestbedError: the very first run failed and `first_must_work`. It is ours, and without it
            there is no report.
    """
    records = {contender.name: Record() for contender in contenders}
    for number in range(1, timing.repeats + 1):
        for contender in contenders:
            record = records[contender.name]
            if record.missing is not None:
                continue
            progress(f"{contender.name}, {number} of {timing.repeats}")
            try:
                record.trials.append(contender.run(timing))
            except MissingToolError as error:
                record.missing = str(error)
            except ChildError as error:
                if first_must_work and contender is contenders[0] and number == 1:
                    raise TestbedError(
                        f"the first run of {contender.name} failed: {error}"
                    ) from error
                record.failures.append(str(error))
    return records


def ratio(ours: float | None, peer: float | None) -> float | None:
    """Ours over the peer's; None where one is missing."""
    return ours / peer if ours is not None and peer else None


def best(*values: float | None) -> float | None:
    """The largest of the values that are there."""
    return max((value for value in values if value is not None), default=None)
