"""A node on another machine: what `packetcloud node prepare` prints, run there, and the tunnels.

The other machine is a network namespace, its VI another one; this machine is the controller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from packetcloud.cloudlet.far_network import far_end, with_ports, with_tunnels
from packetcloud.cloudlet.filters import NetworkPlan
from packetcloud.cloudlet.lxd.address import HttpsServer
from packetcloud.cloudlet.lxd.discovery import open_nodes
from packetcloud.cloudlet.network import NodeNetwork
from packetcloud.cloudlet.node_script import LxdWish, node_script
from packetcloud.cloudlet.policy import NodeSite
from packetcloud.cloudlet.tunnels import TunnelWish
from packetcloud.testbed.lxd_daemon import LxdDaemon
from packetcloud.testbed.namespaces import Namespace, NetworkLab
from packetcloud.testbed.peers.tools import free_port
from tests.system.test_vi_network import _connects, _ip, _is_silent, _send, _tcp, _udp
from tests.unit.cloudlet import test_filters as plain

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("nft", "ip"),
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("lxd"),  # the same addresses on this machine
]
TAG = str(os.getpid() % 100_000)
# Ports that no other test's router or controller has, on all addresses of this machine.
DATA = replace(plain.DATA, name=f"pf{TAG}d", peer_port=24720)
CONTROL = replace(plain.CONTROL, name=f"pf{TAG}c", peer_port=24730)
PLAN = NetworkPlan(DATA, CONTROL, f"pc_far_{TAG}")
NEAR = {4: "198.18.60.1", 6: "fd00:60::1"}
FAR = {4: "198.18.60.2", 6: "fd00:60::2"}
TUNNEL_MTU = 1430


def _wish(version: int, *, is_near: bool) -> TunnelWish:
    here, there = (NEAR, FAR) if is_near else (FAR, NEAR)
    return TunnelWish(
        ip_address(here[version]), (ip_address(there[version]),), 4794, 4794, TUNNEL_MTU
    )


@dataclass
class Machines:
    """This one, the other one, and a VI on the other one's bridges."""

    near: NodeNetwork
    far: Namespace
    vi: Namespace
    plan: NetworkPlan
    """Of the other one."""

    def prepare(self, *, only_check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.far.name, "sh"],
            input=node_script("n2", self.plan, None, only_check=only_check),
            capture_output=True,
            text=True,
            check=False,
        )

    def connect_vi(self) -> None:
        for number, (bridge, third) in enumerate(((self.plan.data, 8), (self.plan.control, 9))):
            port, device = f"pf{TAG}p{number}", f"eth{number}"
            inside = ("-n", self.vi.name)
            peer = ("peer", "name", device, "netns", self.vi.name)
            _ip("-n", self.far.name, "link", "add", port, "type", "veth", *peer)
            _ip("-n", self.far.name, "link", "set", port, "mtu", str(bridge.mtu))
            _ip("-n", self.far.name, "link", "set", port, "master", bridge.name, "up")
            _ip(*inside, "link", "set", device, "mtu", str(bridge.mtu), "up")
            _ip(*inside, "addr", "add", f"198.18.{third}.9/24", "dev", device)
            _ip(*inside, "addr", "add", f"fd00:{third}::9/64", "dev", device, "nodad")


@pytest.fixture(params=["tunnels", "tunnels over IPv6", "devices"])
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """Joined, and not prepared."""
    with NetworkLab() as lab, contextlib.ExitStack() as stack:
        far, vi = lab.namespace("far"), lab.namespace("vi")
        if request.param == "devices":
            devices = (f"pf{TAG}u0", f"pf{TAG}u1")
            for number, (device, mtu) in enumerate(zip(devices, (TUNNEL_MTU, 1500), strict=True)):
                _pair(stack, far, device, f"up{number}", mtu)
            near_plan = with_ports(PLAN, *devices)
            far_plan = far_end(PLAN, ("up0", "up1"))
        else:
            _pair(stack, far, f"pf{TAG}u", "eth9", 1500)
            version = 6 if "IPv6" in request.param else 4
            bits = "30" if version == 4 else "64"
            no_check = ["nodad"] if version == 6 else []
            _ip("addr", "add", f"{NEAR[version]}/{bits}", "dev", f"pf{TAG}u", *no_check)
            inside = ("-n", far.name, "addr", "add", f"{FAR[version]}/{bits}", "dev", "eth9")
            _ip(*inside, *no_check)
            near_plan = with_tunnels(PLAN, _wish(version, is_near=True))
            far_plan = far_end(PLAN, _wish(version, is_near=False))
        near = NodeNetwork(near_plan)
        stack.callback(near.tear_down)
        near.set_up()
        yield Machines(near, far, vi, far_plan)
    for name in ("wanted", "made"):
        Path(f"/run/packetcloud-{PLAN.table}.{name}").unlink(missing_ok=True)


def test_a_vi_there_reaches_router_and_controller_here_and_nothing_else(machines: Machines) -> None:
    """Over IPv4 and IPv6; frames as large as the way takes; no other port, no VI of this machine,
    and not the other way round."""
    done = machines.prepare()
    assert done.returncode == 0, done.stderr
    machines.connect_vi()
    with contextlib.ExitStack() as stack:
        for address, third in (("198.18.8.1", "198.18.9.1"), ("fd00:8::1", "fd00:9::1")):
            wanted = stack.enter_context(_udp(address, DATA.peer_port))
            other = stack.enter_context(_udp(address, DATA.peer_port + 1))
            stack.enter_context(_tcp(third, CONTROL.peer_port))
            stack.enter_context(_tcp(third, CONTROL.peer_port + 1))
            largest = bytes(TUNNEL_MTU - 48)
            machines.vi.run(_send, address, DATA.peer_port + 1, b"no")
            machines.vi.run(_send, address, DATA.peer_port, largest)
            data, sender = wanted.recvfrom(1 << 16)
            assert data == largest
            wanted.sendto(largest, sender)
            assert _is_silent(other)
            assert machines.vi.run(_connects, third, CONTROL.peer_port)
            assert machines.vi.run(_transfers, third, stack)
            assert not machines.vi.run(_connects, third, CONTROL.peer_port + 1)
    with lab_vi_here(machines) as here:
        receiver = here.run(_udp, "198.18.8.77", 4700)
        with receiver:
            machines.vi.run(_send, "198.18.8.77", 4700, b"to a neighbour")
            assert _is_silent(receiver)
        with machines.vi.run(_udp, "198.18.8.9", 4700) as there:
            here.run(_send, "198.18.8.9", 4700, b"to a neighbour")
            assert _is_silent(there)


def test_what_is_there_stays_and_what_is_missing_is_said(machines: Machines) -> None:
    """A second run makes nothing; a check finds what was altered, and changes nothing."""
    before = machines.prepare(only_check=True)
    assert before.returncode == 1 and f"missing: bridge {PLAN.data.name}" in before.stderr
    assert machines.prepare().returncode == 0
    again = machines.prepare()
    assert (again.returncode, again.stderr, again.stdout) == (0, "", "")
    check = machines.prepare(only_check=True)
    assert (check.returncode, check.stderr) == (0, "")
    far = ("ip", "netns", "exec", machines.far.name)
    uplink = machines.plan.data.uplink
    assert uplink is not None
    for command, said in (
        (["nft", "flush", "chain", "bridge", PLAN.table, "data_in"], "tables"),
        (["nft", "delete", "table", "inet", PLAN.table], "tables"),
        (["ip", "link", "set", uplink, "nomaster"], f"{uplink} as a port of {PLAN.data.name}"),
        (["ip", "link", "set", PLAN.control.name, "down"], f"{PLAN.control.name} up"),
        (["ip", "link", "set", PLAN.data.name, "mtu", "1400"], "MTU 16384"),
        (["ip", "link", "delete", PLAN.control.name], f"bridge {PLAN.control.name}"),
        (["sysctl", "-q", f"net.ipv4.conf.{PLAN.data.name}.forwarding=1"], "forwarding = 0"),
    ):
        subprocess.run([*far, *command], check=True, capture_output=True)
        for _ in range(2):
            check = machines.prepare(only_check=True)
            assert check.returncode == 1 and said in check.stderr, (command, check.stderr)
        assert machines.prepare().returncode == 0
        assert machines.prepare(only_check=True).returncode == 0


def test_this_machine_finds_what_was_changed_here(machines: Machines) -> None:
    """A port that was taken out, a tunnel that leads elsewhere or is gone, are put right."""
    port = machines.near.plan.data.ports[-1]
    assert machines.near.problems() == []
    commands = [(["ip", "link", "set", port, "nomaster"], f"{port} is no port")]
    if machines.near.plan.data.tunnel is not None:
        anybody = "00:00:00:00:00:00"
        commands += [
            (["bridge", "fdb", "del", anybody, "dev", port], f"{port} leads to []"),
            (["ip", "link", "delete", port], f"no tunnel {port}"),
        ]
    for command, said in commands:
        subprocess.run(command, check=True, capture_output=True)
        assert any(said in problem for problem in machines.near.problems()), said
        machines.near.set_up()
        assert machines.near.problems() == []


def test_without_root_it_says_so(machines: Machines) -> None:
    script = node_script("n2", machines.plan, None)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "sh"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "this needs root" in done.stderr


@pytest.mark.needs("lxd", "btrfs", "openssl")
def test_the_lxd_there_lets_the_controller_in(tmp_path: Path) -> None:
    """Pool, project, port and trust; what is printed is the certificate that the server shows. What
    somebody altered is found, and put right by another run."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -days 30"
    files = ["-subj", "/CN=c1", "-keyout", "client.key", "-out", "client.crt"]
    subprocess.run([*command.split(), *files], cwd=tmp_path, capture_output=True, check=True)
    port = free_port()
    with NetworkLab() as lab, LxdDaemon() as daemon, contextlib.ExitStack() as stack:
        far = lab.namespace("far")
        for device in ("up0", "up1"):
            peer = ("peer", "name", f"{device}p")
            _ip("-n", far.name, "link", "add", device, "type", "veth", *peer)
        plan = far_end(PLAN, ("up0", "up1"))
        for name in ("wanted", "made"):
            path = Path(f"/run/packetcloud-{PLAN.table}.{name}")
            stack.callback(path.unlink, missing_ok=True)

        def prepare(*, only_check: bool = False) -> subprocess.CompletedProcess[str]:
            certificate = (tmp_path / "client.crt").read_text()
            lxd = LxdWish("others", port, certificate, "packetcloud-c1")
            own = [f"LXD_DIR={daemon.folder}", f"LXD_CONF={daemon.folder}/client"]
            return subprocess.run(
                ["ip", "netns", "exec", far.name, "env", *own, "sh"],
                input=node_script("n2", plan, lxd, only_check=only_check),
                capture_output=True,
                text=True,
                check=False,
            )

        check = prepare(only_check=True)
        assert check.returncode == 1, check.stderr
        for words in ("storage pool others", "project packetcloud", f"port {port}", "trust"):
            assert words in check.stderr
        done = prepare()
        assert done.returncode == 0, done.stderr
        assert done.stdout == daemon.certificate.read_text()
        (tmp_path / "n2.crt").write_text(done.stdout)
        again = prepare()
        assert (again.returncode, again.stderr, again.stdout) == (0, "", done.stdout)
        server = HttpsServer(
            f"https://127.0.0.1:{port}",
            *(tmp_path / f"{n}" for n in ("n2.crt", "client.crt", "client.key")),
        )
        assert asyncio.run(_pool_of(server)) == "others"
        daemon.run("lxc", "project", "set", "packetcloud", "restricted.devices.gpu", "allow")
        check = prepare(only_check=True)
        assert check.returncode == 1 and "restricted.devices.gpu = block" in check.stderr
        assert prepare().returncode == 0
        assert (prepare(only_check=True).returncode, prepare(only_check=True).stdout) == (0, "")


async def _pool_of(server: HttpsServer) -> str:
    (node,) = await open_nodes(server, NodeSite("others", PLAN.data.name, PLAN.control.name))
    try:
        return (await node.describe()).pool
    finally:
        await node.close()


@contextlib.contextmanager
def lab_vi_here(machines: Machines) -> Iterator[Namespace]:
    """A VI on this machine's data bridge."""
    with NetworkLab() as lab:
        here = lab.namespace("here")
        port = f"pf{TAG}h"
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", here.name)
        _ip("link", "set", port, "master", PLAN.data.name, "up")
        _ip("-n", here.name, "link", "set", "eth0", "up")
        _ip("-n", here.name, "addr", "add", "198.18.8.77/24", "dev", "eth0")
        yield here


def _pair(stack: contextlib.ExitStack, far: Namespace, here: str, there: str, mtu: int) -> None:
    _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", far.name)
    stack.callback(subprocess.run, ["ip", "link", "delete", here], capture_output=True)
    _ip("link", "set", here, "mtu", str(mtu), "up")
    _ip("-n", far.name, "link", "set", there, "mtu", str(mtu), "up")


def _transfers(address: str, stack: contextlib.ExitStack) -> bool:
    """Send more than one full frame; the listener takes it in without being asked."""
    client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    stack.enter_context(client)
    client.settimeout(3.0)
    client.connect((address, CONTROL.peer_port))
    client.sendall(bytes(20_000))
    client.shutdown(socket.SHUT_WR)
    return _is_drained(client)


def _is_drained(client: socket.socket) -> bool:
    """Tell whether everything that was sent was acknowledged, within a moment."""
    import fcntl
    import struct
    import termios
    import time

    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        unsent = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))[0]
        if unsent == 0:
            return True
        time.sleep(0.02)
    return False
