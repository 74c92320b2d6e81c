"""The pages that run a cloudlet on LXD: their commands work, on a private server.

What a page names by its default (sockets, ports, bridges, networks, the pool, where images are) is
replaced by what is this test's own, so that a cloudlet that runs here already is left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from packetcloud.testbed.lxd_daemon import POOL, LxdDaemon
from packetcloud.testbed.lxd_remains import NETWORK_PREFIX, sweep_stale_networks
from packetcloud.testbed.peers.tools import free_port
from tests.system.lxd_places import needs_lxd
from tests.system.test_docs import PAGES, ROOT, Command, commands_of, run_commands
from tests.system.vi_image import BUILD_TIMEOUT_S, STORE, vi_image

pytestmark = [
    pytest.mark.timeout(BUILD_TIMEOUT_S),  # of several, the first counts
    *needs_lxd,
    pytest.mark.needs("debootstrap", "mksquashfs"),
]
FOLDER = ROOT / "docs" / "how-to"
FIRST_STEPS = FOLDER / "run-a-cloudlet.md"
MOVES = FOLDER / "migrate-a-vi.md"
TAKES_DOWN = "kill $controller"
"""The command of the first page before which the other's come."""
TOPOLOGY = FOLDER / "build-a-topology.md"


def test_no_other_page_needs_lxd() -> None:
    """Each page whose commands need LXD has a test below; that on topologies one of its own."""
    assert [page for page in PAGES if _commands(page)] == [TOPOLOGY, MOVES, FIRST_STEPS]


def test_a_cloudlet_from_nothing_and_moves_between_its_nodes(tmp_path: Path) -> None:
    """From keys to a service that answers from a container, which moves to a second LXD and back,
    and nothing left of it."""
    vi_image()
    with _lxd() as place:
        first = _commands(FIRST_STEPS)
        end = next(number for number, one in enumerate(first) if one.text.startswith(TAKES_DOWN))
        commands = [*first[:end], *_commands(MOVES), *first[end:]]
        own = [place.own(command) for command in commands]
        run_commands(own, tmp_path, _asking(f"http://127.0.0.1:{place.ports['4780']}"))
        assert place.daemon.query("/1.0/instances?project=packetcloud") in (None, [])
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert place.tag not in tables.stdout


def _commands(page: Path) -> list[Command]:
    return commands_of(page, ("console lxd",))


def _asking(url: str) -> str:
    """Return lines of sh after which commands that ask a controller ask this one."""
    return (
        'case "$1 $2" in "cloudlet status" | "vi "* | "node list" | "node evacuate")\n'
        f'set -- "$@" --url {url};; esac'
    )


class _Place:
    """What replaces the page's names."""

    def __init__(self, daemon: LxdDaemon, second: LxdDaemon) -> None:
        self.daemon = daemon
        self._second = second
        number = os.getpid() % 60_000
        third = number % 250
        self.tag = f"{NETWORK_PREFIX}{os.getpid():x}"
        self.ports = {port: str(free_port()) for port in ("4700", "4701", "4780", "4790")}
        self._network = (
            f'[network]\ndata_bridge = "{self.tag}d"\ncontrol_bridge = "{self.tag}c"\n'
            f'data_ipv4 = "10.217.{third}.0/24"\ncontrol_ipv4 = "10.218.{third}.0/24"\n'
            f'data_ipv6 = "fd5a:7c1e:{number:x}:3::/64"\n'
            f'control_ipv6 = "fd5a:7c1e:{number:x}:4::/64"\nfilter_table = "{self.tag}"\n'
            f'[router]\nurl = "http://127.0.0.1:{self.ports["4701"]}"\n'
            f"port = {self.ports['4700']}\n"
        )
        self._data = f"10.217.{third}.0/24"

    def own(self, command: Command) -> Command:
        return Command(self._own(command.text), [self._own(line) for line in command.shown])

    def _own(self, text: str) -> str:
        for old, new in (
            (
                'socket = "/var/lib/lxd/unix.socket"',
                f'socket = "{self.daemon.socket}"\npool = "{POOL}"',
            ),
            ("/var/lib/lxd2", str(self._second.folder)),
            ("10.210.0.0/20", self._data),
            (
                'state = "c1-state"\n',
                f'state = "c1-state"\nimages = "{STORE.folder}"\n'
                f'api_listen = "127.0.0.1:{self.ports["4780"]}"\n'
                f"control_port = {self.ports['4790']}\n{self._network}",
            ),
        ):
            text = text.replace(old, new)
        return re.sub("|".join(rf"\b{port}\b" for port in self.ports), self._port, text)

    def _port(self, found: re.Match[str]) -> str:
        return self.ports[found[0]]


@contextlib.contextmanager
def _lxd() -> Iterator[_Place]:
    sweep_stale_networks()
    with LxdDaemon() as daemon:
        second = LxdDaemon()  # the page starts it
        place = _Place(daemon, second)
        try:
            yield place
        finally:
            second.close()
            for device in (f"{place.tag}d", f"{place.tag}c"):
                subprocess.run(["ip", "link", "delete", device], capture_output=True, check=False)
            for family in ("inet", "bridge"):
                subprocess.run(
                    ["nft", "delete", "table", family, place.tag], capture_output=True, check=False
                )
