"""`packetcloud doctor`: what this machine can do, and how to get the rest."""

from __future__ import annotations

from dataclasses import asdict

import click

from packetcloud.cli.cloudlet import open_client
from packetcloud.cli.output import ExitCode, Output, Table, pass_output

_ASK_S = 10.0
_STYLES = {"ok": "green", "limited": "yellow", "missing": "red"}


@click.command()
@click.option(
    "--cloudlet",
    "url",
    metavar="URL",
    help="Also what protects the nodes of a running cloudlet from their VIs; its management API.",
)
@pass_output
@click.pass_context
def doctor(context: click.Context, output: Output, url: str | None) -> None:
    """Say what this machine can do, and how to get the rest.

    Nothing is changed. The exit code is 1 only where something is missing without which nothing
    of PacketCloud runs.
    """
    from packetcloud.testbed.capabilities import find_capabilities
    from packetcloud.testbed.doctor import State, can_run, diagnose, diagnose_nodes

    findings = diagnose(find_capabilities())
    if url is not None:
        with open_client(url, _ASK_S) as client:
            findings += diagnose_nodes(client.nodes())
    tables = [
        Table(
            ("Looked for", "State", "Found"),
            [(finding.name, finding.state, finding.found) for finding in findings],
            styles=_STYLES,
        )
    ]
    lacking = [finding for finding in findings if finding.state is not State.OK]
    if lacking:
        tables.append(
            Table(
                ("Not in full", "What it costs", "How to get it"),
                [(finding.name, finding.cost, finding.remedy) for finding in lacking],
            )
        )
    runs = can_run(findings)
    output.report({"can_run": runs, "findings": [asdict(finding) for finding in findings]}, tables)
    context.exit(ExitCode.FINE if runs else ExitCode.NEGATIVE)
