"""`packetcloud usage`: what was used, as the cloudlets metered it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packetcloud.cli.domain_client import DomainAccess, domain_options, time_of
from packetcloud.cli.output import ExitCode, Output, Table, pass_output

if TYPE_CHECKING:
    from packetcloud.domain_controller.api.answered import UsageInfo


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
) -> ExitCode:
    """List usage records: what VIs held and were given, as the cloudlets metered and signed it.

    Exit code 1: a signature is not that of the record by its cloudlet.
    """
    from packetcloud.domain_controller.api.answered import CloudletInfo, UsagePage

    found = []
    with access.open() as client:
        query = {"reservation": reservation, "limit": min(most, 500)}
        for page in client.all_pages(UsagePage, "/v1/usage", **query):
            found += page.records
            if len(found) >= most:
                break
        del found[most:]
        keys = {
            name: client.get(CloudletInfo, f"/v1/cloudlets/{name}").public_keys
            for name in sorted({one.cloudlet for one in found})
        }
    wrong = [_why_not_signed(one, keys[one.cloudlet]) for one in found]
    columns = ("Cloudlet", "Meter", "Number", "Reservation", "Kind", "From", "Until", "Quantity")
    rows = [
        (
            *(one.cloudlet, one.meter, one.number, one.reservation, one.kind),
            *(time_of(one.begin_ms), time_of(one.end_ms), one.quantity),
            ("yes" if one.signature is not None and not why else why or "no"),
        )
        for one, why in zip(found, wrong, strict=True)
    ]
    output.report([one.model_dump() for one in found], [Table((*columns, "Signed"), rows)])
    return ExitCode.NEGATIVE if any(wrong) else ExitCode.FINE


def _why_not_signed(info: UsageInfo, keys: list[str]) -> str:
    """Return what is wrong with a signature; empty: it is right, or there is none."""
    from packetcloud.domain_controller.core.documents import from_document
    from packetcloud.domain_controller.core.usage import RecordSignature, UsageRecord
    from packetcloud.domain_controller.usage_signatures import why_not_signed

    if info.signature is None or info.public_key is None:
        return ""
    fields = info.model_dump(exclude={"digest", "signature", "public_key"})
    signature = RecordSignature(bytes.fromhex(info.public_key), bytes.fromhex(info.signature))
    record = from_document(UsageRecord, fields, "record")
    return why_not_signed(record, signature, [bytes.fromhex(key) for key in keys])
