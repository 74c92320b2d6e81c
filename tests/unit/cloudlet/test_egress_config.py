"""The config file's words about the IP network: what they make, and every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.launches import ConfiguredLaunches

FILE = """\
[cloudlet]
name = "c1"
state = "state"

[network]
egress_device = "eth0"
egress_never = ["198.51.100.0/24"]

[[node]]
socket = "/var/lib/lxd/unix.socket"

[[service]]
manifest = "wan-optimizer"
name = "fetcher"
key = "one.key"
settings = { direction = "compress" }
egress = { allow = ["203.0.113.0/24:443"], resolvers = ["203.0.113.53"], connections = 9 }
listen = { 80 = 8080 }

[[service]]
manifest = "wan-optimizer"
name = "plain"
key = "two.key"
settings = { direction = "compress" }
"""
IMAGE = ImageFiles("ab" * 32, "", ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.key", "two.key"):
        create_identity_file(tmp_path / name)
    return tmp_path


def load(folder: Path, text: str = FILE) -> CloudletConfig:
    (folder / "c1.toml").write_text(text)
    return CloudletConfig.load(folder / "c1.toml")


def _vi(service: str) -> Vi:
    return Vi(1, service, "small", "n1", 7, "token", 16)


def test_a_grant_becomes_a_bridge_a_nic_and_a_chain(folder: Path) -> None:
    config = load(folder)
    plan = config.network.egress
    assert plan is not None and plan.device == "eth0" and str(plan.peer_ipv4) == "10.212.0.1"
    (policy,) = plan.policies
    assert policy.service == "fetcher" and policy.connections_count == 9
    assert policy.listen == {80: 8080}
    assert {"198.51.100.0/24", "10.210.0.0/20", "10.211.0.0/20"} <= set(map(str, plan.never))
    assert config.site_of(config.file.node[0]).egress_bridge == "pcegress0"
    images = {"fetcher": IMAGE, "plain": IMAGE}
    launches = ConfiguredLaunches(config, images)
    limits = launches.limits("small")
    wish = launches.wish(_vi("fetcher"), limits)
    assert wish.egress is not None and str(wish.egress.ipv4) == "10.212.0.16/20"
    assert wish.environment["PACKETCLOUD_EGRESS_IPV4"] == "10.212.0.16/20"
    assert wish.environment["PACKETCLOUD_EGRESS_GATEWAYS"] == "10.212.0.1"
    assert wish.environment["PACKETCLOUD_RESOLVERS"] == "203.0.113.53"
    assert launches.message(_vi("fetcher"))["spec"]["listen"] == [8080]
    plain = launches.wish(_vi("plain"), limits)
    assert plain.egress is None and not any("EGRESS" in name for name in plain.environment)


def test_such_a_service_has_only_nodes_with_a_way(folder: Path) -> None:
    services = load(folder).settings(("n1", "n2"), {}, frozenset({"n1"})).services
    assert services["fetcher"].nodes == {"n1"} and services["plain"].nodes is None
    assert services["fetcher"].denied_per_violation == 100
    assert services["plain"].denied_per_violation == 0


def test_ipv6_is_routed_where_it_is_granted_and_forwarded(folder: Path) -> None:
    text = FILE.replace('"203.0.113.0/24:443"', '"[2001:db8::/32]:443"')
    with pytest.raises(CloudletConfigError, match="egress_forward_ipv6 = true"):
        load(folder, text)
    config = load(folder, text.replace("[[node]]", "egress_forward_ipv6 = true\n[[node]]"))
    wish = ConfiguredLaunches(config, {"fetcher": IMAGE}).wish(
        _vi("fetcher"), config.catalogue.get("small").limits
    )
    gateways = wish.environment["PACKETCLOUD_EGRESS_GATEWAYS"]
    assert gateways == "10.212.0.1 fd5a:7c1e:212::1"


def test_child_processes_listen_at_the_ports_of_the_node(folder: Path) -> None:
    """They have no boundary and no NIC; what is granted is not enforced."""
    text = FILE.replace('socket = "/var/lib/lxd/unix.socket"', 'isolation = "process"')
    config = load(folder, text.replace('egress_device = "eth0"', ""))
    assert config.network.egress is None
    assert config.services[0].egress.listen == {80: 80}
    launches = ConfiguredLaunches(config, {"fetcher": IMAGE})
    assert launches.message(_vi("fetcher"))["spec"]["listen"] == [80]
    assert launches.wish(_vi("fetcher"), launches.limits("small")).egress is None


NODE = """url = "https://192.0.2.2:8443"
server_certificate = "a"
client_certificate = "b"
client_key = "c"
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('egress_device = "eth0"', "", ["[[service]] fetcher: egress", "egress_device is missing"]),
        ('egress_device = "eth0"', 'egress_device = "a b"', ["[network] egress_device"]),
        ('egress_device = "eth0"', 'egress_device = "pcdata0"', ["pcdata0 is another bridge"]),
        ('"198.51.100.0/24"', '"0.0.0.0/0"', ["egress_never: 0.0.0.0/0 is everything"]),
        ('"198.51.100.0/24"', '"x"', ["[network] egress_never"]),
        (
            "egress_never",
            'egress_ipv4 = "10.210.8.0/24"\negress_never',
            ["egress_ipv4", "overlap", "allowed: networks of their own"],
        ),
        ("egress_never", 'egress_ipv4 = "10.9.0.0/28"\negress_never', ["too small"]),
        ('socket = "/var/lib/lxd/unix.socket"', NODE, ["every [[node]] is on another machine"]),
        ('"203.0.113.0/24:443"', '"203.0.113.0/24"', ["egress allow", "NETWORK:PORTS"]),
        ('"203.0.113.0/24:443"', '"10.210.0.1:443"', ["dangerously_allow_internal"]),
        ('"203.0.113.0/24:443"', '"198.51.100.9:443"', ["[network] egress_never"]),
        ("connections = 9", "connections = 0", ["egress", "connections = 0"]),
        ("connections = 9", "conections = 9", ["conections: unknown key"]),
        ('"203.0.113.53"', '"10.211.0.1"', ["egress resolvers", "the control network"]),
        ('"203.0.113.53"', '"name.example"', ["resolvers"]),
        ("80 = 8080", "http = 8080", ["listen", "'http'"]),
        ("80 = 8080", "80 = 1023", ["listen", "1023", "1024"]),
        ("80 = 8080", "4780 = 8080", ["port 4780 is that of [cloudlet] api_listen"]),
        ("80 = 8080", "4790 = 8080", ["port 4790 is that of [cloudlet] control_port"]),
    ],
)
def test_a_mistake_is_named(folder: Path, old: str, new: str, words: list[str]) -> None:
    """File, table and key, and what is allowed."""
    assert old in FILE
    with pytest.raises(CloudletConfigError) as caught:
        load(folder, FILE.replace(old, new, 1))
    assert all(word in str(caught.value) for word in ["c1.toml", *words]), str(caught.value)


@pytest.mark.parametrize(
    "place",
    ["192.0.2.2:8443", "192.0.2.7:4800"],
)
def test_what_the_file_names_of_ours_is_closed(folder: Path, place: str) -> None:
    """LXD of other nodes and the domain controller, by address."""
    node = NODE.replace("https://", "https://") + 'name = "n2"\n'
    domain = '[domain]\nurl = ["https://192.0.2.7:4800"]\nkey = "one.key"\n'
    text = FILE.replace("[[service]]", f"[[node]]\n{node}\n{domain}\n[[service]]", 1)
    load(folder, text)
    with pytest.raises(CloudletConfigError, match="which no VI reaches"):
        load(folder, text.replace('"203.0.113.0/24:443"', f'"{place}"'))
