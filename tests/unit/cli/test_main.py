"""The root of the command: exit codes, one-line errors, lazy nouns, shared options."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.cli import main as cli
from packetcloud.cli.output import ExitCode, Output, pass_output


@click.group()
def stub() -> None:
    """Stand in for a noun."""


@stub.command()
@click.argument("what")
@click.pass_context
def fail(context: click.Context, what: str) -> None:
    match what:
        case "ours":
            raise PacketCloudError("router.toml: table [store]:\n  unknown key 'sise'")
        case "os":
            raise FileNotFoundError(2, "No such file or directory", "router.toml")
        case "bug":
            raise KeyError("surprise")
        case "interrupt":
            raise KeyboardInterrupt
        case "negative":
            context.exit(ExitCode.NEGATIVE)


@stub.command()
@click.argument("words", nargs=-1)
@pass_output
def echo(output: Output, words: tuple[str, ...]) -> None:
    output.record({"Words": list(words)})


@pytest.fixture(autouse=True)
def _stub_noun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(cli.NOUNS, "stub", cli.Noun(f"{__name__}:stub", "Stand in for a noun."))
    monkeypatch.delenv(cli.TRACEBACK_VARIABLE, raising=False)
    yield


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [
        ("ours", 2, "packetcloud: router.toml: table [store]: unknown key 'sise'\n"),
        ("os", 2, "packetcloud: router.toml: No such file or directory\n"),
        ("negative", 1, ""),
        ("nothing", 0, ""),
    ],
)
def test_each_end_has_its_exit_code_and_at_most_one_line(
    what: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is one line that names the program, and the exit code tells error from "no"."""
    assert cli.main(["stub", "fail", what]) == code
    assert capsys.readouterr() == ("", line)


def test_a_bug_ends_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Even an error that nobody foresaw is one line, says how to report it, and exits with 2."""
    assert cli.main(["stub", "fail", "bug"]) == ExitCode.ERROR
    error = capsys.readouterr().err
    assert error.startswith("packetcloud: internal error, please report it: KeyError: 'surprise'")
    assert error.count("\n") == 1


def test_a_bug_shows_its_traceback_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reports a bug gets the traceback by setting one variable."""
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    assert cli.main(["stub", "fail", "bug"]) == ExitCode.ERROR
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends with 130 and says nothing."""
    assert cli.main(["stub", "fail", "interrupt"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "No such command 'nonsense'. Try 'packetcloud --help'."),
        (["stub", "fail"], "Missing argument 'WHAT'. Try 'packetcloud stub fail --help'."),
        (["--format", "xml", "stub"], "'xml' is not one of 'table', 'json'"),
    ],
)
def test_wrong_arguments_name_the_allowed_ones(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error is one line with the next step, exit code 2."""
    assert cli.main(arguments) == ExitCode.ERROR
    error = capsys.readouterr().err
    assert error.startswith("packetcloud: ")
    assert part in error
    assert error.count("\n") == 1


def test_shared_options_may_follow_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`--format json` means the same before and after the noun, but not after a bare `--`."""
    for arguments in (
        ["--format", "json", "stub", "echo", "a"],
        ["stub", "--format=json", "echo", "a"],
        ["stub", "echo", "a", "--quiet", "--format", "json"],
    ):
        assert cli.main(arguments) == 0
        assert json.loads(capsys.readouterr().out) == {"words": ["a"]}
    assert cli.main(["stub", "echo", "--format", "json", "--", "--format", "-q"]) == 0
    assert json.loads(capsys.readouterr().out) == {"words": ["--format", "-q"]}


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _commands(child, f"{path} {name}")


REAL_NOUNS = sorted(cli.NOUNS)


@pytest.mark.parametrize("name", REAL_NOUNS)
def test_every_noun_loads_and_its_summary_is_its_docstring(name: str) -> None:
    """The table in main.py tells the truth about every noun, without importing it for --help."""
    command = cli.load_noun(cli.NOUNS[name])
    assert command.name == name
    assert command.get_short_help_str(limit=500) == cli.NOUNS[name].summary
    assert list(cli.NOUNS)[: len(REAL_NOUNS)] == REAL_NOUNS, "nouns stand in alphabetical order"


@pytest.mark.parametrize("name", REAL_NOUNS)
def test_every_command_has_help_and_leaves_the_shared_options_alone(name: str) -> None:
    """No command redefines --format, --quiet or --no-color, and each says what it does."""
    for path, command in _commands(cli.load_noun(cli.NOUNS[name]), name):
        assert command.help, f"{path} has no docstring"
        taken = {option for parameter in command.params for option in parameter.opts}
        assert not taken & {"--format", "--quiet", "-q", "--no-color"}, path


def test_help_and_completion_import_no_noun() -> None:
    """`packetcloud --help` starts fast: no room, no rich, no twisted is imported for it."""
    script = (
        "import sys; from packetcloud.cli.main import main; status = main(['--help']);"
        "heavy = {'rich', 'twisted', 'numpy', 'fastapi', 'pydantic', 'nacl'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else status)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "identity" in result.stdout


def test_commands_that_ask_import_nothing_that_serves() -> None:
    """What an API is made with takes a second to import; whoever asks it does without."""
    script = (
        "import sys, packetcloud.cloudlet.client, packetcloud.domain_controller.client,"
        " packetcloud.router.rules.client, packetcloud.router.status;"
        "heavy = {'twisted', 'fastapi', 'uvicorn', 'sqlalchemy'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell gets a script that calls the command back through its variable."""
    assert cli.main(["completion", shell]) == 0
    assert "_PACKETCLOUD_COMPLETE" in capsys.readouterr().out


def test_nouns_are_completed() -> None:
    """Completing the first word offers the nouns with their summaries, without loading them."""
    context = click.Context(cli.packetcloud, info_name="packetcloud")
    items = cli.packetcloud.shell_complete(context, "iden")
    assert [(item.value, item.help) for item in items] == [
        ("identity", cli.NOUNS["identity"].summary)
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the program and a version, and nothing else."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"packetcloud {cli.installed_version()}\n"
