"""Keys that sign for an owner: what `tenant key` and `cloudlet key` share."""

from __future__ import annotations

from typing import Literal

import click

from packetcloud.cli.domain_client import DomainAccess, time_of
from packetcloud.cli.output import Output
from packetcloud.cli.params import PublicKeyType, TimeType, group

Owner = Literal["tenant", "cloudlet"]

new_key = group(
    click.argument("name"),
    click.argument("public_key", type=PublicKeyType()),
    click.option("--until", type=TimeType(), help="The key ends then. [default: in two years]"),
)


def add(
    output: Output,
    access: DomainAccess,
    owner: Owner,
    name: str,
    public_key: bytes,
    until: float | None,
) -> None:
    """Let one more key sign for the owner of this name, until a time in s since 1970."""
    from packetcloud.domain_controller.api.answered import KeyInfo

    body: dict[str, object] = {"public_key": public_key.hex()}
    if until is not None:
        body["until_ms"] = int(until * 1000)
    with access.open() as client:
        made = client.make(KeyInfo, f"/v1/{owner}s/{name}/keys", body)
    output.record({"key id": made.key_id, owner: name, "until": time_of(made.until_ms)})


def revoke(output: Output, access: DomainAccess, owner: Owner, name: str, key_id: str) -> None:
    """Let a key sign for the owner no more."""
    from packetcloud.domain_controller.api.answered import KeyInfo

    with access.open() as client:
        gone = client.change(KeyInfo, "DELETE", f"/v1/{owner}s/{name}/keys/{key_id}")
    output.record({"revoked": gone.key_id, owner: name})
