"""A controller's writer as a program, to be killed: it reserves and cancels places, and notes in a
journal of its own what it asked and what it was answered.

Every line is one `write` at the end of the journal, so a kill cuts nothing in two.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.writer import Writer
from tests.system.domain_places import RESERVED, Place, cancel, reserve, set_up

LANES = 4
STEPS = ("begun", "locked", "worked", "written", "committing", "committed", "answered")
NOW_MS = 1_800_000_000_000


def main(url: str, journal: Path, life: str, step: str, count: int) -> None:
    """Go on until the step was reached so many times; then die there. An empty step: for ever."""
    written = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    left = [count]

    def at_step(name: str) -> None:
        if name == step:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    writer = Writer(Database(url), lambda: NOW_MS, at_step=at_step)
    writer.do_blocking(set_up)

    def ask(lane: int) -> None:
        for number in range(10_000):
            place = Place(f"{life}-{lane}-{number}", lane)
            os.write(written, f"asked {place.name} {lane}\n".encode())
            answer = writer.do_blocking(reserve(place, place.name))
            os.write(written, f"answered {place.name} {answer.status}\n".encode())
            if answer.status == RESERVED and number % 2:
                os.write(written, f"cancels {place.name} {lane}\n".encode())
                writer.do_blocking(cancel(place, f"{place.name}-cancel"))
                os.write(written, f"cancelled {place.name} {lane}\n".encode())

    with ThreadPoolExecutor(LANES) as threads:
        lanes = [threads.submit(ask, lane) for lane in range(LANES)]
        for one in lanes:
            one.result()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
