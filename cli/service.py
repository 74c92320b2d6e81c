"""`packetcloud service`: run services, try them without a network, list them, make their keys."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.domain_service import COMMANDS
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, FOLDER, SETTINGS
from packetcloud.cli.service_benchmark import benchmark
from packetcloud.cli.service_dictionary import dictionary
from packetcloud.cli.service_ids import ids
from packetcloud.cli.service_key import key

if TYPE_CHECKING:
    from packetcloud.services.plan import LaunchPlan
    from packetcloud.services.state_dir import StatusFile
    from packetcloud.services.trial import TrialReport

_state_dir = click.option(
    "--state-dir",
    type=FOLDER,
    help="Where running services leave their status. "
    "[default: packetcloud-UID in XDG_RUNTIME_DIR, else in /run for root, in /tmp for others]",
)


@click.group()
def service() -> None:
    """Run network services, try them, make their keys, register them in a domain."""


for _command in (*COMMANDS, benchmark, dictionary, ids, key):
    service.add_command(_command)


@service.command()
@click.argument("manifest")
@click.option("--router", required=True, metavar="HOST:PORT", help="Where the router listens.")
@click.option("--router-guid", metavar="GUID", help="Attach to this router only.")
@click.option(
    "--key",
    "key_file",
    required=True,
    type=FILE,
    help="The service's identity; its name is the SID. See: packetcloud identity create",
)
@SETTINGS
@click.option(
    "--isolation",
    type=click.Choice(["process", "none"]),
    default="process",
    show_default=True,
    help="process: supervised child processes with limits. none: in this process, for debugging.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="VIs of the same SID; with isolation 'process' only.",
)
@click.option(
    "--state",
    "state_file",
    type=FILE,
    help="Import state from this file at the start, export it there at the end.",
)
@click.option(
    "--execution",
    type=click.Choice(["auto", "inline", "thread"]),
    help="Where `process` runs, instead of what the manifest says.",
)
@click.option(
    "--private-link",
    "private_links",
    metavar="NETWORK",
    multiple=True,
    help="Towards a router in this network nothing is sealed, if it says the same. Loopback is "
    "always one. Repeatable.",
)
@click.option(
    "--max-payload-bytes",
    type=click.IntRange(1, 63 << 20),
    default=1 << 20,
    show_default=True,
    help="Largest payload taken; as in the router's configuration.",
)
@click.option(
    "--standby/--no-standby",
    default=True,
    show_default=True,
    help="Keep one process ready, so that a VI that dies is replaced at once.",
)
@_state_dir
@pass_output
def run(
    output: Output,
    manifest: str,
    router: str,
    router_guid: str | None,
    key_file: Path,
    settings: tuple[str, ...],
    isolation: str,
    replicas: int,
    state_file: Path | None,
    execution: str | None,
    private_links: tuple[str, ...],
    max_payload_bytes: int,
    standby: bool,
    state_dir: Path | None,
) -> None:
    """Run the service MANIFEST (a file, a folder, or the name of a bundled service).

    It attaches to the router, attaches again when the router was gone, and what dies is started
    again. Ctrl-C or SIGTERM: tasks in hand are finished first. SIGHUP: VIs in quarantine are tried
    again.
    """
    from packetcloud.services.catalogue import find_service
    from packetcloud.services.errors import ServiceConfigError
    from packetcloud.services.parameters import parse_settings
    from packetcloud.services.plan import plan_launch
    from packetcloud.services.state_dir import StatusFile, default_state_dir

    if isolation == "none" and replicas > 1:
        raise click.UsageError("--replicas needs --isolation process")
    level = "WARNING" if output.quiet else "INFO"
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    plan = plan_launch(
        find_service(manifest),
        parse_settings(settings),
        router=router,
        router_guid=router_guid,
        key_file=key_file,
        state_file=state_file,
        execution=execution,
        private_links=private_links,
        max_payload_bytes=max_payload_bytes,
        log_level=level,
    )
    status_file = StatusFile.create(state_dir or default_state_dir(), plan.spec.name)
    output.note(f"service {plan.spec.name} {plan.spec.version}, SID {plan.sid.hex}")
    if isolation == "none":
        from packetcloud.services.hosting import host_with_status

        exit_code, text = host_with_status(plan.spec, status_file, plan.facts())
    else:
        exit_code, text = _supervise(plan, replicas, status_file, standby)
    if exit_code:
        raise ServiceConfigError(text)


@service.command()
@click.argument("manifest")
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Cut this file into chunks.",
)
@click.option(
    "--generate",
    type=click.Choice(["text", "random", "zeros", "mixed"]),
    default="mixed",
    show_default=True,
    help="Payloads when there is no --input.",
)
@click.option("--count", type=click.IntRange(1), default=64, show_default=True, help="Of those.")
@click.option(
    "--chunk-bytes",
    type=click.IntRange(0, 1 << 20),
    default=1 << 20,
    show_default=True,
    help="Payload of one chunk.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of generated payloads.")
@click.option("--pair", is_flag=True, help="Run the manifest's two directions; compare the end.")
@SETTINGS
@pass_output
@click.pass_context
def test(
    context: click.Context,
    output: Output,
    manifest: str,
    input_file: Path | None,
    generate: str,
    count: int,
    chunk_bytes: int,
    seed: int,
    pair: bool,
    settings: tuple[str, ...],
) -> None:
    """Run the service MANIFEST on chunks, without any network, and show what it did.

    Exits with 1 if a chunk failed or, with --pair, did not come back as it went in.
    """
    from packetcloud.services import trial
    from packetcloud.services.catalogue import find_service
    from packetcloud.services.parameters import parse_settings

    found = find_service(manifest)
    values = parse_settings(settings)
    payloads: Iterable[memoryview]
    if input_file is not None:
        if not chunk_bytes:
            raise click.UsageError("--chunk-bytes 0 cuts no file")
        payloads = trial.file_payloads(input_file, chunk_bytes)
    else:
        kind = trial.GeneratedKind(generate)
        payloads = trial.generated_payloads(kind, count, chunk_bytes, seed)
    if pair:
        result = trial.run_pair(found, values, payloads)
        reports, differing = [result.first, result.second], result.differing_count
    else:
        reports, differing = [trial.run_trial(found, values, payloads)], 0
    document: dict[str, object] = {"runs": [report.to_dict() for report in reports]}
    if pair:
        document["differing"] = differing
    output.report(document, [_trial_table(reports), *_reasons_tables(reports)])
    if pair and not output.is_json:
        total = reports[0].chunks_count
        output.note(f"{differing} of {total} chunks came back altered or not at all")
    if differing or any(report.verdicts["failed"] for report in reports):
        context.exit(ExitCode.NEGATIVE)


@service.command("list")
@_state_dir
@pass_output
def list_services(output: Output, state_dir: Path | None) -> None:
    """List the bundled services, and those that run on this machine as this user."""
    from packetcloud.services.catalogue import bundled_services
    from packetcloud.services.state_dir import default_state_dir, running_services

    bundled = [found.manifest.service for found in bundled_services()]
    running = running_services(state_dir or default_state_dir())
    document = {
        "bundled": [item.model_dump(include={"name", "version", "summary"}) for item in bundled],
        "running": running,
    }
    tables = [
        Table(
            ("Name", "Version", "Summary"),
            [(item.name, item.version, item.summary) for item in bundled],
            "Bundled",
        ),
        Table(
            ("Name", "SID", "VI", "State", "Attached", "PID", "Restarts", "Answered", "Last end"),
            [row for status in running for row in _running_rows(status)],
            "Running",
        ),
    ]
    output.report(document, tables if running else tables[:1])
    if not running:
        output.note("no service is running")


@service.command()
@click.argument("name")
@click.option(
    "--in",
    "parent",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="Where its folder is made. [default: here]",
)
@pass_output
def new(output: Output, name: str, parent: Path) -> None:
    """Make the folder NAME with a service to start from: manifest, module and test."""
    from packetcloud.services.scaffold import create_service

    files = create_service(name, parent)
    output.record({"service": name, "manifest": str(files[0]), "folder": str(files[0].parent)})
    output.note(f"try it: packetcloud service test {files[0]} --generate text --count 4")


def _supervise(
    plan: LaunchPlan, replicas: int, status_file: StatusFile, standby: bool
) -> tuple[int, str]:
    from packetcloud.services.isolation import ProcessIsolation
    from packetcloud.services.supervision import supervise

    return supervise(
        plan.spec,
        plan.policy,
        replicas,
        status_file,
        plan.facts(),
        lambda reactor: ProcessIsolation(reactor, keep_ready=standby),
    )


def _trial_table(reports: list[TrialReport]) -> Table:
    columns = (
        *("Service", "Setting", "Chunks", "In MiB", "Ratio"),
        *("p50 ms", "p99 ms", "max ms", "MiB/s", "Verdicts"),
    )
    rows = [
        (
            report.service,
            report.direction or None,
            report.chunks_count,
            report.input_bytes / (1 << 20),
            report.ratio,
            report.percentile_ms(0.5),
            report.percentile_ms(0.99),
            report.percentile_ms(1.0),
            report.throughput_mib_s,
            ", ".join(f"{word} {count}" for word, count in report.verdicts.items()),
        )
        for report in reports
    ]
    return Table(columns, rows)


def _reasons_tables(reports: list[TrialReport]) -> list[Table]:
    rows = [
        (report.direction or report.service, reason, count)
        for report in reports
        for reason, count in report.reasons.items()
    ]
    return [Table(("Run", "Reason", "Chunks"), rows)] if rows else []


def _running_rows(status: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            status["service"],
            status["sid"][:8],
            replica.get("replica"),
            replica.get("state"),
            replica.get("attachment") == "attached",
            replica.get("pid"),
            replica.get("restarts", 0),
            sum(replica.get("answered", {}).values()),
            replica.get("last_error") or replica.get("last_exit") or None,
        )
        for replica in status["replicas"]
    ]
