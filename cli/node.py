"""`packetcloud node`: the compute nodes of a running cloudlet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from packetcloud.cli.cloudlet import config_file, controller_url, open_client, operation
from packetcloud.cli.output import Output, Table, pass_output

if TYPE_CHECKING:
    from packetcloud.cloudlet.client import CloudletClient
    from packetcloud.cloudlet.schemas import OperationInfo

_GIB = 1 << 30


@click.group()
def node() -> None:
    """List the compute nodes of a running cloudlet, empty them, prepare others."""


@node.command("list")
@click.option("--protections", is_flag=True, help="What protects each node from its VIs, instead.")
@controller_url
@pass_output
def list_nodes(output: Output, protections: bool, url: str, timeout: float) -> None:
    """List the compute nodes: what each has, what is reserved, what is left.

    For tenants is left what neither VIs have nor the ISP has set aside for itself.
    """
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
            *("Node", "State", "VIs", "CPUs", "CPUs left", "for tenants"),
            *("Memory GiB", "Memory left", "for tenants", "Disk GiB", "Disk left", "for tenants"),
            "Remark",
        )
        rows = [
            (
                one.name,
                one.state,
                len(one.vis),
                one.capacity.cpus,
                one.available.cpus,
                one.available_to_third_parties.cpus,
                one.capacity.memory_bytes / _GIB,
                one.available.memory_bytes / _GIB,
                one.available_to_third_parties.memory_bytes / _GIB,
                one.capacity.disk_bytes / _GIB,
                one.available.disk_bytes / _GIB,
                one.available_to_third_parties.disk_bytes / _GIB,
                one.text,
            )
            for one in found
        ]
        table = Table(columns, rows)
    output.report([one.model_dump() for one in found], [table])


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--over", is_flag=True, help="It may be used again.")
@operation
def evacuate(client: CloudletClient, name: str, over: bool) -> OperationInfo:
    """Move every VI away from NODE, and let none come until `--over`."""
    return client.evacuate(name, over=over)


@node.command()
@config_file
@click.argument("name", metavar="NODE")
@click.option("--check", "only_check", is_flag=True, help="Change nothing, say what is missing.")
@click.option("--no-lxd", is_flag=True, help="Bridges, tunnels and filters alone.")
@pass_output
def prepare(output: Output, config: Path, name: str, only_check: bool, no_lxd: bool) -> None:
    """Print what makes another machine the NODE of CONFIG: a program for sh, to run there as root.

    It makes bridges, tunnels and filters, LXD's project and pool, and has LXD trust the
    controller; what is there already it leaves. What it prints itself is the certificate of that
    LXD: `packetcloud node prepare c1.toml n2 | ssh root@n2 sh > n2.crt`.
    """
    from packetcloud.cloudlet.config import CloudletConfig
    from packetcloud.cloudlet.node_script import script_for

    loaded = CloudletConfig.load(config)
    output.text(script_for(loaded, name, with_lxd=not no_lxd, only_check=only_check))
