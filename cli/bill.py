"""`packetcloud bill`: bills of a domain, and their check from the records that they are made of."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.domain_client import DomainAccess, domain_options, money_of, time_of
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, PublicKeyType, TimeType

if TYPE_CHECKING:
    from packetcloud.domain_controller.api.answered import BillInfo
    from packetcloud.domain_controller.client import DomainClient


@click.group()
def bill() -> None:
    """List and show bills, close them, and compute them again from their records."""


@bill.command("list")
@domain_options
@pass_output
def list_bills(output: Output, access: DomainAccess) -> None:
    """List bills, the newest first."""
    from packetcloud.domain_controller.api.answered import BillPage

    with access.open() as client:
        found = [one for page in client.all_pages(BillPage, "/v1/bills") for one in page.bills]
    rows = [
        (
            one.id,
            one.tenant,
            time_of(one.begin_ms),
            time_of(one.end_ms),
            money_of(one.total_micros, one.currency),
        )
        for one in found
    ]
    columns = ("ID", "Tenant", "From", "Until", "Total")
    output.report([one.model_dump() for one in found], [Table(columns, rows)])


@bill.command()
@click.argument("bill_id", metavar="BILL")
@domain_options
@pass_output
def show(output: Output, bill_id: str, access: DomainAccess) -> None:
    """Show the lines of one bill."""
    from packetcloud.domain_controller.api.answered import BillInfo

    with access.open() as client:
        _print(output, client.get(BillInfo, f"/v1/bills/{bill_id}"))


@bill.command()
@click.argument("tenant")
@click.option("--until", type=TimeType(), help="What was used before. [default: now]")
@domain_options
@pass_output
def close(
    output: Output,
    tenant: str,
    until: float | None,
    access: DomainAccess,
) -> None:
    """Close a bill of all that TENANT used and that is on no bill yet."""
    from packetcloud.domain_controller.api.answered import BillInfo

    end_ms = int((time.time() if until is None else until) * 1000)
    with access.open() as client:
        body = {"tenant": tenant, "end_ms": end_ms}
        _print(output, client.make(BillInfo, "/v1/bills", body))


@bill.command()
@click.argument("bill_id", metavar="BILL")
@click.argument("file", type=FILE)
@domain_options
@pass_output
def save(
    output: Output,
    bill_id: str,
    file: Path,
    access: DomainAccess,
) -> None:
    """Write one bill to FILE, with records and terms: all that `bill verify` needs."""
    with access.open() as client:
        bundle = _bundle(client, bill_id)
    file.write_text(json.dumps(bundle, indent=1) + "\n")
    count = len(bundle["records"])
    output.record({"bill": bill_id, "records": count, "file": str(file)})


@bill.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@click.option(
    "--cloudlet-key",
    "keys",
    multiple=True,
    type=(str, PublicKeyType()),
    metavar="CLOUDLET PUBKEY|FILE",
    help="Trust this key of a cloudlet, instead of those that the domain controller said it has; "
    "may be repeated.",
)
@pass_output
def verify(
    output: Output, files: tuple[Path, ...], keys: tuple[tuple[str, bytes], ...]
) -> ExitCode:
    """Compute bills again from their records, without asking anybody, and check that each record is
    signed by its cloudlet.

    Give the files of all bills of a tenant, the first one first: a bill names the one before it,
    and what it adds to. Exit code 1: something differs, and the text says what.
    """
    from packetcloud.domain_controller.bundles import read_bundle, verify_bundles

    trusted: dict[str, set[bytes]] = {}
    for cloudlet, key in keys:
        trusted.setdefault(cloudlet, set()).add(key)
    verdicts = verify_bundles([read_bundle(file) for file in files], trusted)
    rows = [
        (verdict.name, "right" if not verdict.findings else "wrong", verdict.total)
        for verdict in verdicts
    ]
    found = [(verdict.name, text) for verdict in verdicts for text in verdict.findings]
    document = [
        {"bill": one.name, "is_right": not one.findings, "findings": one.findings}
        for one in verdicts
    ]
    tables = [Table(("Bill", "Computed", "Total"), rows)]
    output.report(document, [*tables, *([Table(("Bill", "Finding"), found)] if found else [])])
    return ExitCode.NEGATIVE if found else ExitCode.FINE


def _bundle(client: DomainClient, bill_id: str) -> dict[str, Any]:
    from packetcloud.domain_controller.api.answered import (
        BillInfo,
        CloudletInfo,
        TermsInfo,
        UsagePage,
    )
    from packetcloud.domain_controller.bundles import FORMAT

    info = client.get(BillInfo, f"/v1/bills/{bill_id}")
    document: Any = info.document
    names = [one["reservation"] for one in document["records"]]
    records = [
        one.model_dump(exclude={"digest"})
        for name in names
        for page in client.all_pages(
            UsagePage, "/v1/usage", reservation=name, bill=info.number, limit=500
        )
        for one in page.records
    ]
    terms = {name: client.get(TermsInfo, f"/v1/reservations/{name}/terms").terms for name in names}
    keys = {
        name: client.get(CloudletInfo, f"/v1/cloudlets/{name}").public_keys
        for name in sorted({one["cloudlet"] for one in records})
    }
    return {
        "format": FORMAT,
        "bill": info.document,
        "records": records,
        "terms": terms,
        "cloudlet_keys": keys,
    }


def _print(output: Output, info: BillInfo) -> None:
    document: Any = info.document
    facts = [
        ("bill", info.id),
        ("tenant", info.tenant),
        ("from", time_of(info.begin_ms)),
        ("until", time_of(info.end_ms)),
        ("sum of the lines", money_of(document["exact_micros"], info.currency)),
        ("total", money_of(info.total_micros, info.currency)),
        ("digest", info.digest),
    ]
    rows = [
        (*line["item"], line["before"], line["quantity"], money_of(line["micros"], info.currency))
        for line in document["lines"]
    ]
    columns = (
        *("Reservation", "Cloudlet", "Terms", "Meter", "Band"),
        *("Before", "Quantity", "Amount"),
    )
    output.report(info.model_dump(), [Table(("", ""), facts), Table(columns, rows)])
