"""Many seeds in several processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from packetcloud.testbed.simulation.run import SeedResult, run_seed

CHUNK_OF_SEEDS = 8
"""Seeds that a process takes at a time."""
TWICE_EVERY = 50
"""One seed in so many runs twice: the traces must be equal."""

Progress = Callable[[int, int], None]
"""Called with the seeds run so far and the failures among them."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """What many seeds showed."""

    seeds_count: int
    first: int
    scenario: str | None
    failures: tuple[SeedResult, ...]
    judged_count: int
    delivered_count: int
    events_count: int
    virtual_s: float
    wall_s: float
    slowest_cpu_s: float
    longest_recovery_s: float
    by_scenario: dict[str, int]
    repeated_count: int
    """Seeds that ran twice; one whose traces differ is a failure."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        failures = [
            failure.to_json() | {"command": command_of(failure)} for failure in self.failures
        ]
        return {
            "seeds": self.seeds_count,
            "first": self.first,
            "scenario": self.scenario,
            "failed": len(self.failures),
            "judged": self.judged_count,
            "delivered": self.delivered_count,
            "events": self.events_count,
            "virtual_s": round(self.virtual_s, 3),
            "wall_s": round(self.wall_s, 3),
            "slowest_cpu_s": round(self.slowest_cpu_s, 3),
            "longest_recovery_s": round(self.longest_recovery_s, 3),
            "repeated": self.repeated_count,
            "by_scenario": self.by_scenario,
            "failures": failures,
        }


def command_of(result: SeedResult) -> str:
    """Return the command that runs a seed again, exactly."""
    words = ["packetcloud", "testbed", "simulate", "--scenario", result.scenario]
    return shlex.join([*words, "--seed", str(result.seed), "--trace"])


def run_campaign(
    seeds: int,
    first: int = 0,
    scenario: str | None = None,
    jobs: int | None = None,
    progress: Progress = lambda done, failed: None,
) -> Campaign:
    """Run `seeds` seeds from `first` on. `jobs`: processes, None for one per processor."""
    began = time.perf_counter()
    total: Counter[str] = Counter()
    by_scenario: Counter[str] = Counter()
    failures: list[SeedResult] = []
    virtual_s = slowest_s = recovery_s = 0.0
    for result, is_repeated in _results(seeds, first, scenario, jobs or os.cpu_count() or 1):
        by_scenario[result.scenario] += 1
        total["done"] += 1
        total["judged"] += result.judged_count
        total["delivered"] += result.delivered_count
        total["events"] += result.events_count
        total["repeated"] += is_repeated
        virtual_s += result.virtual_s
        slowest_s = max(slowest_s, result.cpu_s)
        if result.ok:
            recovery_s = max(recovery_s, result.recovery_s)
        else:
            failures.append(result)
        progress(total["done"], len(failures))
    failures.sort(key=lambda failure: failure.seed)
    return Campaign(
        total["done"],
        first,
        scenario,
        tuple(failures),
        total["judged"],
        total["delivered"],
        total["events"],
        virtual_s,
        time.perf_counter() - began,
        slowest_s,
        recovery_s,
        dict(sorted(by_scenario.items())),
        total["repeated"],
    )


def run_checked(seed: int, scenario: str | None) -> tuple[SeedResult, bool]:
    """Run a seed, now and then twice; return the result and whether it was twice.

    Raises:
        NotDeterministicError: the two runs differ.
    """
    result = run_seed(seed, scenario)
    if seed % TWICE_EVERY:
        return result, False
    again = run_seed(seed, scenario)
    if again.trace_digest != result.trace_digest:
        raise NotDeterministicError(
            f"seed {seed} ({result.scenario}) ran differently the second time: traces "
            f"{result.trace_digest} and {again.trace_digest}"
        )
    return result, True


class NotDeterministicError(AssertionError):
    """A seed ran in two ways: something asks the real world."""


def _results(
    seeds: int, first: int, scenario: str | None, jobs: int
) -> Iterator[tuple[SeedResult, bool]]:
    tasks = ((seed, scenario) for seed in range(first, first + seeds))
    if jobs == 1:
        for task in tasks:
            yield _run_task(task)
        return
    # Fresh processes: a fork would take over a reactor, threads and loggers.
    context = multiprocessing.get_context("spawn")
    with _heirs_of_no_interrupt():
        pool = context.Pool(jobs, _be_quiet)
    with pool:
        yield from pool.imap_unordered(_run_task, tasks, CHUNK_OF_SEEDS)


@contextmanager
def _heirs_of_no_interrupt() -> Iterator[None]:
    """Processes that begin in here never see Ctrl-C, from their first import on: it is for us, and
    we end them."""
    resource_tracker.ensure_running()  # where it is begun later, it unblocks the signal behind us
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_task(task: tuple[int, str | None]) -> tuple[SeedResult, bool]:
    return run_checked(*task)


def _be_quiet() -> None:
    """What routers log of broken networks is of no interest 2 000 times."""
    logging.disable(logging.CRITICAL)
