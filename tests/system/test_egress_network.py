"""The way to the IP network on the real kernel: what is granted is reached, and nothing else.

VIs are network namespaces on the bridge, without LXD's filters; the IP network is another one
behind a device of this machine. Beside a "denied" stands the same try with that defence gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import pytest

from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.egress import Destination, EgressPolicy
from packetcloud.cloudlet.egress_filters import EgressElements, EgressPlan
from packetcloud.cloudlet.filters import NetworkPlan
from packetcloud.cloudlet.network import NetworkError, NodeNetwork
from packetcloud.testbed.namespaces import Namespace, NetworkLab
from tests.unit.cloudlet import test_filters as plain

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("nft", "ip"),
    pytest.mark.xdist_group("lxd"),  # the same addresses on this machine
]
TAG = str(os.getpid() % 100_000)
DEVICE = f"pe{TAG}w"
FIRST, SECOND, STANDBY = 16, 17, 18
WEB, HIDDEN_PORT, VI_PORT, NODE_PORT = 24080, 24081, 24082, 24083
WORLD, WORLD_IPV6 = "198.51.100.9", "2001:db8:1::9"
PRIVATE = "10.99.0.9"
SHARED = "100.99.0.9"
POLICY = EgressPolicy(
    "translator",
    (Destination.of(f"0.0.0.0/0:{WEB}"), Destination.of(f"[2001:db8::/32]:{WEB}")),
    connections_count=1000,
    connections_per_s=1000,
    listen={NODE_PORT: VI_PORT},
)
PLAN = NetworkPlan(
    replace(plain.DATA, name=f"pe{TAG}d", peer_port=24700),
    replace(plain.CONTROL, name=f"pe{TAG}c", peer_port=24710),
    f"pc_egress_{TAG}",
    EgressPlan(
        f"pe{TAG}e",
        Subnet(IPv4Network("10.212.0.0/24"), IPv6Network("fd00:12::/64")),
        DEVICE,
        (POLICY,),
        (ip_network("198.51.100.77/32"),),
        forwards_ipv6=True,
    ),
)
assert PLAN.egress is not None
EGRESS = PLAN.egress
FORWARDING = Path(f"/proc/sys/net/ipv4/conf/{DEVICE}/forwarding")
FORWARDING_IPV6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
WAIT_S = 5.0


@dataclass
class Place:
    network: NodeNetwork
    vis: Mapping[int, Namespace]
    world: Namespace

    def admit(self, *numbers: int, listener: int | None = None) -> None:
        listeners = {} if listener is None else {NODE_PORT: (listener, VI_PORT)}
        vis = {POLICY.service: frozenset(numbers)}
        self.network.admit(EgressElements(vis, listeners))

    def connects(self, number: int, address: str, port: int) -> bool:
        return self.vis[number].run(_connects, address, port)


@pytest.fixture
def place() -> Iterator[Place]:
    """This machine between two VIs and the world, which has closed addresses, too."""
    with NetworkLab() as lab, contextlib.ExitStack() as stack:
        world = lab.namespace("world")
        stack.callback(_run, "ip", "link", "delete", DEVICE)
        _ip("link", "add", DEVICE, "type", "veth", "peer", "name", "eth0", "netns", world.name)
        _ip("addr", "add", "198.51.100.1/25", "dev", DEVICE)
        _ip("addr", "add", "2001:db8:1::1/64", "dev", DEVICE, "nodad")
        _ip("link", "set", DEVICE, "up")
        inside = ("-n", world.name)
        _ip(*inside, "link", "set", "eth0", "up")
        for address in (f"{WORLD}/25", "198.51.100.77/25", f"{PRIVATE}/24", f"{SHARED}/32"):
            _ip(*inside, "addr", "add", address, "dev", "eth0")
        _ip(*inside, "addr", "add", f"{WORLD_IPV6}/64", "dev", "eth0", "nodad")
        for address in ("10.99.0.0/24", SHARED):
            _ip("route", "replace", address, "via", WORLD, "dev", DEVICE)
        network = NodeNetwork(PLAN)
        stack.callback(network.tear_down)
        network.set_up()
        vis = {number: _vi(lab, number) for number in (FIRST, SECOND)}
        place = Place(network, vis, world)
        place.admit(FIRST, SECOND)
        yield place


def _vi(lab: NetworkLab, number: int) -> Namespace:
    """Return a namespace on the bridge; its port is isolated, as LXD makes it."""
    vi = lab.namespace(f"vi{number}")
    port = f"pe{TAG}p{number}"
    _ip("link", "add", port, "type", "veth", "peer", "name", "eth2", "netns", vi.name)
    _ip("link", "set", port, "master", EGRESS.name, "up")
    subprocess.run(["bridge", "link", "set", "dev", port, "isolated", "on"], check=True)
    addresses = EGRESS.subnet.addresses(number)
    inside = ("-n", vi.name)
    _ip(*inside, "link", "set", "eth2", "up")
    _ip(*inside, "addr", "add", str(addresses.ipv4), "dev", "eth2")
    _ip(*inside, "addr", "add", str(addresses.ipv6), "dev", "eth2", "nodad")
    _ip(*inside, "route", "add", "default", "via", str(EGRESS.peer_ipv4))
    _ip(*inside, "-6", "route", "add", "default", "via", str(EGRESS.peer_ipv6))
    return vi


@pytest.mark.parametrize("address", [WORLD, WORLD_IPV6])
def test_what_is_granted_is_reached(place: Place, address: str) -> None:
    """With the machine's address, not the VI's; and what comes back comes back."""
    with (
        place.world.run(_tcp, address, WEB) as web,
        place.vis[FIRST].run(_client, address, WEB) as client,
    ):
        web.settimeout(WAIT_S)
        server, peer = web.accept()
        with server:
            assert peer[0] in ("198.51.100.1", "2001:db8:1::1")
            client.sendall(b"ask")
            assert server.recv(100) == b"ask"
            server.sendall(bytes(200_000))
            assert _received(client, 200_000)
    count = place.network.egress_counts().of[FIRST]
    assert (count.opened, count.denied_packets, count.bounded) == (1, 0, 0)


def test_everything_else_is_denied_and_counted(place: Place) -> None:
    """Other ports, private networks, this machine, its bridges, the neighbour, the operator's own.

    With the rules gone, and the neighbour's port no longer isolated, the same tries succeed.
    """
    neighbour = str(EGRESS.subnet.addresses(SECOND).ipv4.ip)
    here = {
        "this machine": ("198.51.100.1", WEB),
        "its address on the bridge": (str(EGRESS.peer_ipv4), WEB),
        "its address on the bridge, IPv6": (str(EGRESS.peer_ipv6), WEB),
        "the data bridge": (str(PLAN.data.peer_ipv4), WEB),
        "the control bridge": (str(PLAN.control.peer_ipv4), WEB),
    }
    there = {
        "another port": (WORLD, HIDDEN_PORT),
        "another port, IPv6": (WORLD_IPV6, HIDDEN_PORT),
        "a private network": (PRIVATE, WEB),
        "a network that carriers share": (SHARED, WEB),
        "what the operator closed": ("198.51.100.77", WEB),
    }
    with contextlib.ExitStack() as stack:
        for address, port in here.values():
            stack.enter_context(_tcp(address, port))
        for address, port in there.values():
            stack.enter_context(place.world.run(_tcp, address, port))
        stack.enter_context(place.vis[SECOND].run(_tcp, neighbour, WEB))
        tries = {**here, **there, "the neighbour": (neighbour, WEB)}
        found = {name for name, to in tries.items() if place.connects(FIRST, *to)}
        assert found == set()
        assert place.network.egress_counts().of[FIRST].denied_packets >= len(tries) - 1
        for chain in ("egress", "egress_forward"):
            subprocess.run(["nft", "flush", "chain", "inet", PLAN.table, chain], check=True)
        for number in (FIRST, SECOND):
            port = f"pe{TAG}p{number}"
            subprocess.run(["bridge", "link", "set", "dev", port, "isolated", "off"], check=True)
        _ip("-n", place.vis[FIRST].name, "neigh", "flush", "dev", "eth2")  # it asks anew
        assert {name for name, to in tries.items() if place.connects(FIRST, *to)} == set(tries)


def test_other_protocols_are_denied(place: Place) -> None:
    """UDP to the very place and port, to name servers that nobody named, and echo requests."""
    with place.world.run(_udp, WORLD, WEB) as web, place.world.run(_udp, WORLD, 53) as names:
        for port in (WEB, 53):
            place.vis[FIRST].run(_send, WORLD, port)
        assert _is_silent(web) and _is_silent(names)
    assert place.network.egress_counts().of[FIRST].denied_packets == 2


def test_only_the_launched_are_let_out(place: Place) -> None:
    """Nobody before a launch, nobody after; what was open stands still and is no new try."""
    with place.world.run(_tcp, WORLD, WEB) as web:
        place.admit(SECOND)
        assert not place.connects(FIRST, WORLD, WEB)
        place.admit(FIRST, SECOND)
        with place.vis[FIRST].run(_client, WORLD, WEB) as client:
            web.settimeout(WAIT_S)
            server, _ = web.accept()
            with server:
                place.admit(SECOND)
                denied = place.network.egress_counts().of[FIRST].denied_packets
                client.sendall(b"more")
                server.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    server.recv(10)
                assert place.network.egress_counts().of[FIRST].denied_packets == denied
                place.admit(FIRST)
                server.settimeout(WAIT_S)
                assert server.recv(10) == b"more"
                place.network.set_up()  # as the next controller does
                client.sendall(b"after")
                assert server.recv(10) == b"after"


def test_another_address_has_no_way(place: Place) -> None:
    """Who takes an address that nobody was given is not in any set."""
    _ip("-n", place.vis[FIRST].name, "addr", "replace", "10.212.0.99/24", "dev", "eth2")
    with place.world.run(_tcp, WORLD, WEB):
        assert not place.vis[FIRST].run(_connects, WORLD, WEB, "10.212.0.99")
        assert place.connects(FIRST, WORLD, WEB)


def test_connections_are_bounded(place: Place) -> None:
    """So many at once, of each VI by itself; one that ends makes room."""
    policy = replace(POLICY, connections_count=3)
    place.network.change(replace(PLAN, egress=replace(EGRESS, policies=(policy,))))
    with place.world.run(_tcp, WORLD, WEB), contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(place.vis[FIRST].run(_client, WORLD, WEB))
        assert not place.connects(FIRST, WORLD, WEB)
        assert place.connects(SECOND, WORLD, WEB)
        assert place.network.egress_counts().of[FIRST].bounded >= 1


def test_who_calls_takes_nothing_from_what_goes_out(place: Place) -> None:
    """As many as may come in have come: no further one does, and the VI itself still connects."""
    policy = replace(POLICY, connections_count=2)
    place.network.change(replace(PLAN, egress=replace(EGRESS, policies=(policy,))))
    node = "198.51.100.1"
    with place.world.run(_tcp, WORLD, WEB), contextlib.ExitStack() as stack:
        stack.enter_context(place.vis[FIRST].run(_tcp, "::", VI_PORT))
        place.admit(FIRST, SECOND, listener=FIRST)
        for _ in range(2):
            stack.enter_context(place.world.run(_client, node, NODE_PORT))
        assert not place.world.run(_connects, node, NODE_PORT)
        assert place.connects(FIRST, WORLD, WEB)


def test_new_connections_are_bounded_by_time(place: Place) -> None:
    """A burst of so many; the next waits for its second. Without the bound all go through."""
    policy = replace(POLICY, connections_per_s=2)
    with place.world.run(_tcp, WORLD, WEB):
        assert [place.connects(FIRST, WORLD, WEB) for _ in range(8)] == [True] * 8
        place.network.change(replace(PLAN, egress=replace(EGRESS, policies=(policy,))))
        assert [place.connects(FIRST, WORLD, WEB) for _ in range(8)] != [True] * 8
    assert place.network.egress_counts().of[FIRST].bounded >= 1


@pytest.mark.parametrize("is_upload", [True, False])
def test_bytes_are_bounded_by_time(place: Place, is_upload: bool) -> None:
    """A MiB a second each way, and two at once; without the bound it is more in the same time."""
    with place.world.run(_tcp, WORLD, WEB) as web:
        bounded = replace(POLICY, mib_per_s=1)
        for policy, is_slow in ((bounded, True), (POLICY, False)):
            place.network.change(replace(PLAN, egress=replace(EGRESS, policies=(policy,))))
            with place.vis[FIRST].run(_client, WORLD, WEB) as client, web.accept()[0] as server:
                source, sink = (client, server) if is_upload else (server, client)
                count, took_s = _moved(source, sink, 8 << 20, 2.0)
                assert (count < (took_s + 2.5) * (1 << 20)) == is_slow, f"{count} in {took_s}"


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8:1::1"])
def test_a_port_of_the_node_leads_to_the_vi_that_listens(place: Place, address: str) -> None:
    """And to another one after it moved; other ports of the VI are nobody's."""
    with contextlib.ExitStack() as stack:
        inner = {n: stack.enter_context(vi.run(_tcp, "::", VI_PORT)) for n, vi in place.vis.items()}
        stack.enter_context(place.vis[FIRST].run(_tcp, "::", HIDDEN_PORT))
        assert not place.world.run(_connects, address, NODE_PORT)
        for number in (FIRST, SECOND):
            place.admit(FIRST, SECOND, listener=number)
            with place.world.run(_client, address, NODE_PORT) as client:
                inner[number].settimeout(WAIT_S)
                server, peer = inner[number].accept()
                with server:
                    assert peer[0].endswith((WORLD, WORLD_IPV6))  # who calls is seen
                    server.sendall(bytes(100_000))
                    assert _received(client, 100_000)
        assert not place.world.run(_connects, address, HIDDEN_PORT)
        _ip("-n", place.world.name, "route", "add", "10.212.0.0/24", "via", "198.51.100.1")
        assert not place.world.run(_connects, "10.212.0.16", VI_PORT)
        place.admit(listener=None)
        assert not place.world.run(_connects, address, NODE_PORT)


def test_whoever_listens_cannot_call(place: Place) -> None:
    """From the port at which a VI listens go answers, to whom it was not asked by goes nothing."""
    place.admit(FIRST, listener=FIRST)
    own = str(EGRESS.subnet.addresses(FIRST).ipv4.ip)
    with place.world.run(_tcp, PRIVATE, WEB):
        assert not place.vis[FIRST].run(_connects, PRIVATE, WEB, own, VI_PORT)


def test_what_was_named_is_reached_also_where_it_is_internal(place: Place) -> None:
    """A private address, this machine, a name server; beside them all stays closed."""
    policy = replace(
        POLICY,
        internal=(Destination.of(f"{PRIVATE}:{WEB}"), Destination.of(f"198.51.100.1:{WEB}")),
        resolvers=(ip_network(f"{WORLD}/32").network_address,),
    )
    place.network.change(replace(PLAN, egress=replace(EGRESS, policies=(policy,))))
    with (
        place.world.run(_tcp, PRIVATE, WEB),
        place.world.run(_tcp, PRIVATE, HIDDEN_PORT),
        _tcp("198.51.100.1", WEB),
        place.world.run(_udp, WORLD, 53) as names,
    ):
        assert place.connects(FIRST, PRIVATE, WEB)
        assert not place.connects(FIRST, PRIVATE, HIDDEN_PORT)
        assert place.connects(FIRST, "198.51.100.1", WEB)
        place.vis[FIRST].run(_send, WORLD, 53)
        assert not _is_silent(names)


def test_this_machine_routes_for_vis_alone(place: Place) -> None:
    """It forwards because of us: nothing else passes, neither to VIs' bridges nor anywhere.

    With that rule gone, whoever is on the network before the device gets through this machine.
    """
    behind = f"pe{TAG}l"
    with NetworkLab() as lab, contextlib.ExitStack() as stack:
        lan = lab.namespace("lan")
        stack.callback(_run, "ip", "link", "delete", behind)
        _ip("link", "add", behind, "type", "veth", "peer", "name", "eth0", "netns", lan.name)
        _ip("addr", "add", "198.51.100.129/25", "dev", behind)
        _ip("link", "set", behind, "up")
        # Its answers must come back: that way is not ours to close.
        Path(f"/proc/sys/net/ipv4/conf/{behind}/forwarding").write_text("1")
        _ip("-n", lan.name, "link", "set", "eth0", "up")
        _ip("-n", lan.name, "addr", "add", "198.51.100.130/25", "dev", "eth0")
        _ip("-n", lan.name, "route", "add", "default", "via", "198.51.100.129")
        _ip("-n", place.world.name, "route", "add", "198.51.100.128/25", "via", "198.51.100.1")
        stack.enter_context(lan.run(_tcp, "198.51.100.130", WEB))
        assert not place.world.run(_connects, "198.51.100.130", WEB)
        subprocess.run(["nft", "flush", "chain", "inet", PLAN.table, "egress_forward"], check=True)
        assert place.world.run(_connects, "198.51.100.130", WEB)


def test_what_was_turned_on_is_turned_off() -> None:
    """Also by another process after a crash, which finds it noted at the bridge."""
    before = FORWARDING_IPV6.read_text()
    with contextlib.ExitStack() as stack:
        stack.callback(_run, "ip", "link", "delete", DEVICE)
        _ip("link", "add", DEVICE, "type", "veth", "peer", "name", f"{DEVICE}x")
        FORWARDING.write_text("0")
        first, second = NodeNetwork(PLAN), NodeNetwork(PLAN)
        stack.callback(second.tear_down)
        first.set_up()
        assert FORWARDING.read_text() == FORWARDING_IPV6.read_text() == "1\n"
        assert first.problems() == []
        first.admit(EgressElements({POLICY.service: frozenset({FIRST})}))
        assert first.problems() == []
        FORWARDING.write_text("0")
        assert first.problems() == [f"{FORWARDING} is not 1"]
        second.set_up()
        assert second.problems() == []
        assert "egress_transit" in _run(
            "nft", "list", "chain", "inet", PLAN.table, "egress_forward"
        )
        second.tear_down()
        assert FORWARDING.read_text() == "0\n" and FORWARDING_IPV6.read_text() == before
        assert not Path(f"/sys/class/net/{EGRESS.name}").exists()


def test_a_machine_that_forwards_anyway_keeps_its_ways() -> None:
    """What it did before us is not ours to stop, neither while we are there nor afterwards."""
    with contextlib.ExitStack() as stack:
        stack.callback(_run, "ip", "link", "delete", DEVICE)
        _ip("link", "add", DEVICE, "type", "veth", "peer", "name", f"{DEVICE}x")
        FORWARDING.write_text("1")
        for forwards_ipv6 in (False, True):
            egress = replace(EGRESS, forwards_ipv6=forwards_ipv6)
            network = NodeNetwork(replace(PLAN, egress=egress))
            stack.callback(network.tear_down)
            network.set_up()
            chain = _run("nft", "list", "chain", "inet", PLAN.table, "egress_forward")
            assert "egress_out" in chain and "nfproto ipv4 goto egress_transit" not in chain
            assert ("nfproto ipv6 goto egress_transit" in chain) == forwards_ipv6
            network.tear_down()
            assert FORWARDING.read_text() == "1\n"


def test_a_device_that_is_not_there_is_named() -> None:
    network = NodeNetwork(PLAN)
    try:
        with pytest.raises(NetworkError, match=f"egress_device: no device {DEVICE}"):
            network.set_up()
    finally:
        network.tear_down()


def _tcp(address: str, port: int) -> socket.socket:
    made = socket.socket(_family(address), socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen(100)
    return made


def _udp(address: str, port: int) -> socket.socket:
    made = socket.socket(_family(address), socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def _client(address: str, port: int) -> socket.socket:
    made = socket.socket(_family(address), socket.SOCK_STREAM)
    made.settimeout(WAIT_S)
    made.connect((address, port))
    return made


def _connects(address: str, port: int, source: str | None = None, source_port: int = 0) -> bool:
    with socket.socket(_family(address), socket.SOCK_STREAM) as client:
        client.settimeout(0.4)
        if source is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((source, source_port))
        try:
            client.connect((address, port))
        except OSError:
            return False
        return True


def _send(address: str, port: int) -> None:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (address, port))


def _moved(
    source: socket.socket, sink: socket.socket, count: int, limit_s: float
) -> tuple[int, float]:
    """Send so many bytes; return how many came within the limit, and how long that was."""
    source.settimeout(limit_s)
    sink.settimeout(0.2)
    sender = threading.Thread(target=_send_all, args=[source, count])
    began = time.monotonic()
    sender.start()
    got = 0
    while got < count and time.monotonic() - began < limit_s:
        with contextlib.suppress(TimeoutError):
            got += len(sink.recv(1 << 20))
    took_s = time.monotonic() - began
    sink.close()
    sender.join()
    return got, took_s


def _send_all(source: socket.socket, count: int) -> None:
    with contextlib.suppress(OSError):
        source.sendall(bytes(count))


def _received(client: socket.socket, count: int) -> bool:
    left = count
    while left and (data := client.recv(1 << 16)):
        left -= len(data)
    return left == 0


def _is_silent(receiver: socket.socket) -> bool:
    receiver.settimeout(0.3)
    try:
        receiver.recv(100)
    except TimeoutError:
        return True
    return False


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
