"""`packetcloud cloudlet run` that a step of its own kills: a program for the tests of kills.

A step is a command of the core that is about to be carried out, when all that it follows from is
written down already; or an event, what came of a command, of which nothing is written down yet.
Steps count from the moment that the file `armed` is there, and are noted in `steps`.
`PACKETCLOUD_TEST_KILL_AT` names the one at which the kernel ends the process, as with kill -9.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

from packetcloud.cli.__main__ import main
from packetcloud.cloudlet.controller import Controller
from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw

ARMED = "armed"
STEPS = "steps"
FOLDER = "PACKETCLOUD_TEST_FOLDER"
"""Where both files are."""
KILL_AT = "PACKETCLOUD_TEST_KILL_AT"
COMMANDS = (
    do.DoWork,
    do.SendLaunch,
    do.SendStop,
    do.ExportState,
    do.ImportState,
    do.DropState,
    do.AwaitIdle,
    do.PushTable,
)
ANSWERS = (
    saw.WorkDone,
    saw.LinkUp,
    saw.ViReady,
    saw.StateExported,
    saw.StateImported,
    saw.ViIdle,
    saw.TableAnswered,
)
_counts: Counter[str] = Counter()


def is_command(step: str) -> bool:
    """Tell whether a step's name is that of a command."""
    return step.split()[0] in {kind.__name__ for kind in COMMANDS}


def _pass(what: do.Command | saw.Event) -> None:
    """Note a step, and end there if it is the one."""
    folder = Path(os.environ[FOLDER])
    if not isinstance(what, COMMANDS + ANSWERS) or not (folder / ARMED).exists():
        return
    name = type(what).__name__
    if isinstance(what, do.DoWork | saw.WorkDone):
        name += f" {what.work.value}"
    _counts[name] += 1
    step = f"{name} #{_counts[name]}"
    with (folder / STEPS).open("a") as steps:
        steps.write(step + "\n")
    if os.environ.get(KILL_AT) == step:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch() -> None:
    carry_out, tell = Controller._do, Controller.tell

    def watched_do(controller: Controller, command: do.Command) -> None:
        _pass(command)
        carry_out(controller, command)

    def watched_tell(controller: Controller, event: saw.Event) -> None:
        _pass(event)
        tell(controller, event)

    Controller._do = watched_do  # type: ignore[method-assign]
    Controller.tell = watched_tell  # type: ignore[method-assign]


if __name__ == "__main__":
    _watch()
    sys.exit(main())
