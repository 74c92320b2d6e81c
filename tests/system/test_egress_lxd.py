"""A cloudlet in real LXD whose service is granted a way to the IP network: the way follows its VI.

The IP network is a namespace behind a device of this machine; what a VI reaches it says itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.testbed.namespaces import Namespace, NetworkLab
from tests.system.lxd_cloudlet import LxdCloudlet, lxd_cloudlet
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S

pytestmark = [
    pytest.mark.timeout(BUILD_TIMEOUT_S),  # of several, the first counts
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
]
DEVICE = f"pg{os.getpid() % 100_000}w"
FORWARDING = Path(f"/proc/sys/net/ipv4/conf/{DEVICE}/forwarding")
HERE, WORLD = "198.51.100.1", "198.51.100.9"
WEB, HIDDEN, NODE_PORT, VI_PORT = 24680, 24681, 24682, 24683
_CONNECT = """
import socket, sys
for port in sys.argv[2:]:
    with socket.socket() as one:
        one.settimeout(0.5)
        print("yes" if one.connect_ex((sys.argv[1], int(port))) == 0 else "no")
"""
_LISTEN = (
    "import socket; s = socket.create_server(('', {port}))\n"
    "while True:\n    c, peer = s.accept(); c.sendall(('{name} ' + peer[0]).encode()); c.close()"
)


@dataclass
class Scene:
    cloudlet: LxdCloudlet
    world: Namespace

    def reaches(self, number: int) -> list[str]:
        """Return what a VI reaches of the world: the port that is granted, and one that is not."""
        script = ["python3", "-c", _CONNECT, WORLD, str(WEB), str(HIDDEN)]
        return self._exec(number, *script).split()

    def listen(self, number: int) -> None:
        """Have something in a VI listen, as its service would; it ends with its container."""
        program = _LISTEN.format(port=VI_PORT, name=number)
        self._exec(number, "sh", "-c", f'python3 -c "{program}" >/dev/null 2>&1 &')

    def said_at_port(self) -> str:
        """Return what the world is told at the port of the node; nothing: nobody answers."""
        return self.world.run(_ask)

    def vi(self, number: int) -> dict[str, object]:
        found: dict[str, object] = self.cloudlet.ask("vi", "show", number)
        return found

    def _exec(self, number: int, *command: str) -> str:
        vi = self.vi(number)
        daemon = self.cloudlet.daemons[int(str(vi["node"]).removeprefix("n")) - 1]
        where = [str(vi["container"]), "--project", PROJECT, "--user", "1000", "--"]
        return daemon.run("lxc", "exec", *where, *command)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    grant = {
        "egress": {"allow": [f"0.0.0.0/0:{WEB}"], "denied_per_violation": 0},
        "listen": {str(NODE_PORT): VI_PORT},
    }
    with NetworkLab() as lab, contextlib.ExitStack() as stack:
        world = lab.namespace("world")
        for words in (
            f"link add {DEVICE} type veth peer name eth0 netns {world.name}",
            f"addr add {HERE}/25 dev {DEVICE}",
            f"link set {DEVICE} up",
            f"-n {world.name} link set eth0 up",
            f"-n {world.name} addr add {WORLD}/25 dev eth0",
        ):
            subprocess.run(["ip", *words.split()], check=True)  # goes with the namespace
        FORWARDING.write_text("0")
        for port in (WEB, HIDDEN):
            stack.enter_context(world.run(socket.create_server, (WORLD, port)))
        made = stack.enter_context(
            lxd_cloudlet(
                tmp_path,
                nodes_count=2,
                standbys=1,
                declared=grant,
                network={"egress_device": DEVICE},
            )
        )
        yield Scene(made, world)


def test_the_way_goes_with_the_vi(scene: Scene) -> None:
    """A standby has none before its launch; a VI has its grant, while its controller is away too;
    with a migration way and port are the twin's; in the end nothing is left."""
    cloudlet = scene.cloudlet
    cloudlet.until_running(1)
    standby = cloudlet.standby()["number"]
    (old,) = (one["number"] for one in cloudlet.vis() if one["role"] == "owner")
    cloudlet.until(lambda: scene.reaches(old) == ["yes", "no"], "the VI has its way")
    assert scene.reaches(standby) == ["no", "no"]
    assert not scene.vi(standby)["egress"]["is_open"]  # type: ignore[index]
    scene.listen(old)
    cloudlet.until(lambda: scene.said_at_port() == f"{old} {WORLD}", "the port leads to the VI")

    cloudlet.kill_controller()
    assert scene_reaches_without_controller(scene, old) == ["yes", "no"]
    assert scene.said_at_port() == f"{old} {WORLD}"
    cloudlet.start_controller()
    cloudlet.until_running(1)
    cloudlet.until(lambda: scene.reaches(old) == ["yes", "no"], "the next controller lets it in")
    shown = scene.vi(old)
    assert shown["restarts"] == 0
    cloudlet.until(
        lambda: scene.vi(old)["egress"]["denied_packets"] > 0,  # type: ignore[index]
        "denied tries are shown",
    )

    cloudlet.ask("vi", "migrate", old)
    cloudlet.until_running(1)
    (new,) = (one["number"] for one in cloudlet.vis() if one["role"] == "owner")
    assert new != old
    cloudlet.until(lambda: scene.reaches(new) == ["yes", "no"], "the twin has its way")
    scene.listen(new)
    cloudlet.until(lambda: scene.said_at_port() == f"{new} {WORLD}", "the port has moved")

    cloudlet.stop_controller()
    cloudlet.down()
    assert FORWARDING.read_text() == "0\n"
    assert not Path(f"/sys/class/net/{cloudlet.tag}e").exists()
    assert scene.said_at_port() == ""


def scene_reaches_without_controller(scene: Scene, number: int) -> list[str]:
    """The same for a VI of a cloudlet that nobody can ask where it is."""
    name = f"{scene.cloudlet.tag}-{number}"
    for daemon in scene.cloudlet.daemons:
        if name in daemon.run("lxc", "list", "--project", PROJECT, "--format", "csv", "-c", "n"):
            where = [name, "--project", PROJECT, "--user", "1000", "--"]
            words = ["python3", "-c", _CONNECT, WORLD, str(WEB), str(HIDDEN)]
            return daemon.run("lxc", "exec", *where, *words).split()
    raise AssertionError(f"no container {name}")


def _ask() -> str:
    try:
        with socket.create_connection((HERE, NODE_PORT), 2.0) as one:
            return one.recv(100).decode()
    except OSError:
        return ""
