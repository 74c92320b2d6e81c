"""What commands print: tables for people, JSON for programs; and the codes they exit with.

Results go to standard output, one JSON document or one table (or a few). Notes, warnings and
progress bars go to standard error, so that a pipe only ever carries results.

rich is imported on first use: a command that prints nothing, or JSON, starts without it.
Source: docs/reference/exit-codes.md, docs/reference/cli.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_WIDTH_WITHOUT_TERMINAL = 4096
"""A piped table is never folded or cut at 80 columns: one row stays one line for grep."""


class ExitCode(IntEnum):
    """What the exit code of `packetcloud` means."""

    FINE = 0
    """The command did what it was asked to."""
    NEGATIVE = 1
    """It ran, and the answer is no: a check failed, a chunk was refused, a file is incomplete."""
    ERROR = 2
    """It could not run: wrong arguments, wrong config, something missing or unreachable."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C, after putting away what it had started."""


class OutputFormat(StrEnum):
    """Values of `--format`."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `rows` hold one value per column, in the order of `columns`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str | None = None
    styles: Mapping[str, str] = field(default_factory=dict)
    """rich style of a cell by its text, for words like `ok` and `missing`."""


class Output:
    """Where a command's words go. Commands get it with the decorator `pass_output`."""

    def __init__(
        self,
        format: OutputFormat = OutputFormat.TABLE,
        *,
        quiet: bool = False,
        color: bool = True,
    ) -> None:
        self.format = format
        self.quiet = quiet
        self.color = color

    @property
    def is_json(self) -> bool:
        return self.format is OutputFormat.JSON

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None
    ) -> None:
        """Print rows. As JSON: a list of objects whose keys are the columns in snake_case."""
        table = Table(columns, [list(row) for row in rows], title)
        keys = [json_key(column) for column in columns]
        self.report([dict(zip(keys, row, strict=True)) for row in table.rows], [table])

    def record(self, values: Mapping[str, object], title: str | None = None) -> None:
        """Print one thing with named values. As JSON: one object with keys in snake_case."""
        document = {json_key(name): value for name, value in values.items()}
        self.report(document, [Table(("", ""), list(values.items()), title)])

    def report(self, document: object, tables: Iterable[Table]) -> None:
        """Print a result: `document` as JSON, or `tables` for people."""
        if self.is_json:
            print(json.dumps(document, indent=2, default=str), flush=True)
            return
        console = self._console(sys.stdout)
        for table in tables:
            _print_table(console, table)

    def text(self, text: str) -> None:
        """Print a result that is plain text whatever the format: a script, a sample config."""
        click.echo(text, nl=not text.endswith("\n"))

    def note(self, text: str) -> None:
        """Tell people what is going on; silent with `--quiet`."""
        if not self.quiet:
            self._console(sys.stderr).print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Tell people what they should know even with `--quiet`."""
        style = "yellow" if self.color else None
        console = self._console(sys.stderr)
        console.print(f"packetcloud: warning: {text}", markup=False, highlight=False, style=style)

    def progress(self, *columns: Any) -> Progress:
        """Return a rich progress display on standard error; inert unless a person watches it."""
        from rich.progress import Progress

        console = self._console(sys.stderr)
        silent = self.quiet or self.is_json or not console.is_terminal
        return Progress(*columns, console=console, transient=True, disable=silent)

    def _console(self, stream: IO[str]) -> Console:
        from rich.console import Console

        # None leaves the decision to rich, which honours the NO_COLOR convention.
        no_color = None if self.color else True
        width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
        return Console(file=stream, no_color=no_color, width=width, soft_wrap=False)


pass_output = click.make_pass_decorator(Output, ensure=True)


def json_key(column: str) -> str:
    """Return the JSON key of a column title: `Chunk ID` becomes `chunk_id`."""
    words = "".join(letter if letter.isalnum() else " " for letter in column.lower())
    return "_".join(words.split())


def _print_table(console: Console, table: Table) -> None:
    import rich.box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=table.title,
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        show_header=any(table.columns),
        pad_edge=False,
    )
    for index, column in enumerate(table.columns):
        numeric = bool(table.rows) and all(_is_number(row[index]) for row in table.rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        cells = [_cell(value) for value in row]
        drawn.add_row(*(Text(cell, style=table.styles.get(cell, "")) for cell in cells))
    console.print(drawn)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        case _:
            return str(value)
