"""`packetcloud vi`: the VIs of a running cloudlet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.cloudlet import controller_url, open_client, operation
from packetcloud.cli.output import Output, Table, pass_output

if TYPE_CHECKING:
    from packetcloud.cloudlet.client import CloudletClient
    from packetcloud.cloudlet.schemas import OperationInfo, ViInfo

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
    status, launch = values.pop("status"), values.pop("launch")
    record, evidence = values.pop("record"), values.pop("evidence")
    egress = values.pop("egress")
    counts = [f"{kind} {count}" for kind, count in values["violations"].items()]
    values["violations"] = ", ".join(counts) or "none"
    if values["restricted_until_s"] is not None:
        values["restricted_until_s"] = _time_of(values["restricted_until_s"])
    tables = [Table(("", ""), _rows(values))]
    if egress is not None:
        rows = [(text, "") for text in egress.pop("granted")]
        egress["listens"] = ", ".join(map(str, egress["listens"])) or "none"
        tables.append(Table(("In the IP network", ""), [*rows, *_rows(egress)]))
    if evidence:
        seen = [(one["kind"], one["chunk_id"], one["source"], one["text"]) for one in evidence]
        tables.append(Table(("Last violations", "Chunk", "Source", ""), seen))
    if record:
        marks = [(_time_of(one["at_s"]), one["text"]) for one in record]
        tables.append(Table(("Record", ""), marks))
    if launch is not None:
        tables.append(Table(("Its launch", "Seconds"), _rows(launch["took_s"])))
    if status:
        tables.append(Table(("Its own words", ""), _rows(status)))
    output.report(found.model_dump(), tables)


@vi.command()
@click.argument("service")
@click.option("--type", "vi_type", help="VI type. [default: the service's]")
@click.option("--node", help="On this node. [default: the least loaded]")
@operation
def launch(
    client: CloudletClient, service: str, vi_type: str | None, node: str | None
) -> OperationInfo:
    """Launch one VI more for SERVICE, which then should have one more until it scales."""
    return client.launch(service, vi_type, node)


@vi.command()
@_number
@click.argument("vi_type", metavar="TYPE")
@operation
def resize(client: CloudletClient, number: int, vi_type: str) -> OperationInfo:
    """Make a VI one of TYPE while it runs; where its node has no room, somebody moves."""
    return client.resize(number, vi_type)


@vi.command()
@_number
@click.option("--to", "node", metavar="NODE", help="To this node. [default: the least loaded]")
@operation
def migrate(client: CloudletClient, number: int, node: str | None) -> OperationInfo:
    """Move a VI to another node, with its state; chunks wait a moment and none is lost."""
    return client.migrate(number, node)


@vi.command()
@_number
@operation
def drain(client: CloudletClient, number: int) -> OperationInfo:
    """Stop a VI when it has finished its tasks; it gets no new ones and is not replaced."""
    return client.stop(number, drain=True)


@vi.command()
@_number
@operation
def stop(client: CloudletClient, number: int) -> OperationInfo:
    """Stop a VI; what it has not finished goes to others, and it is not replaced."""
    return client.stop(number, drain=False)


@vi.command()
@_number
@operation
def restart(client: CloudletClient, number: int) -> OperationInfo:
    """Start a VI again, also out of quarantine and restrictions."""
    return client.restart(number)


@vi.command()
@_number
@controller_url
@pass_output
def logs(output: Output, number: int, url: str, timeout: float) -> None:
    """Print the end of what a VI wrote to its console."""
    with open_client(url, timeout) as client:
        output.text(client.logs(number))


def _time_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _rows(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name.replace("_", " "), value) for name, value in values.items()]


def _state_of(one: ViInfo) -> str:
    words = [one.state]
    words += [one.role] if one.role in ("twin", "standby") else []
    words += ["restricted"] if one.is_restricted else []
    words += ["leaving"] if one.is_leaving else ["draining"] if one.is_draining else []
    return ", ".join(words)
