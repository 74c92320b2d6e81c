"""Bridges and filters on the real kernel: a machine on a bridge reaches the peer and nobody else.

The machine is a network namespace, which has none of the filters that LXD puts before a VI.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.cloudlet.filters import NetworkPlan
from packetcloud.cloudlet.network import NodeNetwork
from packetcloud.testbed.namespaces import Namespace, NetworkLab
from tests.unit.cloudlet import test_filters as plain

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("nft", "ip"),
    pytest.mark.xdist_group("lxd"),  # the same addresses on this machine
]
WAIT_S = 5.0
TAG = str(os.getpid() % 100_000)
# Ports that no other test's router or controller has, on all addresses of this machine.
DATA = replace(plain.DATA, name=f"pn{TAG}d", peer_port=24700)
CONTROL = replace(plain.CONTROL, name=f"pn{TAG}c", peer_port=24710)
PLAN = NetworkPlan(DATA, CONTROL, f"pc_test_{TAG}")
VI = {"data": ("198.18.8.9", "fd00:8::9"), "control": ("198.18.9.9", "fd00:9::9")}


@pytest.fixture
def network() -> Iterator[NodeNetwork]:
    made = NodeNetwork(PLAN)
    try:
        made.set_up()
        yield made
    finally:
        made.tear_down()


@pytest.fixture
def vi(network: NodeNetwork) -> Iterator[Namespace]:
    """A namespace with eth0 on the data bridge and eth1 on the control bridge."""
    with NetworkLab() as lab:
        namespace = lab.namespace("vi")
        for number, bridge in enumerate((PLAN.data, PLAN.control)):
            port = f"pn{TAG}p{number}"
            peer = ("peer", "name", f"eth{number}", "netns", namespace.name)
            _ip("link", "add", port, "mtu", str(bridge.mtu), "type", "veth", *peer)
            _ip("link", "set", port, "master", bridge.name, "up")
        for number, addresses in enumerate(VI.values()):
            inside = ("-n", namespace.name)
            device = f"eth{number}"
            _ip(*inside, "link", "set", device, "mtu", str((PLAN.data, PLAN.control)[number].mtu))
            _ip(*inside, "link", "set", device, "up")
            _ip(*inside, "addr", "add", f"{addresses[0]}/24", "dev", device)
            _ip(*inside, "addr", "add", f"{addresses[1]}/64", "dev", device, "nodad")
        for family, gateway in (("-4", "198.18.8.1"), ("-6", "fd00:8::1")):
            _ip("-n", namespace.name, family, "route", "add", "default", "via", gateway)
        yield namespace


@pytest.mark.parametrize("address", ["198.18.8.1", "fd00:8::1"])
def test_the_router_is_reached_by_its_port_alone(
    network: NodeNetwork, vi: Namespace, address: str
) -> None:
    """Datagrams to the port arrive, the largest the link takes too; another port's do not."""
    with _udp(address, DATA.peer_port) as wanted, _udp(address, DATA.peer_port + 1) as other:
        largest = bytes(DATA.mtu - 48)
        vi.run(_send, address, DATA.peer_port + 1, b"no")
        vi.run(_send, address, DATA.peer_port, largest)
        data, sender = wanted.recvfrom(1 << 16)
        assert data == largest
        wanted.sendto(b"back", sender)
        assert _is_silent(other)
    assert network.dropped_packets() >= 1


@pytest.mark.parametrize("address", ["198.18.9.1", "fd00:9::1"])
def test_the_controller_is_reached_by_its_port_alone(
    network: NodeNetwork, vi: Namespace, address: str
) -> None:
    with _tcp(address, CONTROL.peer_port), _tcp(address, CONTROL.peer_port + 1):
        assert vi.run(_connects, address, CONTROL.peer_port)
        assert not vi.run(_connects, address, CONTROL.peer_port + 1)


def test_nothing_else_of_this_machine_is_reached(network: NodeNetwork, vi: Namespace) -> None:
    """Neither bridge leads to the other's peer, to other addresses of the machine, or through."""
    with _tcp("198.18.9.1", CONTROL.peer_port), _udp("198.18.8.1", DATA.peer_port) as router:
        # By the data bridge, with the address of the data bridge.
        assert not vi.run(_connects, "198.18.9.1", CONTROL.peer_port, "198.18.8.9")
        vi.run(_send, "198.18.8.1", DATA.peer_port, b"x", "198.18.9.9")
        assert _is_silent(router)
    with _tcp("0.0.0.0", 0) as everywhere:
        port = everywhere.getsockname()[1]
        for address in ("198.18.8.1", "198.18.9.1", "192.0.2.1"):
            assert not vi.run(_connects, address, port)


def test_what_is_for_others_is_not_sent_on(network: NodeNetwork, vi: Namespace) -> None:
    """This machine is no router for VIs, not even for what they send to its hardware address."""
    before = network.dropped_packets()
    vi.run(_send, "198.18.8.1", 9, b"x")
    vi.run(_send, "203.0.113.9", 9, b"through")
    assert network.dropped_packets() >= before + 2


def test_making_it_twice_and_removing_it_twice(network: NodeNetwork) -> None:
    assert network.problems() == []
    network.set_up()
    assert network.problems() == []
    assert [one.is_active for one in network.protections()] == [True]
    network.tear_down()
    network.tear_down()
    assert not os.path.exists(f"/sys/class/net/{PLAN.data.name}")  # noqa: PTH110
    listing = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert PLAN.table not in listing.stdout


def test_what_somebody_changed_is_found_and_put_right(network: NodeNetwork) -> None:
    """A chain that was emptied, an address that is gone, a bridge that is down or away."""
    for command, said in (
        (["nft", "flush", "chain", "inet", PLAN.table, "data"], "was changed"),
        (["nft", "delete", "table", "inet", PLAN.table], "is gone"),
        (["ip", "addr", "flush", "dev", PLAN.data.name], "has no address"),
        (["ip", "link", "set", PLAN.data.name, "down"], "is down"),
        (["ip", "link", "set", PLAN.data.name, "mtu", "1500"], "MTU 1500, wanted 16384"),
        (["ip", "link", "delete", PLAN.control.name], f"no bridge {PLAN.control.name}"),
    ):
        subprocess.run(command, check=True, capture_output=True)
        assert any(said in problem for problem in network.problems())
        (protection,) = network.protections()
        assert not protection.is_active
        network.set_up()
        assert network.problems() == []


def test_a_bridge_of_somebody_else_stays() -> None:
    _ip("link", "add", PLAN.data.name, "type", "bridge")
    network = NodeNetwork(PLAN)
    try:
        network.set_up()
        assert network.problems() == []
        network.tear_down()
        assert os.path.exists(f"/sys/class/net/{PLAN.data.name}")  # noqa: PTH110
    finally:
        network.tear_down()
        _ip("link", "delete", PLAN.data.name)


def test_over_an_uplink_only_the_peer_is_reached(network: NodeNetwork, vi: Namespace) -> None:
    """The router is another machine behind a port of the bridge; this one is nobody's peer."""
    uplink = f"pn{TAG}u"
    with NetworkLab() as lab, contextlib.ExitStack() as stack:
        router = lab.namespace("router")
        peer = ("peer", "name", "eth0", "netns", router.name)
        _ip("link", "add", uplink, "mtu", str(DATA.mtu), "type", "veth", *peer)
        stack.callback(subprocess.run, ["ip", "link", "delete", uplink], capture_output=True)
        _ip("addr", "flush", "dev", PLAN.data.name)
        _ip("-n", router.name, "link", "set", "eth0", "mtu", str(DATA.mtu), "up")
        _ip("-n", router.name, "addr", "add", "198.18.8.1/24", "dev", "eth0")
        _ip("-n", router.name, "addr", "add", "fd00:8::1/64", "dev", "eth0", "nodad")
        behind = NodeNetwork(replace(PLAN, data=replace(PLAN.data, uplink=uplink)))
        behind.set_up()
        for address in ("198.18.8.1", "fd00:8::1"):
            wanted = stack.enter_context(router.run(_udp, address, DATA.peer_port))
            other = stack.enter_context(router.run(_udp, address, DATA.peer_port + 1))
            vi.run(_send, address, DATA.peer_port + 1, b"no")
            vi.run(_send, address, DATA.peer_port, b"yes")
            assert wanted.recv(100) == b"yes"
            assert _is_silent(other)


def _udp(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(WAIT_S)
    made.bind((address, port))
    return made


def _tcp(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.bind((address, port))
    made.listen()
    return made


def _send(address: str, port: int, data: bytes, source: str | None = None) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        if source is not None:
            sender.bind((source, 0))
        sender.sendto(data, (address, port))


def _connects(address: str, port: int, source: str | None = None) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        if source is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            client.bind((source, 0))
        try:
            client.connect((address, port))
        except OSError:
            return False
        return True


def _is_silent(receiver: socket.socket) -> bool:
    receiver.settimeout(0.3)
    try:
        receiver.recv(100)
    except TimeoutError:
        return True
    return False


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def test_a_bridge_keeps_its_address_when_vis_come_and_go(network: NodeNetwork) -> None:
    """Or every VI that stays would send to an address that is nobody's any more."""
    names = (PLAN.data.name, PLAN.control.name)
    before = [_address_of(name) for name in names]
    for name in names:
        _ip("link", "add", f"pn{TAG}v", "address", "00:00:00:00:00:02", "type", "veth")
        _ip("link", "set", f"pn{TAG}v", "master", name, "up")
        assert _address_of(name) in before
        _ip("link", "delete", f"pn{TAG}v")
    assert [_address_of(name) for name in names] == before
    assert len(set(before)) == 2


def _address_of(device: str) -> str:
    return Path(f"/sys/class/net/{device}/address").read_text().strip()
