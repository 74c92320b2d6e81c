"""`packetcloud router`: run a router, check its config, ask how it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, ROUTER, SECONDS

if TYPE_CHECKING:
    from packetcloud.router.daemon import RouterDaemon
    from packetcloud.router.status import RouterStatus

_config_file = click.argument("config", type=FILE)


@click.group()
def router() -> None:
    """Run a router, check its config, ask how it is."""


@router.command()
@_config_file
@pass_output
def run(output: Output, config: Path) -> None:
    """Run the router that CONFIG describes until it is stopped.

    SIGTERM or Ctrl-C: no more chunks are taken, what is held leaves, then it stops; a second one
    stops it at once. SIGHUP: services, names, neighbours and hosts are read again.
    """
    from packetcloud.router.config import RouterConfig
    from packetcloud.router.daemon import run_router
    from packetcloud.router.state import format_address

    logging.basicConfig(
        level=logging.WARNING if output.quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )

    def started(daemon: RouterDaemon) -> None:
        listen = format_address(daemon.hop.address)
        control = f"http://{format_address(daemon.management.address)}"
        settings = daemon.core.settings
        if output.is_json:
            names = {"name": settings.name, "guid": settings.guid.hex, "na": settings.na.value}
            output.record({**names, "listen": listen, "control": control})
        else:
            output.note(f"router {settings.name} {settings.guid} listens on {listen}")
            output.note(f"its state: packetcloud router status --url {control}")

    run_router(RouterConfig.load(config), started)


@router.command()
@_config_file
@pass_output
def check(output: Output, config: Path) -> None:
    """Check CONFIG and the key file that it names, and show what the router would be."""
    from packetcloud.router.config import RouterConfig

    loaded = RouterConfig.load(config)
    settings, file = loaded.settings, loaded.file
    output.record(
        {
            "name": settings.name,
            "GUID": settings.guid.hex,
            "NA": settings.na.value,
            "listen": file.router.listen,
            "control listen": file.router.control_listen,
            "services": len(settings.services),
            "unlisted services": file.services.unlisted,
            "neighbours": len(settings.neighbours),
            "names": len(settings.names),
            "hosts": file.hosts.accept,
        }
    )


@router.command()
@ROUTER
@click.option(
    "--timeout", type=SECONDS, default=5.0, show_default=True, help="Seconds to wait for an answer."
)
@pass_output
@click.pass_context
def status(context: click.Context, output: Output, url: str, timeout: float) -> None:
    """Show what a running router has done and holds, its neighbours and services.

    Exit code 1: it runs, but is draining, or its conservation sum does not hold.
    """
    from packetcloud.router.status import fetch_status

    found = fetch_status(url, timeout)
    output.report(found.document, _tables(found))
    context.exit(ExitCode.FINE if found.is_fine else ExitCode.NEGATIVE)


def _tables(found: RouterStatus) -> list[Table]:
    info, sums = found.info, found.info.conservation
    state = "draining" if info.is_draining else "ready"
    summary: list[tuple[str, object]] = [
        ("router", f"{info.name} {info.guid}"),
        ("NA", info.na),
        ("state", state),
        ("listens on", info.listen),
        ("up for", f"{info.uptime_s:.0f} s"),
        ("held bytes", f"{info.held_bytes:,} of {info.store_bytes:,}"),
        ("reports sent", info.reports_sent),
    ]
    if info.reload is not None:
        summary.append(("config read again", info.reload.detail))
    tables = [
        Table(("", ""), summary),
        Table(
            ("Chunks", "Count"),
            [(name.replace("_", " "), count) for name, count in sums.model_dump().items()],
        ),
    ]
    reasons = [
        (what, reason, count)
        for what, counts in (
            ("refused at the door", info.refused_at_door),
            ("refused", info.refused),
            ("expired", info.expired),
            ("dropped by", info.dropped),
        )
        for reason, count in counts.items()
    ]
    if reasons:
        tables.append(Table(("Not delivered", "Reason", "Count"), reasons))
    tables.append(
        Table(
            ("Neighbour", "Role", "Address", "Up", "Queued bytes", "Waiting"),
            [
                (one.guid, one.role, one.address, one.is_up, one.queued_bytes, one.waiting)
                for one in found.neighbours
            ],
        )
    )
    if found.services:
        tables.append(
            Table(
                (
                    "Service",
                    "VIs",
                    "Tasks",
                    "Waiting",
                    "Missed",
                    "Penalty p50 ms",
                    "Penalty p99 ms",
                    "Processing p50 ms",
                    "Delivery p50 ms",
                ),
                [
                    (
                        one.name,
                        len(one.vis),
                        one.tasks,
                        one.waiting,
                        one.missed_deadlines,
                        1e3 * one.delay_penalty.p50_s,
                        1e3 * one.delay_penalty.p99_s,
                        1e3 * one.processing.p50_s,
                        1e3 * one.delivery.p50_s,
                    )
                    for one in found.services
                ],
            )
        )
    return tables
