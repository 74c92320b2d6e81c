"""`packetcloud vi`: the VIs of a running cloudlet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packetcloud.cli.cloudlet import controller_url, open_client, report_end, waiting
from packetcloud.cli.output import ExitCode, Output, Table, pass_output

if TYPE_CHECKING:
    from packetcloud.cloudlet.schemas import ViInfo

_number = click.argument("number", type=click.IntRange(1), metavar="VI")


@click.group()
def vi() -> None:
    """List, launch, resize, move and stop the VIs of a running cloudlet."""


@vi.command("list")
@click.option("--service", help="Those of this service.")
@click.option("--node", help="Those on this node.")
@controller_url
@pass_output
def list_vis(
    output: Output, service: str | None, node: str | None, url: str, timeout: float
) -> None:
    """List the VIs: each with its number, which names it elsewhere."""
    with open_client(url, timeout) as client:
        found = [
            one
            for one in client.vis()
            if service in (None, one.service) and node in (None, one.node)
        ]
    columns = ("VI", "Service", "Node", "Type", "State", "At router", "Tasks", "Restarts", "Remark")
    rows = [
        (
            one.number,
            one.service,
            one.node,
            one.vi_type,
            _state_of(one),
            "attached" if one.is_attached else "-",
            one.tasks,
            one.restarts,
            one.why,
        )
        for one in found
    ]
    output.report([one.model_dump() for one in found], [Table(columns, rows)])


@vi.command()
@_number
@controller_url
@pass_output
def show(output: Output, number: int, url: str, timeout: float) -> None:
    """Show everything that is known of a VI."""
    with open_client(url, timeout) as client:
        found = client.vi(number)
    values = found.model_dump()
    status = values.pop("status")
    tables = [Table(("", ""), [(name.replace("_", " "), value) for name, value in values.items()])]
    if status:
        rows = [(name.replace("_", " "), value) for name, value in status.items()]
        tables.append(Table(("Its own words", ""), rows))
    output.report(found.model_dump(), tables)


@vi.command()
@click.argument("service")
@click.option("--type", "vi_type", help="VI type. [default: the service's]")
@click.option("--node", help="On this node. [default: the least loaded]")
@waiting
@controller_url
@pass_output
def launch(
    output: Output,
    service: str,
    vi_type: str | None,
    node: str | None,
    is_waiting: bool,
    limit: float,
    url: str,
    timeout: float,
) -> ExitCode:
    """Launch one VI more for SERVICE, which then should have one more until it scales."""
    with open_client(url, timeout) as client:
        begun = client.launch(service, vi_type, node)
        return report_end(output, client, begun, is_waiting, limit)


@vi.command()
@_number
@click.argument("vi_type", metavar="TYPE")
@waiting
@controller_url
@pass_output
def resize(
    output: Output,
    number: int,
    vi_type: str,
    is_waiting: bool,
    limit: float,
    url: str,
    timeout: float,
) -> ExitCode:
    """Make a VI one of TYPE while it runs; where its node has no room, somebody moves."""
    with open_client(url, timeout) as client:
        begun = client.resize(number, vi_type)
        return report_end(output, client, begun, is_waiting, limit)


@vi.command()
@_number
@click.option("--to", "node", metavar="NODE", help="To this node. [default: the least loaded]")
@waiting
@controller_url
@pass_output
def migrate(
    output: Output,
    number: int,
    node: str | None,
    is_waiting: bool,
    limit: float,
    url: str,
    timeout: float,
) -> ExitCode:
    """Move a VI to another node, with its state; chunks wait a moment and none is lost."""
    with open_client(url, timeout) as client:
        begun = client.migrate(number, node)
        return report_end(output, client, begun, is_waiting, limit)


@vi.command()
@_number
@waiting
@controller_url
@pass_output
def drain(
    output: Output, number: int, is_waiting: bool, limit: float, url: str, timeout: float
) -> ExitCode:
    """Stop a VI when it has finished its tasks; it gets no new ones and is not replaced."""
    with open_client(url, timeout) as client:
        begun = client.stop(number, drain=True)
        return report_end(output, client, begun, is_waiting, limit)


@vi.command()
@_number
@waiting
@controller_url
@pass_output
def stop(
    output: Output, number: int, is_waiting: bool, limit: float, url: str, timeout: float
) -> ExitCode:
    """Stop a VI; what it has not finished goes to others, and it is not replaced."""
    with open_client(url, timeout) as client:
        begun = client.stop(number, drain=False)
        return report_end(output, client, begun, is_waiting, limit)


@vi.command()
@_number
@waiting
@controller_url
@pass_output
def restart(
    output: Output, number: int, is_waiting: bool, limit: float, url: str, timeout: float
) -> ExitCode:
    """Start a VI again, also out of quarantine and restrictions."""
    with open_client(url, timeout) as client:
        begun = client.restart(number)
        return report_end(output, client, begun, is_waiting, limit)


@vi.command()
@_number
@controller_url
@pass_output
def logs(output: Output, number: int, url: str, timeout: float) -> None:
    """Print the end of what a VI wrote to its console."""
    with open_client(url, timeout) as client:
        output.text(client.logs(number))


def _state_of(one: ViInfo) -> str:
    words = [one.state]
    words += [one.role] if one.role == "twin" else []
    words += ["restricted"] if one.is_restricted else []
    words += ["leaving"] if one.is_leaving else ["draining"] if one.is_draining else []
    return ", ".join(words)
