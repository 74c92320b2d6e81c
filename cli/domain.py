"""`packetcloud domain`: run a domain controller, ask how it is, back it up, give routers rules."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packetcloud.cli.domain_client import DomainAccess, domain_options
from packetcloud.cli.domain_rule import rule
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE

if TYPE_CHECKING:
    from packetcloud.domain_controller.daemon import DomainDaemon
    from packetcloud.domain_controller.state.backup import Sums

_config_file = click.argument("config", type=FILE)


@click.group()
def domain() -> None:
    """Run a domain controller, ask how it is, back it up, give rules to its routers."""


domain.add_command(rule)


@domain.command()
@_config_file
@pass_output
def run(output: Output, config: Path) -> None:
    """Run the domain controller that CONFIG describes until it is stopped.

    SIGTERM or Ctrl-C: what waits to be written is written, then it ends.
    """
    from packetcloud.domain_controller.config import DomainConfig
    from packetcloud.domain_controller.daemon import run_domain

    logging.basicConfig(
        level=logging.WARNING if output.quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    loaded = DomainConfig.load(config)

    def started(daemon: DomainDaemon) -> None:
        facts = {"name": loaded.file.domain.name, "api": daemon.url, "metrics": daemon.watch_url}
        if output.is_json:
            output.record(facts)
        else:
            output.note(f"domain {loaded.file.domain.name}: requests to {daemon.url}")
            output.note(f"its state: packetcloud domain status --url {daemon.url} --key FILE")

    run_domain(loaded, started)


@domain.command()
@_config_file
@pass_output
def check(output: Output, config: Path) -> None:
    """Check CONFIG and the files that it names, and show what the domain would be."""
    from packetcloud.chunk.names import GUID
    from packetcloud.domain_controller.config import DomainConfig

    loaded = DomainConfig.load(config)
    loaded.password()
    operators = [
        {
            "name": one.name,
            "role": one.role,
            "key_id": GUID.from_public_key(bytes.fromhex(one.public_key)).hex,
        }
        for one in loaded.file.operator
    ]
    summary = {
        "name": loaded.file.domain.name,
        "database": loaded.shown_database,
        "listens on": loaded.file.api.listen,
        "TLS": loaded.has_tls,
        "reached as": ", ".join(sorted(loaded.authorities(loaded.listen[1]))),
        "metrics": loaded.file.api.metrics_listen,
        "price lists": len(loaded.file.domain.price_lists),
    }
    document = {key.lower().replace(" ", "_"): value for key, value in summary.items()}
    output.report(
        document | {"operators": operators},
        [
            Table(("", ""), list(summary.items())),
            Table(("Operator", "Role", "Key ID"), [list(one.values()) for one in operators]),
        ],
    )


@domain.command()
@pass_output
def sample(output: Output) -> None:
    """Print a config file with every key, its default and what it does."""
    from packetcloud.domain_controller.config import sample_config

    output.text(sample_config())


@domain.command()
@domain_options
@pass_output
def status(output: Output, access: DomainAccess) -> None:
    """Show how a running domain controller is, and who you are to it."""
    from packetcloud.domain_controller.api.answered import StatusInfo

    with access.open() as client:
        output.record(client.get(StatusInfo, "/v1/status").model_dump())


@domain.command()
@_config_file
@click.argument("file", type=FILE)
@pass_output
def backup(output: Output, config: Path, file: Path) -> None:
    """Copy the database of CONFIG to the new FILE; its controllers go on meanwhile."""
    from packetcloud.domain_controller.state import backup

    _show_sums(output, file, backup.backup(_database_of(config), file))


@domain.command()
@_config_file
@click.argument("file", type=FILE)
@pass_output
def restore(output: Output, config: Path, file: Path) -> None:
    """Fill the database of CONFIG, which must be empty, with the backup in FILE.

    Its kind may be another than that of the database that the backup was made of.
    """
    from packetcloud.domain_controller.state import backup

    _show_sums(output, file, backup.restore(file, _database_of(config)))


@domain.command()
@_config_file
@pass_output
def audit(output: Output, config: Path) -> ExitCode:
    """Look through the database of CONFIG: journal, usage, accounts. Exit code 1: one is wrong.

    The controller may run meanwhile. Note the digest of the last event somewhere else: with it you
    can show later that nothing before it was taken out.
    """
    from packetcloud.domain_controller.state.audit import audit as audit_of

    found = audit_of(_database_of(config))
    facts = [
        ("events", found.events_count),
        ("digest of the last one", found.head),
        ("usage records", found.records_count),
        ("records that came in two versions", found.evidence_count),
        ("meters with gaps", ", ".join(found.gaps) or None),
        ("journal, usage and accounts", "wrong" if found.findings else "right"),
    ]
    tables = [Table(("", ""), facts)]
    if found.findings:
        tables.append(Table(("Finding",), [(text,) for text in found.findings]))
    document = {
        "events": found.events_count,
        "head": found.head,
        "usage_records": found.records_count,
        "evidence": found.evidence_count,
        "gaps": list(found.gaps),
        "findings": list(found.findings),
    }
    output.report(document, tables)
    return ExitCode.NEGATIVE if found.findings else ExitCode.FINE


def _database_of(config: Path) -> str:
    from packetcloud.domain_controller.config import DomainConfig
    from packetcloud.domain_controller.state.database import with_password

    loaded = DomainConfig.load(config)
    return with_password(loaded.database_url, loaded.password())


def _show_sums(output: Output, file: Path, sums: Sums) -> None:
    """Show what a backup holds: a table, its rows, and SHA-256 over them."""
    rows = [[name, count, sums.digests[name]] for name, count in sums.rows.items()]
    output.report(
        {"file": str(file), "schema": sums.schema, "rows": sums.rows, "digests": sums.digests},
        [Table(("Table", "Rows", "SHA-256"), rows)],
    )
