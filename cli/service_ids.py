"""`packetcloud service ids`: rule files of the ids service."""

from __future__ import annotations

from pathlib import Path

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE


@click.group()
def ids() -> None:
    """Work with rule files of the ids service."""


@ids.command()
@click.argument("file", type=FILE)
@click.option(
    "--lists", default="", metavar="NAME=[GUID,...];...", help="What $NAME stands for in rules."
)
@click.option(
    "--ip-headers",
    type=click.Choice(["refuse", "widen"]),
    default="refuse",
    show_default=True,
    help="Protocols, ports and addresses of the IP world: refuse the rule, or read them as any.",
)
@pass_output
def check(output: Output, file: Path, lists: str, ip_headers: str) -> ExitCode:
    """Say of each line of FILE what is taken, what has no effect and what is refused.

    Exits with 1 if a line is refused.
    """
    from packetcloud.services.ids.check import check_file

    checked = check_file(file, lists, widens=ip_headers == "widen")
    document = checked.to_dict()
    counts = [("taken", document["taken"]), *checked.actions.items()]
    counts.append(("refused", len(checked.refusals)))
    tables = [Table(("Rules", "Number"), counts, str(file))]
    if checked.notes:
        rows = [(note.line, note.text) for note in checked.notes]
        tables.append(Table(("Line", "Note"), rows, "Taken, but"))
    if checked.refusals:
        refused = [(one.line, one.column, one.reason) for one in checked.refusals]
        tables.append(Table(("Line", "Column", "Reason"), refused, "Refused"))
    output.report({"file": str(file), **document}, tables)
    return ExitCode.NEGATIVE if checked.refusals else ExitCode.FINE
