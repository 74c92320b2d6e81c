"""`packetcloud rule revoke`: take a grant back at a running router."""

from __future__ import annotations

from pathlib import Path

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE
from packetcloud.cli.rule_router import url_options


@click.command()
@click.argument("file", type=FILE)
@click.option("--key", "key_file", type=FILE, help="Key file of who granted; FILE is the grant.")
@click.option("-o", "--out", type=FILE, help="Write the revocation there, and ask no router.")
@url_options
@pass_output
def revoke(
    output: Output, file: Path, key_file: Path | None, out: Path | None, url: str, timeout: float
) -> ExitCode:
    """Take the grant in FILE back: rules that need it go out of force at a running router.

    With --key FILE is the grant, and the key is that of its issuer. Without, FILE is a revocation
    that the issuer wrote with -o; anybody may bring it. Exit code 1 says that it was refused.
    """
    from packetcloud.chunk.errors import GrantError
    from packetcloud.chunk.grants import Grant
    from packetcloud.chunk.identity import load_identity_file
    from packetcloud.chunk.revocations import MAX_REVOCATION_BYTES, Revocation, revoke_grant
    from packetcloud.router.rules.client import RuleClient
    from packetcloud.router.rules.schemas import Refusal

    with file.open("rb") as stream:
        text = stream.read(MAX_REVOCATION_BYTES + 1)
    try:
        if key_file is not None:
            made = revoke_grant(load_identity_file(key_file), Grant.from_text(text))
        else:
            made = Revocation.from_text(text)
    except GrantError as error:
        raise GrantError(f"{file}: {error}") from None
    if out is not None:
        out.write_bytes(made.to_bytes())
        output.record({"grant": made.grant.digest.hex(), "file": str(out)})
        return ExitCode.FINE
    with RuleClient(url, timeout) as client:
        answer = client.revoke(made.to_bytes())
    if isinstance(answer, Refusal):
        facts: list[tuple[str, object]] = [
            ("refused", "the revocation"),
            ("reason", answer.reason),
            ("detail", answer.detail),
        ]
        output.report({"refused": answer.model_dump()}, [Table(("", ""), facts)])
        return ExitCode.NEGATIVE
    facts = [
        ("grant", answer.grant),
        ("revoked", "now" if answer.is_new else "before"),
        ("rules out of force by it", answer.rules),
        ("version in force", answer.version),
    ]
    output.report(answer.model_dump(), [Table(("", ""), facts)])
    return ExitCode.FINE
