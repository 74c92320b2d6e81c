"""`packetcloud domain rule`: sets of rules given to the routers of a domain's cloudlets."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packetcloud.cli.domain_client import DomainAccess, domain_options, time_of
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE

if TYPE_CHECKING:
    from packetcloud.domain_controller.api.answered import RulesDetail
    from packetcloud.domain_controller.client import DomainClient

LOOK_EVERY_S = 0.5
_ON_THE_WAY = ("pending", "waiting")
_wait = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Seconds to wait until every cloudlet has said what became of it.",
)


@click.group()
def rule() -> None:
    """Give sets of rules to the routers of a domain, see where they are, withdraw them."""


@rule.command()
@click.argument("file", type=FILE)
@click.option("--cloudlet", "cloudlets", multiple=True, help="Only to its router. Repeatable.")
@click.option("--region", "regions", multiple=True, help="Only to those there. Repeatable.")
@_wait
@domain_options
@pass_output
def add(
    output: Output,
    file: Path,
    cloudlets: tuple[str, ...],
    regions: tuple[str, ...],
    wait_s: float,
    access: DomainAccess,
) -> ExitCode:
    """Give the signed document of rules in FILE to routers: those of all cloudlets, or of some.

    It is a whole set (`replace = true`), and takes the place of an older one of its signer. With
    --wait the exit code is 1 unless every router has all of it.
    """
    document = file.read_text(encoding="utf-8")
    with access.open() as client:
        return _give(output, client, document, cloudlets, regions, wait_s)


@rule.command("list")
@domain_options
@pass_output
def list_rules(output: Output, access: DomainAccess) -> None:
    """List the sets of rules of a domain and how far they are, the newest first.

    A set that was withdrawn is listed until no router has it any more.
    """
    from packetcloud.domain_controller.api.answered import RulesPage

    with access.open() as client:
        found = [one for page in client.all_pages(RulesPage, "/v1/rules") for one in page.rules]
    rows = [
        (
            *(one.id, one.owner, one.set_name, one.serial, one.rules, one.state.replace("_", " ")),
            ", ".join((*one.cloudlets, *one.regions)) or "all",
            _counts(one.at.items()),
            time_of(one.until_ms),
        )
        for one in found
    ]
    columns = ("ID", "Owner", "Set", "Serial", "Rules", "State", "For", "Cloudlets", "Until")
    output.report([one.model_dump() for one in found], [Table(columns, rows)])


@rule.command()
@click.argument("rules_id", metavar="ID")
@domain_options
@pass_output
def show(output: Output, rules_id: str, access: DomainAccess) -> None:
    """Show a set of rules, and what became of it at each cloudlet's router."""
    from packetcloud.domain_controller.api.answered import RulesDetail

    with access.open() as client:
        _show(output, client.get(RulesDetail, f"/v1/rules/{rules_id}"))


@rule.command()
@click.argument("rules_id", metavar="ID")
@click.option(
    "--rules-key",
    "rules_key",
    type=FILE,
    required=True,
    help="The key that signed the set: routers let nobody else take its rules out.",
)
@_wait
@domain_options
@pass_output
def withdraw(
    output: Output, rules_id: str, rules_key: Path, wait_s: float, access: DomainAccess
) -> ExitCode:
    """Have a set without rules take the place of a set, at every router that was given it."""
    from packetcloud.chunk.identity import load_identity_file
    from packetcloud.domain_controller.api.answered import RulesDetail
    from packetcloud.router.rules.document import Head
    from packetcloud.router.rules.signed import sign_document

    identity = load_identity_file(rules_key)
    with access.open() as client:
        known = client.get(RulesDetail, f"/v1/rules/{rules_id}")
        if known.signer != identity.guid.hex:
            raise click.UsageError(
                f"--rules-key: {rules_key} has the GUID {identity.guid.hex}, and the set is "
                f"signed by {known.signer}"
            )
        head = Head(known.set_name, known.serial + 1, None, replaces=True)
        signed = io.BytesIO()
        sign_document(io.BytesIO(head.to_bytes()), identity, (), signed)
        return _give(output, client, signed.getvalue().decode(), (), (), wait_s)


def _give(
    output: Output,
    client: DomainClient,
    document: str,
    cloudlets: tuple[str, ...],
    regions: tuple[str, ...],
    wait_s: float,
) -> ExitCode:
    from packetcloud.domain_controller.api.answered import RulesDetail, RulesInfo

    body = {"document": document, "cloudlets": list(cloudlets), "regions": list(regions)}
    made = client.make(RulesInfo, "/v1/rules", body)
    deadline = time.monotonic() + wait_s
    while True:
        now = client.get(RulesDetail, f"/v1/rules/{made.id}")
        if not any(now.at.get(state) for state in _ON_THE_WAY) or time.monotonic() >= deadline:
            break
        time.sleep(LOOK_EVERY_S)
    _show(output, now)
    is_there = set(now.at) <= {"installed"}
    return ExitCode.FINE if is_there or not wait_s else ExitCode.NEGATIVE


def _show(output: Output, one: RulesDetail) -> None:
    facts: list[tuple[str, object]] = [
        ("id", one.id),
        ("owner", one.owner),
        ("set", one.set_name),
        ("serial", one.serial),
        ("signer", one.signer),
        ("rules", one.rules),
        ("state", one.state.replace("_", " ")),
        ("for", ", ".join((*one.cloudlets, *one.regions)) or "all cloudlets"),
        ("until", time_of(one.until_ms)),
        ("at cloudlets", _counts(one.at.items())),
    ]
    tables = [Table(("", ""), facts)]
    if one.cloudlet_states:
        rows = [
            (
                *(at.cloudlet, at.state.value, at.serial, at.accepted, at.refused, at.revoked),
                *(at.text, time_of(at.changed_ms)),
            )
            for at in one.cloudlet_states
        ]
        columns = ("Cloudlet", "State", "Serial", "Rules", "Refused", "Revoked", "Why", "Since")
        tables.append(Table(columns, rows))
    refusals = [
        (at.cloudlet, rule.name, rule.reason, rule.text)
        for at in one.cloudlet_states
        for rule in at.refusals
    ]
    if refusals:
        tables.append(Table(("Cloudlet", "Rule", "Refused", "Why"), refusals))
    output.report(one.model_dump(mode="json"), tables)


def _counts(at: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {state}" for state, count in at) or "none yet"
