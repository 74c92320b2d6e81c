"""`packetcloud testbed simulate`: seeds of the simulated network."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from packetcloud.cli.output import ExitCode, Output, Table, pass_output

if TYPE_CHECKING:
    from packetcloud.testbed.simulation.run import SeedResult

LAST_EVENTS_SHOWN_COUNT = 15
"""Of a failing seed, before the first violation; `--trace` shows all."""
FAILURES_SHOWN_COUNT = 10


@click.command()
@click.option(
    "--seeds", type=click.IntRange(1), default=2000, show_default=True, help="How many to run."
)
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="The first.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Processes.  [default: one for each processor]"
)
@click.option("--scenario", metavar="NAME", help="Only this one, instead of what the seed says.")
@click.option("--seed", type=click.IntRange(0), help="Run this seed alone.")
@click.option("--trace", is_flag=True, help="With --seed: print everything that happens.")
@click.option("--list", "wants_list", is_flag=True, help="Print the names of the scenarios.")
@pass_output
def simulate(
    output: Output,
    /,
    seeds: int,
    first: int,
    jobs: int | None,
    scenario: str | None,
    seed: int | None,
    trace: bool,
    wants_list: bool,
) -> ExitCode:
    """Run routers, hosts and services on virtual time with seeded faults, and judge the journals.

    Each seed is one network, its load and what goes wrong in it; the same seed runs the same again.

    Exit code 1: a promise was broken, or a run proved nothing; the seeds are named.
    """
    from packetcloud.testbed.simulation.scenario import SCENARIOS

    if wants_list:
        output.report(list(SCENARIOS), [Table(("scenario",), [[name] for name in SCENARIOS])])
        return ExitCode.FINE
    if scenario is not None and scenario not in SCENARIOS:
        allowed = ", ".join(SCENARIOS)
        raise click.BadParameter(f"{scenario!r}; allowed: {allowed}", param_hint="--scenario")
    if seed is not None:
        given = [name for name in ("seeds", "first", "jobs") if _is_given(name)]
        if given:
            raise click.UsageError(f"--seed runs one seed alone: leave out --{given[0]}")
    if trace and seed is None:
        raise click.UsageError("--trace shows one seed; say which with --seed")
    logging.disable(logging.CRITICAL)  # what broken networks make the daemons say is expected
    try:
        if seed is not None:
            return _one(output, seed, scenario, trace)
        return _many(output, seeds, first, scenario, jobs)
    finally:
        logging.disable(logging.NOTSET)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT


def _one(output: Output, seed: int, scenario: str | None, trace: bool) -> ExitCode:
    from packetcloud.testbed.simulation.run import run_seed

    result = run_seed(seed, scenario, tell=trace)
    if trace:
        for line in (*result.plan, *result.last_events):
            output.note(line)
    values = {
        "seed": result.seed,
        "scenario": result.scenario,
        "result": "ok" if result.ok else "failed",
        "judged": result.judged_count,
        "delivered": result.delivered_count,
        "events": result.events_count,
        "virtual seconds": result.virtual_s,
        "trace": result.trace_digest,
    }
    document = result.to_json() if trace else result.to_json() | {"last_events": []}
    output.report(document, [Table(("", ""), [list(pair) for pair in values.items()])])
    _complain(output, result)
    return ExitCode.FINE if result.ok else ExitCode.NEGATIVE


def _many(
    output: Output, seeds: int, first: int, scenario: str | None, jobs: int | None
) -> ExitCode:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from packetcloud.testbed.simulation.campaign import command_of, run_campaign

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with output.progress(*columns) as shown:
        task = shown.add_task("seeds", total=seeds)

        def tell(done: int, failed: int) -> None:
            words = f"seeds, {failed} failed" if failed else "seeds"
            shown.update(task, completed=done, description=words)

        found = run_campaign(seeds, first, scenario, jobs, tell)
    rows = [
        ("seeds", found.seeds_count),
        ("failed", len(found.failures)),
        ("operations judged", found.judged_count),
        ("delivered", found.delivered_count),
        ("seeds that ran twice, alike", found.repeated_count),
        ("events", found.events_count),
        ("virtual hours", found.virtual_s / 3600),
        ("wall seconds", found.wall_s),
        ("slowest seed, CPU s", found.slowest_cpu_s),
        ("longest recovery, s", found.longest_recovery_s),
    ]
    output.report(found.to_json(), [Table(("", ""), rows)])
    for failure in found.failures[:FAILURES_SHOWN_COUNT]:
        output.warn(f"seed {failure.seed} failed; again with: {command_of(failure)}")
        _complain(output, failure)
    if len(found.failures) > FAILURES_SHOWN_COUNT:
        numbers = ", ".join(str(failure.seed) for failure in found.failures)
        output.warn(f"all failing seeds: {numbers}")
    return ExitCode.NEGATIVE if found.failures else ExitCode.FINE


def _complain(output: Output, result: SeedResult) -> None:
    for violation in result.violations:
        output.warn(f"seed {result.seed} breaks {violation}")
    for reason in result.vacuous:
        output.warn(f"seed {result.seed} proves too little: {reason}")
    if result.violations:
        first = result.violations[0]
        before = [text for text in result.last_events if float(text.split()[0]) <= first.time_s]
        for text in before[-LAST_EVENTS_SHOWN_COUNT:]:
            output.note(text)
