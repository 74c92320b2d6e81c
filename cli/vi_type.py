"""`packetcloud vi-type`: the sizes of VIs that one can reserve in a domain."""

from __future__ import annotations

import click

from packetcloud.cli.domain_client import DomainAccess, domain_options
from packetcloud.cli.output import Output, pass_output
from packetcloud.cli.params import FiniteRange, SizeType


@click.group("vi-type")
def vi_type() -> None:
    """List and set the sizes of VIs that one can reserve in a domain."""


@vi_type.command("list")
@domain_options
@pass_output
def list_types(output: Output, access: DomainAccess) -> None:
    """List the VI types of a domain."""
    from packetcloud.domain_controller.api.answered import ViTypeList

    with access.open() as client:
        types = client.get(ViTypeList, "/v1/vi-types").vi_types
    columns = ("Name", "Milli CPUs", "Memory bytes", "Disk bytes", "IO per s", "Price tier")
    output.table(columns, [list(one.model_dump().values()) for one in types])


@vi_type.command("set")
@click.argument("name")
@click.option("--cpus", required=True, type=FiniteRange(0.001, 4096), help="Processors.")
@click.option("--memory", required=True, type=SizeType(), help="Bytes, like 512MiB.")
@click.option("--disk", required=True, type=SizeType(), help="Bytes, like 2GiB.")
@click.option("--io", default=0, type=click.IntRange(0), help="Disk operations each second.")
@click.option(
    "--price-tier",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Of the price list.",
)
@domain_options
@pass_output
def set_type(
    output: Output,
    name: str,
    cpus: float,
    memory: int,
    disk: int,
    io: int,
    price_tier: int,
    access: DomainAccess,
) -> None:
    """Set what the VI type NAME is; what is reserved already keeps what it was."""
    from packetcloud.domain_controller.api.answered import ViTypeInfo

    body = {
        "milli_cpus": round(cpus * 1000),
        "memory_bytes": memory,
        "disk_bytes": disk,
        "io_per_s": io,
        "price_tier": price_tier,
    }
    with access.open() as client:
        output.record(client.change(ViTypeInfo, "PUT", f"/v1/vi-types/{name}", body).model_dump())
