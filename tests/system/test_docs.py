"""Every command in README.md and docs/ is run, so that none goes stale.

A fenced block marked `console` holds commands (lines that begin with `$ `, continued by `> `) and,
where it matters, what they print; `...` in a printed line stands for anything. All blocks of a file
run in order in one shell and one temporary folder; background jobs are ended with it. A block that
cannot run there is marked `console no-test: why`; one marked `console root` runs where we are root,
one marked `console lxd` where LXD is installed too, on a private server with networks of its own.
The ports that the pages name are replaced by free ones, so that a router that runs here already is
left alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from packetcloud.testbed.peers.tools import free_port
from tests.system.kept_shell import run_kept

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NO_TEST = re.compile(r"console no-test: \S.*")
MARKS = ("console root", "console lxd")
RUN_HERE = ("console", "console root") if os.geteuid() == 0 else ("console",)
TIMEOUT_S = 300.0
PAGE_PORTS = (
    *("4700", "4701", "4780", "4790", "4800", "4801"),
    *("4710", "4711", "4720", "4721"),
)
"""A router's defaults: chunks over UDP, management over TCP; a cloudlet's and a domain
controller's; of further routers."""
LATE = re.compile(r"packetcloud testbed link\b")
TOO_BUSY = "these figures say nothing about the link"
ATTEMPTS_COUNT = 5
MEASURES = re.compile(r"packetcloud (bench|testbed (link|run))\b(?!.*\|\| echo)")
"""A measurement that must succeed, which it does not beside others; with `|| echo` it may not."""


@dataclass
class Command:
    """One command of a page and the lines that the page says it prints."""

    text: str
    shown: list[str] = field(default_factory=list)

    def matches(self, printed: str) -> bool:
        """Tell whether the shown lines stand in `printed`, in this order."""
        rest = iter([" ".join(line.split()) for line in printed.splitlines()])
        return all(any(re.fullmatch(wanted, line) for line in rest) for wanted in self._patterns())

    def _patterns(self) -> Iterator[str]:
        for line in self.shown:
            parts = [" ".join(part.split()) for part in line.split("...")]
            yield ".*".join(re.escape(part) for part in parts)


def _fences(page: Path) -> Iterator[tuple[str, str]]:
    for match in FENCE.finditer(page.read_text()):
        yield match["info"].strip(), match["body"]


def commands_of(page: Path, infos: Sequence[str] = RUN_HERE) -> list[Command]:
    """Return the commands in the blocks of these kinds."""
    commands: list[Command] = []
    for info, body in _fences(page):
        if info not in infos:
            continue
        for line in body.splitlines():
            if line.startswith("$ "):
                commands.append(Command(line[2:]))
            elif re.match(r">( |$)", line) and commands and not commands[-1].shown:
                commands[-1].text += "\n" + line[2:]
            elif line.strip():
                commands[-1].shown.append(line)
    return commands


def _page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _pages_with_commands() -> Iterator[Any]:
    for page in PAGES:
        commands = commands_of(page)
        if any(MEASURES.search(command.text) for command in commands):
            yield pytest.param(page, marks=pytest.mark.alone)
        elif commands:
            yield page


@pytest.mark.parametrize("page", PAGES, ids=_page_name)
def test_commands_stand_in_blocks_that_are_run(page: Path) -> None:
    """A command hides in no other kind of block, and a block left out says why."""
    for info, body in _fences(page):
        if info.startswith("console"):
            assert info in ("console", *MARKS) or NO_TEST.fullmatch(info), info
        else:
            assert not re.search(r"^\$ ", body, re.MULTILINE), f"```{info}: use ```console"


@pytest.mark.timeout(TIMEOUT_S + 30)
@pytest.mark.parametrize("page", list(_pages_with_commands()), ids=_page_name)
def test_the_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    """The page's commands succeed one after the other and print what the page shows."""
    run_commands(_with_free_ports(commands_of(page)), tmp_path)


def run_commands(commands: list[Command], tmp_path: Path, more: str = "") -> None:
    """Run commands in one shell and see that they succeed and print what they should.

    Args:
        more: lines of sh that come before what `packetcloud` is there.
    """
    status = _run([command.text for command in commands], tmp_path, more)
    for number, command in enumerate(commands):
        file = tmp_path / f".out.{number}"
        assert file.exists(), f"exit code {status} before: {command.text}"
        printed = file.read_text()
        is_last = not (tmp_path / f".out.{number + 1}").exists()
        assert status == 0 or not is_last, f"exit code {status}: {command.text}\n{printed}"
        assert command.matches(printed), f"{command.text}\nprinted:\n{printed}"


def _plain(number: int, command: str) -> str:
    return f"exec >.out.{number} 2>&1\n{command}"


def _measured(number: int, command: str) -> str:
    """Measure again, a few times, when the command says that this machine was too busy for it."""
    return f"""for attempt in {" ".join(map(str, range(1, ATTEMPTS_COUNT + 1)))}; do
exec >.out.{number} 2>&1
if {command}
then break; fi
grep -q "{TOO_BUSY}" .out.{number}
test $attempt -lt {ATTEMPTS_COUNT}
sleep 1
done"""


def _with_free_ports(commands: list[Command]) -> list[Command]:
    ports = {port: str(free_port()) for port in PAGE_PORTS}
    return [
        Command(_replaced(command.text, ports), [_replaced(line, ports) for line in command.shown])
        for command in commands
    ]


def _replaced(text: str, ports: dict[str, str]) -> str:
    return re.sub("|".join(rf"\b{port}\b" for port in ports), lambda hit: ports[hit[0]], text)


def _run(commands: list[str], folder: Path, more: str = "") -> int:
    """Run the commands in one shell in `folder`; what command N prints is in .out.N."""
    binaries = folder / ".bin"
    binaries.mkdir()
    for name, arguments in (("packetcloud", "-m packetcloud.cli"), ("python3", "")):
        script = binaries / name
        script.write_text(f'#!/bin/sh\n{more}\nexec {sys.executable} {arguments} "$@"\n')
        script.chmod(0o755)
    # A network that a page brought up stays when the page fails, unless somebody takes it down.
    sweep = "test ! -d .testbed || packetcloud testbed down --all"
    trap = f"trap 'kill $(jobs -p) 2>/dev/null || true; wait; {sweep}' EXIT"
    lines = ["set -euo pipefail", trap]
    for number, command in enumerate(commands):
        lines.append(
            _measured(number, command) if LATE.search(command) else _plain(number, command)
        )
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}:/usr/sbin:/sbin",  # LXD's daemon is there
        "NO_COLOR": "1",
        "PACKETCLOUD_TESTBED_DIR": str(folder / ".testbed"),
    }
    if "PYTHONPATH" in environment:
        places = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(place).absolute()) for place in places)
    return run_kept("\n".join(lines), folder, environment, TIMEOUT_S)
