"""`packetcloud node`: the compute nodes of a running cloudlet."""

from __future__ import annotations

import click

from packetcloud.cli.cloudlet import controller_url, open_client, report_end, waiting
from packetcloud.cli.output import ExitCode, Output, Table, pass_output

_GIB = 1 << 30


@click.group()
def node() -> None:
    """List the compute nodes of a running cloudlet, and empty them."""


@node.command("list")
@click.option("--protections", is_flag=True, help="What protects each node from its VIs, instead.")
@controller_url
@pass_output
def list_nodes(output: Output, protections: bool, url: str, timeout: float) -> None:
    """List the compute nodes: what each has, what is reserved, what is left."""
    with open_client(url, timeout) as client:
        found = client.nodes()
    if protections:
        rows: list[tuple[object, ...]] = [
            (one.name, each.name, each.is_active, each.cost, each.remedy)
            for one in found
            for each in one.protections
        ]
        table = Table(("Node", "Protection", "Active", "Without it", "How to get it"), rows)
    else:
        columns = (
            *("Node", "State", "VIs", "CPUs", "CPUs left", "Memory GiB", "Memory left"),
            *("Disk GiB", "Disk left", "Remark"),
        )
        rows = [
            (
                one.name,
                one.state,
                len(one.vis),
                one.capacity.cpus,
                one.available.cpus,
                one.capacity.memory_bytes / _GIB,
                one.available.memory_bytes / _GIB,
                one.capacity.disk_bytes / _GIB,
                one.available.disk_bytes / _GIB,
                one.text,
            )
            for one in found
        ]
        table = Table(columns, rows)
    output.report([one.model_dump() for one in found], [table])


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--over", is_flag=True, help="It may be used again.")
@waiting
@controller_url
@pass_output
def evacuate(
    output: Output,
    name: str,
    over: bool,
    is_waiting: bool,
    limit: float,
    url: str,
    timeout: float,
) -> ExitCode:
    """Move every VI away from NODE, and let none come until `--over`."""
    with open_client(url, timeout) as client:
        begun = client.evacuate(name, over=over)
        return report_end(output, client, begun, is_waiting, limit)
