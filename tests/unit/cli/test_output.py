"""Tables, JSON, notes: what goes where."""

from __future__ import annotations

import json

import pytest

from packetcloud.cli.output import Output, OutputFormat, Table, json_key


def test_table_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is one document on standard output, keys in snake_case."""
    Output(OutputFormat.JSON).table(["Chunk ID", "p99 (ms)"], [["a", 1.5], ["b", None]])
    assert json.loads(capsys.readouterr().out) == [
        {"chunk_id": "a", "p99_ms": 1.5},
        {"chunk_id": "b", "p99_ms": None},
    ]


def test_piped_table_keeps_rows_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal a row is one line, however wide, with no escape codes."""
    wide = "x" * 300
    Output().table(["Name", "Value"], [[wide, True], ["[bold]not markup[/bold]", None]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert [line.split() for line in out.splitlines() if wide in line] == [[wide, "yes"]]
    assert "[bold]not markup[/bold]" in out


def test_report_prints_its_tables_or_its_document(capsys: pytest.CaptureFixture[str]) -> None:
    """A richer result has its own document; the tables are only for people."""
    tables = [Table(["Mode"], [["wire"]], title="Modes")]
    Output().report({"modes": {"wire": 1}}, tables)
    out = capsys.readouterr().out
    assert "Modes" in out
    assert "wire" in out
    Output(OutputFormat.JSON).report({"modes": {"wire": 1}}, tables)
    assert json.loads(capsys.readouterr().out) == {"modes": {"wire": 1}}


def test_notes_are_quiet_and_never_in_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    """Notes go to standard error and obey --quiet; warnings do not."""
    Output().note("starting [1/2]")
    assert capsys.readouterr() == ("", "starting [1/2]\n")
    quiet = Output(quiet=True)
    quiet.note("starting")
    quiet.warn("receive buffer is small")
    assert capsys.readouterr() == ("", "packetcloud: warning: receive buffer is small\n")


def test_progress_is_inert_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A progress bar leaves no trace in a log file."""
    with Output().progress() as progress:
        task = progress.add_task("sending", total=2)
        progress.advance(task)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("column", "key"), [("GUID", "guid"), ("p50 / p99", "p50_p99"), ("Public key", "public_key")]
)
def test_json_key(column: str, key: str) -> None:
    """Column titles become keys that a program can use."""
    assert json_key(column) == key
