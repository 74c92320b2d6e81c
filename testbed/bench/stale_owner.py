"""A controller that is stopped, replaced and continued, for `bench domain`.

It owns a cloudlet's channel and commands, as often as it can. While it is stopped, another one
takes the channel; when it goes on, each of its commands has to be refused. Judged by the journal in
the database: what was commanded, in the order of the commits. Control: a controller that does not
ask whether it is still the owner.

Run as a program (`python -m packetcloud.testbed.bench.stale_owner URL NAME`) it is such a
controller.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from packetcloud.domain_controller.state import journal, outbox, ownership
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import (
    NotDoneError,
    OutcomeUnknownError,
    StaleOwnerError,
)
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.bench.domain_place import now_ms
from packetcloud.testbed.processes import Child, Children, emit_event, python_command, wait_until

CLOUDLET = "c0"
KIND = "bench-command"
UNFENCED = "--unfenced"
COMMAND_EVERY_S = 0.01
COMMANDS_COUNT = 20
"""Commands of the new owner before the old one goes on, and tries of the old one after that."""
WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Stale:
    """What came of the commands of a controller that was stopped and went on."""

    refused: int
    accepted: int
    """Commands of its epoch that were committed after a command of a higher one."""


def measure_stale(url: str, children: Children, *, is_fenced: bool = True) -> Stale:
    """Stop a controller that commands, let another one take over, and have the first go on.

    Raises:
        ChildError: a controller does not come as far as it must.
    """
    old = _start(children, url, "old", is_fenced)
    _wait_commands(old)
    old.signal(signal.SIGSTOP)
    try:
        new = _start(children, url, "new", is_fenced)
        _wait_commands(new)
        old.taken_events()
    finally:
        old.signal(signal.SIGCONT)
    refused = 0

    def has_tried() -> bool:
        nonlocal refused
        events = [event["event"] for event in old.taken_events()]
        refused += events.count("refused")
        return refused >= COMMANDS_COUNT or (not is_fenced and "commanded" in events)

    wait_until(has_tried, WITHIN_S, "the old owner commands again")
    _wait_commands(new)
    for child in (old, new):
        child.signal(signal.SIGKILL)
        child.stop()
    return Stale(refused, judge_commands(_commanded(url)))


def judge_commands(epochs: Sequence[int]) -> int:
    """Return how many commands are of an epoch lower than one before them."""
    highest = late = 0
    for epoch in epochs:
        late += epoch < highest
        highest = max(highest, epoch)
    return late


def _start(children: Children, url: str, name: str, is_fenced: bool) -> Child:
    words = (url, name) if is_fenced else (url, name, UNFENCED)
    child = children.start(name, python_command("packetcloud.testbed.bench.stale_owner", *words))
    child.wait_event("owns", WITHIN_S)
    return child


def _wait_commands(child: Child) -> None:
    for _ in range(COMMANDS_COUNT):
        child.wait_event("commanded", WITHIN_S)


def _commanded(url: str) -> list[int]:
    """Return the epochs of all commands, in the order of their commits."""
    database = Database(url, only_reads=True)
    epochs: list[int] = []
    try:
        with database.reading() as connection:
            after = 0
            while events := journal.read(connection, after):
                epochs += [int(one.note.document) for one in events if one.note.kind == KIND]
                after = events[-1].number
    finally:
        database.close()
    return epochs


def _control(url: str, name: str, is_fenced: bool) -> None:
    """Own the channel and command until somebody ends this process."""
    writer = Writer(Database(url), now_ms)
    channel = ownership.cloudlet_channel(CLOUDLET)
    owner = writer.do_blocking(partial(_take, channel, name))
    emit_event("owns", epoch=owner.epoch)
    while True:
        try:
            writer.do_blocking(partial(_command, owner, is_fenced))
            emit_event("commanded")
        except StaleOwnerError:
            emit_event("refused")
        except (NotDoneError, OutcomeUnknownError):
            emit_event("unknown")
        time.sleep(COMMAND_EVERY_S)


def _take(channel: str, name: str, transaction: Transaction) -> Ownership:
    return ownership.take(transaction, channel, name)


def _command(owner: Ownership, is_fenced: bool, transaction: Transaction) -> None:
    """Note that directives leave, as it is done before each is sent."""
    if is_fenced:
        outbox.note_sent(transaction, owner, CLOUDLET, [])
    transaction.note(KIND, CLOUDLET, None, str(owner.epoch))


if __name__ == "__main__":
    _control(sys.argv[1], sys.argv[2], UNFENCED not in sys.argv[3:])
