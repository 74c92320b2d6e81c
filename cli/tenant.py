"""`packetcloud tenant`: tenants of a domain, and the keys that sign for them."""

from __future__ import annotations

import click

from packetcloud.cli import domain_keys
from packetcloud.cli.domain_client import DomainAccess, domain_options, time_of
from packetcloud.cli.output import Output, Table, pass_output
from packetcloud.cli.params import PublicKeyType


@click.group()
def tenant() -> None:
    """Register tenants of a domain, and the keys that sign for them."""


@tenant.command()
@click.argument("name")
@click.option("--title", default="", help="For people, and on bills.")
@click.option(
    "--public-key", type=PublicKeyType(), help="Its first key: 64 hexadecimal digits, or a file."
)
@domain_options
@pass_output
def add(
    output: Output,
    name: str,
    title: str,
    public_key: bytes | None,
    access: DomainAccess,
) -> None:
    """Register the tenant NAME, with a key of its own."""
    from packetcloud.domain_controller.api.answered import KeyInfo, TenantInfo

    with access.open() as client:
        made = client.make(TenantInfo, "/v1/tenants", {"name": name, "title": title})
        facts = made.model_dump()
        if public_key is not None:
            body = {"public_key": public_key.hex()}
            facts["key_id"] = client.make(KeyInfo, f"/v1/tenants/{name}/keys", body).key_id
    output.record(facts)
    if public_key is None:
        output.note(f"it cannot sign yet: packetcloud tenant key add {name} PUBKEY")


@tenant.command("list")
@domain_options
@pass_output
def list_tenants(output: Output, access: DomainAccess) -> None:
    """List the tenants; a tenant sees itself."""
    from packetcloud.domain_controller.api.answered import TenantPage

    with access.open() as client:
        pages = client.all_pages(TenantPage, "/v1/tenants")
        rows = [(one.name, one.title, one.is_open) for page in pages for one in page.tenants]
    output.table(("Name", "Title", "Open"), rows)


@tenant.command()
@click.argument("name")
@domain_options
@pass_output
def show(output: Output, name: str, access: DomainAccess) -> None:
    """Show the tenant NAME and its keys."""
    from packetcloud.domain_controller.api.answered import KeyList, TenantInfo

    with access.open() as client:
        info = client.get(TenantInfo, f"/v1/tenants/{name}")
        keys = client.get(KeyList, f"/v1/tenants/{name}/keys").keys
    rows = [(one.key_id, time_of(one.from_ms), time_of(one.until_ms)) for one in keys]
    output.report(
        info.model_dump() | {"keys": [one.model_dump() for one in keys]},
        [
            Table(("", ""), list(info.model_dump().items())),
            Table(("Key ID", "From", "Until"), rows),
        ],
    )


@tenant.command()
@click.argument("name")
@domain_options
@pass_output
def suspend(output: Output, name: str, access: DomainAccess) -> None:
    """Let the tenant NAME ask for nothing new; what it has goes on."""
    _set_open(output, name, False, access)


@tenant.command()
@click.argument("name")
@domain_options
@pass_output
def resume(output: Output, name: str, access: DomainAccess) -> None:
    """Let the tenant NAME ask for something new again."""
    _set_open(output, name, True, access)


@tenant.group()
def key() -> None:
    """Add and revoke the keys that sign for a tenant."""


@key.command("add")
@domain_keys.new_key
@domain_options
@pass_output
def add_key(
    output: Output, name: str, public_key: bytes, until: float | None, access: DomainAccess
) -> None:
    """Let PUBLIC_KEY (64 hexadecimal digits, or a key file) sign for the tenant NAME."""
    domain_keys.add(output, access, "tenant", name, public_key, until)


@key.command()
@click.argument("name")
@click.argument("key_id")
@domain_options
@pass_output
def revoke(output: Output, name: str, key_id: str, access: DomainAccess) -> None:
    """Let the key KEY_ID sign no more for the tenant NAME, for ever."""
    domain_keys.revoke(output, access, "tenant", name, key_id)


def _set_open(
    output: Output,
    name: str,
    is_open: bool,
    access: DomainAccess,
) -> None:
    from packetcloud.domain_controller.api.answered import TenantInfo

    with access.open() as client:
        body = {"is_open": is_open}
        output.record(client.change(TenantInfo, "PATCH", f"/v1/tenants/{name}", body).model_dump())
