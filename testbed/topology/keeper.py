"""The process that keeps a topology up: makes it, waits, takes it down.

`python -m packetcloud.testbed.topology.keeper FILE NAME [--rootless] [--images DIR]`. Says on
standard output what it makes (`step`), and `up` or `error`. Until it reads `stay` on standard
input, it takes everything down when that ends: whoever asked for the topology was killed meanwhile.
Then it stays until SIGTERM. Its own kill ends all children, and leaves what the next sweep removes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import select
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.testbed.lxd_remains import lxd_folders_of
from packetcloud.testbed.ownership import owner_tag
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.topology.build import open_network
from packetcloud.testbed.topology.facts import facts_of
from packetcloud.testbed.topology.graph import make_graph
from packetcloud.testbed.topology.model import Topology
from packetcloud.testbed.topology.registry import Claim, claim, make_base_folder, sweep_all
from packetcloud.testbed.topology.rootless import become_root_here
from packetcloud.testbed.topology.service_files import check_services

LOG = "keeper.log"
ROOTLESS, IMAGES = "--rootless", "--images"
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_LONGEST_SLEEP_S = 3600.0


class _AskedToEndError(Exception):
    """SIGTERM came, or whoever asked for the topology is gone."""


def keep(file: Path, name: str, images: Path | None = None) -> None:
    """Make the topology, keep it, take it down.

    Args:
        images: where images of VIs are kept; None: where `packetcloud image build` puts them.

    Raises:
        PacketCloudError: it cannot be made.
    """
    topology = Topology.load(file)
    graph = make_graph(topology)
    check_services(topology)
    sweep_all()
    held = claim(name)
    try:
        with open_network(graph, held.scratch, _tell, images) as network:
            held.write_state(
                {
                    "file": str(file),
                    "topology": topology.name,
                    "since": datetime.now(UTC).isoformat(timespec="seconds"),
                    "by": _user(),
                    **facts_of(network),
                }
            )
            emit_event("up")
            _await_stay()
            _part_from_terminal(held)
            while True:
                time.sleep(_LONGEST_SLEEP_S)
    finally:
        # While a server of ours is left, whatever cut its end, `down` needs the record to sweep it.
        if not lxd_folders_of(owner_tag()):
            held.release()


def _tell(text: str) -> None:
    if _has_ended(0.0):
        raise _AskedToEndError
    emit_event("step", text=text)


def _has_ended(limit_s: float | None) -> bool:
    """Tell whether standard input has ended; waits so long for a word or its end."""
    ready, _, _ = select.select([_STDIN], [], [], limit_s)
    return bool(ready) and not os.read(_STDIN, 64)


def _await_stay() -> None:
    if _has_ended(None):
        raise _AskedToEndError


def _part_from_terminal(held: Claim) -> None:
    """Let go of whoever started us; what there is to say goes to a log from now on."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(held.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, _STDIN), (log, _STDOUT), (log, _STDERR)):
        os.dup2(source, target)


def _user() -> str:
    """Who asked for it: behind sudo, not root."""
    uid = int(os.environ.get("SUDO_UID") or os.getuid())
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    def end(*_: object) -> None:
        # Once: what is under way now is the end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _AskedToEndError

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(_AskedToEndError):
        yield


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("keeper")
    parser.add_argument("file", type=Path)
    parser.add_argument("name")
    parser.add_argument(ROOTLESS, dest="is_rootless", action="store_true")
    parser.add_argument(IMAGES, dest="images", type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.is_rootless:
            become_root_here(make_base_folder())
        with _ended_by_sigterm():
            keep(given.file, given.name, given.images)
    except PacketCloudError as error:
        emit_event("error", text=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
