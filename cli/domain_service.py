"""`packetcloud service register|registered|unregister`: services of a tenant in a domain."""

from __future__ import annotations

import time
from pathlib import Path

import click

from packetcloud.chunk.names import SID
from packetcloud.cli.domain_client import DomainAccess, domain_options
from packetcloud.cli.output import Output, pass_output
from packetcloud.cli.params import FILE, NameType, TimeType

PROOF_S = 366 * 86400
"""How long a proof lasts for which nobody said it."""


@click.command()
@click.argument("name")
@click.option(
    "--service-key",
    required=True,
    type=FILE,
    help="Key file of the service: its name is the SID, and it proves that. It stays here.",
)
@click.option("--image", required=True, help="Which image its VIs start from.")
@click.option("--until", type=TimeType(), help="The proof lasts so long. [default: a year]")
@domain_options
@pass_output
def register(
    output: Output,
    name: str,
    service_key: Path,
    image: str,
    until: float | None,
    access: DomainAccess,
) -> None:
    """Register the service NAME in a domain, with the proof that its SID is yours."""
    from packetcloud.chunk.identity import load_identity_file
    from packetcloud.domain_controller.api.answered import ServiceInfo, StatusInfo
    from packetcloud.domain_controller.sid_proof import prove_sid

    service = load_identity_file(service_key)
    until_ms = int((time.time() + PROOF_S if until is None else until) * 1000)
    with access.open() as client:
        status = client.get(StatusInfo, "/v1/status")
        proof = prove_sid(service, status.domain, status.caller, until_ms)
        body = {
            "name": name,
            "sid": service.sid.hex,
            "image": image,
            "proof": {
                "public_key": proof.public_key.hex(),
                "until_ms": proof.until_ms,
                "signature": proof.signature.hex(),
            },
        }
        output.record(client.make(ServiceInfo, "/v1/services", body).model_dump())


@click.command()
@domain_options
@pass_output
def registered(output: Output, access: DomainAccess) -> None:
    """List the services that are registered in a domain; a tenant sees its own."""
    from packetcloud.domain_controller.api.answered import ServicePage

    with access.open() as client:
        pages = client.all_pages(ServicePage, "/v1/services")
        found = [one for page in pages for one in page.services]
    rows = [(one.name, one.owner, one.sid, one.image) for one in found]
    output.table(("Name", "Owner", "SID", "Image"), rows)


@click.command()
@click.argument("sid", type=NameType(SID))
@domain_options
@pass_output
def unregister(output: Output, sid: SID, access: DomainAccess) -> None:
    """Remove the service SID from a domain."""
    from packetcloud.domain_controller.api.answered import ServiceInfo

    with access.open() as client:
        gone = client.change(ServiceInfo, "DELETE", f"/v1/services/{sid.hex}")
    output.record({"removed": gone.name, "SID": gone.sid})


COMMANDS = (register, registered, unregister)
"""What the noun `service` gets of a domain."""
