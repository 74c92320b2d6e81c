"""`packetcloud usage`: what was used, as the cloudlets metered it."""

from __future__ import annotations

import click

from packetcloud.cli.domain_client import DomainAccess, domain_options, time_of
from packetcloud.cli.output import Output, Table, pass_output


@click.command()
@click.option("--reservation", help="Of this reservation only.")
@click.option("--most", default=100, show_default=True, type=click.IntRange(1), help="So many.")
@domain_options
@pass_output
def usage(
    output: Output,
    reservation: str | None,
    most: int,
    access: DomainAccess,
) -> None:
    """List usage records: what VIs held and were given, as the cloudlets metered it."""
    from packetcloud.domain_controller.api.answered import UsagePage

    found = []
    with access.open() as client:
        query = {"reservation": reservation, "limit": min(most, 500)}
        for page in client.all_pages(UsagePage, "/v1/usage", **query):
            found += page.records
            if len(found) >= most:
                break
    columns = ("Cloudlet", "Meter", "Number", "Reservation", "Kind", "From", "Until", "Quantity")
    rows = [
        (
            *(one.cloudlet, one.meter, one.number, one.reservation, one.kind),
            *(time_of(one.begin_ms), time_of(one.end_ms), one.quantity),
        )
        for one in found[:most]
    ]
    output.report([one.model_dump() for one in found[:most]], [Table(columns, rows)])
