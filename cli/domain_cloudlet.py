"""`packetcloud cloudlet admit|list|show|open|close|key`: the cloudlets of a domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packetcloud.cli import domain_keys
from packetcloud.cli.domain_client import DomainAccess, domain_options, time_of
from packetcloud.cli.output import Output, Table, pass_output
from packetcloud.cli.params import PublicKeyType

if TYPE_CHECKING:
    from packetcloud.domain_controller.api.answered import CloudletInfo, ResourcesInfo


@click.command()
@click.argument("name")
@click.option("--region", required=True, help="Where it is; tenants may ask for a region.")
@click.option(
    "--public-key",
    required=True,
    type=PublicKeyType(),
    help="Of its controller, which dials in: 64 hexadecimal digits, or a key file.",
)
@click.option(
    "--isp-share",
    default=0,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="So many thousandths of each node are the ISP's own.",
)
@domain_options
@pass_output
def admit(
    output: Output,
    name: str,
    region: str,
    public_key: bytes,
    isp_share: int,
    access: DomainAccess,
) -> None:
    """Admit the cloudlet NAME to a domain: its controller may dial in with its key."""
    from packetcloud.domain_controller.api.answered import CloudletInfo

    body = {
        "name": name,
        "region": region,
        "public_key": public_key.hex(),
        "isp_share_permille": isp_share,
    }
    with access.open() as client:
        _print(output, client.make(CloudletInfo, "/v1/cloudlets", body))


@click.command("list")
@domain_options
@pass_output
def list_cloudlets(output: Output, access: DomainAccess) -> None:
    """List the cloudlets of a domain and what they last said of themselves."""
    from packetcloud.domain_controller.api.answered import CloudletList

    with access.open() as client:
        found = client.get(CloudletList, "/v1/cloudlets").cloudlets
    columns = ("Name", "Region", "Connected", "Open", "Report s ago", "CPUs", "Reserved", "Free")
    rows = [
        (
            *(one.name, one.region, one.is_connected, one.is_open),
            None if one.report_age_ms is None else one.report_age_ms / 1000,
            one.capacity.milli_cpus / 1000,
            one.reserved.milli_cpus / 1000,
            one.available.milli_cpus / 1000,
        )
        for one in found
    ]
    output.report([one.model_dump() for one in found], [Table(columns, rows)])


@click.command()
@click.argument("name")
@domain_options
@pass_output
def show(output: Output, name: str, access: DomainAccess) -> None:
    """Show the cloudlet NAME of a domain, and for its operator the nodes."""
    from packetcloud.domain_controller.api.answered import CloudletInfo

    with access.open() as client:
        _print(output, client.get(CloudletInfo, f"/v1/cloudlets/{name}"))


@click.command("open")
@click.argument("name")
@domain_options
@pass_output
def open_cloudlet(output: Output, name: str, access: DomainAccess) -> None:
    """Let the cloudlet NAME get new reservations again."""
    _set_open(output, name, True, access)


@click.command("close")
@click.argument("name")
@domain_options
@pass_output
def close_cloudlet(output: Output, name: str, access: DomainAccess) -> None:
    """Let the cloudlet NAME get no new reservations; those that it has go on."""
    _set_open(output, name, False, access)


@click.group()
def key() -> None:
    """List, add and revoke the keys with which a cloudlet dials in."""


@key.command("list")
@click.argument("name")
@domain_options
@pass_output
def list_keys(output: Output, name: str, access: DomainAccess) -> None:
    """List the keys with which the cloudlet NAME may dial in."""
    from packetcloud.domain_controller.api.answered import KeyList

    with access.open() as client:
        keys = client.get(KeyList, f"/v1/cloudlets/{name}/keys").keys
    rows = [(one.key_id, time_of(one.from_ms), time_of(one.until_ms)) for one in keys]
    output.report([one.model_dump() for one in keys], [Table(("Key ID", "From", "Until"), rows)])


@key.command("add")
@domain_keys.new_key
@domain_options
@pass_output
def add_key(
    output: Output, name: str, public_key: bytes, until: float | None, access: DomainAccess
) -> None:
    """Let the cloudlet NAME dial in with PUBLIC_KEY (64 hexadecimal digits, or a key file) too."""
    domain_keys.add(output, access, "cloudlet", name, public_key, until)


@key.command()
@click.argument("name")
@click.argument("key_id")
@domain_options
@pass_output
def revoke(output: Output, name: str, key_id: str, access: DomainAccess) -> None:
    """Let the cloudlet NAME dial in with the key KEY_ID no more; an open channel ends soon."""
    domain_keys.revoke(output, access, "cloudlet", name, key_id)


COMMANDS = (admit, list_cloudlets, show, open_cloudlet, close_cloudlet, key)
"""What the noun `cloudlet` gets of a domain."""


def _set_open(
    output: Output,
    name: str,
    is_open: bool,
    access: DomainAccess,
) -> None:
    from packetcloud.domain_controller.api.answered import CloudletInfo

    with access.open() as client:
        path = f"/v1/cloudlets/{name}"
        _print(output, client.change(CloudletInfo, "PATCH", path, {"is_open": is_open}))


def _print(output: Output, info: CloudletInfo) -> None:
    facts = [
        ("cloudlet", info.name),
        ("region", info.region),
        ("open", info.is_open),
        ("connected", info.is_connected),
        ("report, s ago", None if info.report_age_ms is None else info.report_age_ms / 1000),
        ("the ISP's share", f"{info.isp_share_permille / 10:g} %"),
    ]
    amounts = [
        (word, *_amounts(amount))
        for word, amount in (
            ("capacity", info.capacity),
            ("reserved", info.reserved),
            ("available", info.available),
        )
    ]
    kinds = ("CPUs", "Memory MiB", "Disk MiB", "IO per s")
    tables = [Table(("", ""), facts), Table(("All nodes", *kinds), amounts)]
    if info.nodes:
        rows = [
            (
                one.name,
                one.is_usable,
                *_amounts(one.available),
                ", ".join(f"{vi.count} {vi.vi_type}" for vi in one.vis),
            )
            for one in info.nodes
        ]
        tables.append(Table(("Node", "Usable", *(f"{kind} free" for kind in kinds), "VIs"), rows))
    output.report(info.model_dump(), tables)


def _amounts(amount: ResourcesInfo) -> tuple[float, int, int, int]:
    return (
        amount.milli_cpus / 1000,
        amount.memory_bytes >> 20,
        amount.disk_bytes >> 20,
        amount.io_per_s,
    )
