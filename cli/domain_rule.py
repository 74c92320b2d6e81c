"""`packetcloud rule publish|published|unpublish`: rules given to routers through a domain."""

from __future__ import annotations

from pathlib import Path

import click

from packetcloud.cli.domain_client import DomainAccess, domain_options, time_of
from packetcloud.cli.output import Output, Table, pass_output
from packetcloud.cli.params import FILE


@click.command()
@click.argument("file", type=FILE)
@click.option("--cloudlet", "cloudlets", multiple=True, help="Only there. Repeatable.")
@domain_options
@pass_output
def publish(
    output: Output,
    file: Path,
    cloudlets: tuple[str, ...],
    access: DomainAccess,
) -> None:
    """Give the signed document of rules in FILE to a domain, for the routers of its cloudlets."""
    from packetcloud.domain_controller.api.answered import RulesInfo

    body = {"document": file.read_text(encoding="utf-8"), "cloudlets": list(cloudlets)}
    with access.open() as client:
        output.record(client.make(RulesInfo, "/v1/rules", body).model_dump())


@click.command()
@domain_options
@pass_output
def published(output: Output, access: DomainAccess) -> None:
    """List the documents of rules that were given to a domain, the newest first."""
    from packetcloud.domain_controller.api.answered import RulesPage

    with access.open() as client:
        found = [one for page in client.all_pages(RulesPage, "/v1/rules") for one in page.rules]
    rows = [
        (
            *(one.id, one.owner, one.set_name, one.serial, one.items),
            ", ".join(one.cloudlets) or "all of its owner's",
            time_of(one.made_ms),
        )
        for one in found
    ]
    columns = ("ID", "Owner", "Set", "Serial", "Items", "Cloudlets", "Since")
    output.report([one.model_dump() for one in found], [Table(columns, rows)])


@click.command()
@click.argument("rules_id", metavar="ID")
@domain_options
@pass_output
def unpublish(output: Output, rules_id: str, access: DomainAccess) -> None:
    """Take a document of rules back from a domain and its routers."""
    from packetcloud.domain_controller.api.answered import RulesInfo

    with access.open() as client:
        gone = client.change(RulesInfo, "DELETE", f"/v1/rules/{rules_id}")
    output.record({"removed": gone.id, "set": gone.set_name})


COMMANDS = (publish, published, unpublish)
"""What the noun `rule` gets of a domain."""
