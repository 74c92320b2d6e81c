"""`bench vi`, migrations: a VI goes to and fro between two nodes while chunks run through it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.vi_judge import Judgement, Moved, judge
from packetcloud.testbed.bench.vi_place import Workplace, done, owner, spread
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_cloudlet import CloudletPlan, LxdCloudlet
from packetcloud.testbed.processes import Child, python_command
from packetcloud.testbed.tally import NAME
from packetcloud.testbed.traffic.witness import END_LIMIT_S, Row, load_journal

LIFETIME_S = 60.0
PAYLOAD_BYTES = 1024
SETTLE_S = 0.5
"""Chunks run so long between two migrations."""
START_LIMIT_S = 30.0


def measure_migrations(place: Workplace) -> Document:
    """Move the VI again and again under load, and judge; what goes wrong is the place's to tell.

    Raises:
        ChildError: a host failed, or the cloudlet came to nothing.
    """
    plan = place.plan
    moved: list[Moved] = []
    with place.cloudlet(CloudletPlan([place.tally_service()], nodes_count=2)) as cloudlet:
        cloudlet.until_running()
        with _witnesses(cloudlet, plan.rate) as hosts:
            time.sleep(SETTLE_S)
            for number in range(1, plan.migrations + 1):
                place.tell(f"migration {number} of {plan.migrations}")
                asked_s = time.monotonic()
                try:
                    _migrate(cloudlet)
                except ChildError as error:
                    place.failures.append(f"migration {number}: {error}")
                time.sleep(SETTLE_S)
                moved.append(Moved(asked_s, time.monotonic()))
            place.tell("waiting for the end of every chunk")
            skipped = hosts.finish()
        found = judge(hosts.rows(), moved, LIFETIME_S)
    if skipped:
        text = f"{skipped} chunks were due and not sent: too many were on their way"
        place.failures.append(text)
    place.failures += found.problems
    return migration_figures(found, moved, plan.rate)


def migration_figures(found: Judgement, moved: list[Moved], rate: float) -> Document:
    """Make the figures of a judged run."""
    return {
        "migrations": len(moved),
        "rate_chunks_per_s": rate,
        "chunks": found.sent,
        "lost": found.lost,
        "doubled": found.doubled,
        "problems": list(found.problems),
        "pause": spread(found.pauses_s),
        "duration": spread([one.flowing_s - one.asked_s - SETTLE_S for one in moved]),
    }


def _migrate(cloudlet: LxdCloudlet) -> None:
    before = owner(cloudlet)
    with cloudlet.client() as client:
        done(cloudlet, "migrate", client.migrate(before.number, None))
    after = owner(cloudlet)
    if after.node == before.node:
        raise ChildError(f"VI {before.number} is said to have moved, and is on {after.node} still")


@dataclass(slots=True)
class _Witnesses:
    """The two hosts and their journals."""

    folder: Path
    sender: Child
    taker: Child

    def finish(self) -> int:
        """End both when every chunk has; return how many chunks were due and not sent."""
        self.sender.signal(signal.SIGTERM)
        sent = self.sender.wait_event("done", END_LIMIT_S + START_LIMIT_S)
        self.taker.signal(signal.SIGTERM)
        self.taker.wait_event("done", START_LIMIT_S)
        skipped: int = sent["skipped"]
        return skipped

    def rows(self) -> list[Row]:
        """Return what both wrote; after `finish`."""
        children = self.sender, self.taker
        return [
            row for child in children for row in load_journal(_journal(self.folder, child.name))
        ]


def _journal(folder: Path, name: str) -> Path:
    return folder / f"{name}.journal"


@contextmanager
def _witnesses(cloudlet: LxdCloudlet, rate: float) -> Iterator[_Witnesses]:
    host, port = cloudlet.router_address
    common = ["--connect", f"{host}:{port}", "--expect", cloudlet.router.guid]

    def start(name: str, *options: object) -> tuple[Child, str]:
        command = python_command(
            "packetcloud.testbed.traffic.witness",
            *[*common, "--journal", _journal(cloudlet.folder, name), *options],
        )
        child = cloudlet.children.start(name, command)
        guid: str = child.wait_event("ready", START_LIMIT_S)["guid"]
        return child, guid

    taker, guid = start("taker")
    options = ["--destination", guid, "--sid", cloudlet.sids[NAME], "--rate", rate]
    options += ["--payload-bytes", PAYLOAD_BYTES, "--lifetime", LIFETIME_S]
    sender, _ = start("sender", *options)
    try:
        yield _Witnesses(cloudlet.folder, sender, taker)
    except BaseException:  # Ctrl-C too: nobody waits for the ends of chunks then
        sender.stop(grace_s=0.0)
        taker.stop(grace_s=0.0)
        raise
