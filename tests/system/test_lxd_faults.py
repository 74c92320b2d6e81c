"""Real LXD when something goes wrong: tricks, crashes of the daemon, servers that are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from packetcloud.cloudlet.container_config import build, live_differences
from packetcloud.cloudlet.containers import (
    ContainerFacts,
    ContainerState,
    ImageFiles,
    NodeAdapter,
)
from packetcloud.cloudlet.errors import NodeError, NodeRefusedError, NodeUnreachableError
from packetcloud.cloudlet.lxd.address import HttpsServer, UnixSocket
from packetcloud.cloudlet.lxd.connection import LxdConnection
from packetcloud.cloudlet.lxd.discovery import open_nodes
from packetcloud.cloudlet.lxd.node import LxdNode
from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.cloudlet.policy import live_violations, shared_id_maps
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_daemon import LxdCluster, LxdDaemon
from packetcloud.testbed.lxd_remains import sweep_stale_lxd
from packetcloud.testbed.tiny_image import make_tiny_image
from tests.node_contract import LIMITS, Place, logged, wait_for
from tests.system.lxd_places import Bridges, bridges, needs_lxd, place_at, socket_of
from tests.unit.cloudlet.tricks import TRICKS, Trick

pytestmark = needs_lxd

World = tuple[LxdDaemon, Bridges, ImageFiles]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with bridges() as made, LxdDaemon(listens=True) as daemon:
        yield daemon, made, make_tiny_image(tmp_path_factory.mktemp("lxd"))


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    daemon, made, image = world
    yield place_at(socket_of(daemon), made.site(), image)


def _by_hand(daemon: LxdDaemon, name: str, **document: Any) -> None:
    """Change a container past the cloudlet, as an administrator of the node can."""
    daemon.query(f"/1.0/instances/{name}?project={PROJECT}", "PATCH", document)


def _read_as_it_is(world: World, name: str) -> ContainerFacts:
    """Read a container without putting its project right first, as `open_nodes` would."""
    daemon, made, _ = world

    async def body() -> ContainerFacts:
        node = LxdNode(LxdConnection(socket_of(daemon), PROJECT), "node", made.site())
        try:
            return await node.read(name)
        finally:
            await node.close()

    return asyncio.run(body())


@pytest.fixture(scope="module")
def target(world: World) -> Iterator[str]:
    """A container of ours in a project whose restrictions somebody has taken away."""
    daemon, made, image = world
    place = place_at(socket_of(daemon), made.site(), image)

    async def body(node: NodeAdapter) -> str:
        wish = place.wish(99)
        await node.create(wish)
        place.names.clear()
        return wish.name

    name = place.run(body)
    path = f"/1.0/projects/{PROJECT}"
    project = daemon.query(path)
    daemon.query(path, "PUT", {"config": {**project["config"], "restricted": "false"}})
    yield name
    daemon.query(f"/1.0/instances/{name}?project={PROJECT}", "DELETE")
    daemon.query(path, "PUT", {"config": project["config"]})


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_a_trick_by_hand_is_found(world: World, target: str, trick: Trick) -> None:
    """Even where LXD takes it, its live configuration shows it; else LXD itself refuses."""
    daemon, made, _ = world
    path = f"/1.0/instances/{target}?project={PROJECT}"
    before = daemon.query(path)
    config, devices = trick.apply(before["config"], before["devices"])
    document = {**before, "config": config, "devices": devices}
    try:
        daemon.query(path, "PUT", document)
    except ChildError:
        return
    try:
        assert live_violations(_read_as_it_is(world, target).live, made.site()) != []
    finally:
        daemon.query(path, "PUT", before)


def test_our_project_refuses_most_tricks_itself(world: World, place: Place) -> None:
    """Behind our policy stand LXD's restrictions: the dangerous ones it does not even take."""
    daemon = world[0]
    refused = []

    async def body(node: NodeAdapter) -> None:
        wish = place.wish()
        await node.create(wish)
        path = f"/1.0/instances/{wish.name}?project={PROJECT}"
        before = daemon.query(path)
        for trick in TRICKS:
            config, devices = trick.apply(before["config"], before["devices"])
            try:
                daemon.query(path, "PUT", {**before, "config": config, "devices": devices})
            except ChildError:
                refused.append(trick.name)
                continue
            await node.delete(wish.name)
            await node.create(wish)

    place.run(body)
    assert {
        "privileged",
        "nesting",
        "shared map of ids",
        "raw.lxc",
        "raw.idmap",
        "raw.apparmor",
        "raw.seccomp",
        "mount intercepted",
        "kernel modules",
        "folder of the host",
        "root of the host",
        "character device",
        "block device",
        "gpu",
        "usb",
        "socket of the host",
        "port of the host",
    } <= set(refused)


def test_of_the_nodes_folders_a_container_sees_a_routers_alone(
    world: World, tmp_path: Path
) -> None:
    """It writes nothing there; LXD takes no other folder in its place, and follows no link out of
    it. A running container gets it back, one whose folder is gone starts."""
    daemon, made, image = world
    folder = tmp_path / "packetcloud-0" / "lanes" / ("0" * 16)
    folder.mkdir(parents=True)
    (folder / "door").touch()
    link = folder.with_name("1" * 16)
    link.symlink_to("/etc")
    site = replace(made.site(), is_here=True)
    place = place_at(socket_of(daemon), site, image)

    async def body(node: NodeAdapter) -> None:
        wish = replace(place.wish(), lanes=str(folder))
        path = f"/1.0/instances/{wish.name}?project={PROJECT}"
        seen = f"/run/packetcloud/lanes/{folder.name}"

        def inside(*command: str) -> str:
            return daemon.run("lxc", "exec", wish.name, "--project", PROJECT, "--", *command)

        await node.create(wish)
        await node.start(wish.name)
        assert live_violations((await node.read(wish.name)).live, site) == []
        assert inside("/bin/ls", seen).split() == ["door"]
        with pytest.raises(ChildError):
            inside("/bin/sh", "-c", f"echo > {seen}/more")
        before = daemon.query(path)
        devices = before["devices"]
        for source in ("/etc", str(tmp_path), f"{folder}/../../..", str(link)):
            lanes = {**devices["lanes"], "source": source}
            with pytest.raises(ChildError):
                daemon.query(path, "PUT", {**before, "devices": {**devices, "lanes": lanes}})
        others = {name: device for name, device in devices.items() if name != "lanes"}
        daemon.query(path, "PUT", {**before, "devices": others})
        await node.restore(wish.name, wish)
        assert inside("/bin/ls", seen).split() == ["door"]
        await node.kill(wish.name)
        (folder / "door").unlink()
        folder.rmdir()
        await node.start(wish.name)

    place.run(body)


def test_a_profile_by_hand_is_found(world: World, place: Place) -> None:
    daemon, made, _ = world

    async def body(node: NodeAdapter) -> None:
        wish = place.wish()
        await node.create(wish)
        _by_hand(daemon, wish.name, profiles=["default"])
        facts = await node.read(wish.name)
        assert "profiles default; allowed: none" in live_violations(facts.live, made.site())

    place.run(body)


def test_containers_made_at_once_share_no_ids(place: Place) -> None:
    """LXD has been seen to give one range twice; the adapter does not let it come to that."""

    async def body(node: NodeAdapter) -> None:
        wishes = [place.wish(number) for number in range(1, 7)]
        await asyncio.gather(*(node.create(wish) for wish in wishes))
        await asyncio.gather(*(node.start(wish.name) for wish in wishes))
        lives = {facts.name: facts.live for facts in await node.containers()}
        assert shared_id_maps(lives) == {}

    place.run(body)


def test_a_container_that_was_left_half_made_is_made_anew(world: World, place: Place) -> None:
    """The daemon is killed while it makes a container; the call is repeated and it starts."""
    daemon = world[0]

    async def body(node: NodeAdapter) -> None:
        for delay_s in (0.0, 0.05, 0.15):
            wish = place.wish(round(delay_s * 100) + 1)
            creation = asyncio.ensure_future(node.create(wish))
            await asyncio.sleep(delay_s)
            await asyncio.to_thread(daemon.kill)
            with pytest.raises(NodeUnreachableError):
                await creation
                raise NodeUnreachableError("it was fast enough")
            with pytest.raises(NodeUnreachableError):
                await node.containers()
            await asyncio.to_thread(daemon.start)
            await node.create(wish)
            await node.start(wish.name)
            await wait_for(lambda name=wish.name: logged(node, name, "up"))

    place.run(body)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_daemon_that_restarts_in_the_midst_of_a_creation(
    world: World, place: Place, end: str
) -> None:
    """Whatever came of it, who repeats it has the container that was asked for, once and whole."""
    daemon = world[0]

    async def body(node: NodeAdapter) -> None:
        for number, delay_s in enumerate((0.0, 0.1), 1):
            wish = place.wish(number)
            creation = asyncio.ensure_future(node.create(wish))
            await asyncio.sleep(delay_s)
            await asyncio.to_thread(getattr(daemon, end))
            with contextlib.suppress(NodeUnreachableError):  # else it was fast enough
                await creation
            await asyncio.to_thread(daemon.start)
            await node.create(wish)
            assert await place.states(node) == {wish.name: ContainerState.STOPPED}
            built = build(wish, place.site)
            assert live_differences((await node.read(wish.name)).live, built) == []
            await node.start(wish.name)
            await wait_for(lambda name=wish.name: logged(node, name, "up"))
            await node.delete(wish.name)

    place.run(body)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_containers_outlive_the_daemon(world: World, place: Place, end: str) -> None:
    """What runs goes on while the daemon is away, and is as it was when it is back."""
    daemon = world[0]

    async def body(node: NodeAdapter) -> None:
        wish = place.wish()
        await node.create(wish)
        await node.start(wish.name)
        await wait_for(lambda: logged(node, wish.name, "up token-1"))
        await asyncio.to_thread(getattr(daemon, end))
        with pytest.raises(NodeUnreachableError):
            await node.read(wish.name)
        await asyncio.to_thread(daemon.start)
        assert await place.states(node) == {wish.name: ContainerState.RUNNING}
        assert (await node.logs(wish.name)).count("up token-1") == 1
        await node.resize(wish.name, replace(LIMITS, memory_mib=128))
        await node.stop(wish.name, 5)
        assert await place.states(node) == {wish.name: ContainerState.STOPPED}

    place.run(body)


def test_a_container_that_does_not_stop_is_killed(world: World, place: Place) -> None:
    """Its init ignores the request; after the time that the caller gave, it is over."""
    daemon = world[0]

    async def body(node: NodeAdapter) -> None:
        wish = place.wish()
        await node.create(wish)
        await node.start(wish.name)
        await wait_for(lambda: logged(node, wish.name, "up"))
        # A frozen init hears nothing.
        path = f"/1.0/instances/{wish.name}/state?project={PROJECT}"
        daemon.query(path, "PUT", {"action": "freeze", "timeout": 5})
        await node.stop(wish.name, 1)
        assert await place.states(node) == {wish.name: ContainerState.STOPPED}

    place.run(body)


def test_ports_of_vis_are_isolated(world: World, place: Place) -> None:
    """The kernel says of each interface of a running VI that it is isolated on its bridge."""
    daemon = world[0]

    async def body(node: NodeAdapter) -> None:
        wish = place.wish()
        await node.create(wish)
        await node.start(wish.name)
        config = daemon.query(f"/1.0/instances/{wish.name}?project={PROJECT}")["config"]
        for nic in ("eth0", "eth1"):
            port = config[f"volatile.{nic}.host_name"]
            assert Path(f"/sys/class/net/{port}/brport/isolated").read_text().strip() == "1"

    place.run(body)


def test_a_restriction_that_was_taken_away_is_seen_and_put_back(world: World, place: Place) -> None:
    daemon = world[0]
    path = f"/1.0/projects/{PROJECT}"

    async def is_restricted(node: NodeAdapter) -> bool:
        facts = await node.describe()
        (found,) = [one for one in facts.protections if "restrictions" in one.name]
        return found.is_active

    async def body(node: NodeAdapter) -> None:
        assert await is_restricted(node)
        config = daemon.query(path)["config"]
        daemon.query(path, "PUT", {"config": {**config, "restricted.devices.proxy": "allow"}})
        assert not await is_restricted(node)
        for other in await open_nodes(socket_of(daemon), place.site):
            await other.close()
        assert await is_restricted(node)

    place.run(body)


def _client_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key and a certificate that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def _opening_fails(address: HttpsServer | UnixSocket, world: World) -> NodeError:
    with pytest.raises(NodeError) as caught:
        asyncio.run(open_nodes(address, world[1].site()))
    return caught.value


def test_https_with_both_certificates_pinned(world: World, tmp_path: Path) -> None:
    """A trusted client works as by the socket; a stranger, and a server with another
    certificate, get no further than the handshake."""
    daemon, made, image = world
    ours, key = _client_certificate(tmp_path, "ours")
    server = HttpsServer(f"https://{daemon.address}", daemon.certificate, ours, key)
    server.check()
    assert isinstance(refused := _opening_fails(server, world), NodeRefusedError)
    assert "does not trust our certificate" in str(refused)
    daemon.trust(ours)
    place = place_at(server, made.site(), image)

    async def body(node: NodeAdapter) -> None:
        wish = place.wish()
        await node.create(wish)
        await node.start(wish.name)
        assert await place.states(node) == {wish.name: ContainerState.RUNNING}

    place.run(body)
    other, _ = _client_certificate(tmp_path, "other")
    assert isinstance(
        _opening_fails(replace(server, server_certificate=other), world), NodeUnreachableError
    )


def test_servers_that_are_not_there(world: World, tmp_path: Path) -> None:
    daemon, made, _ = world
    assert isinstance(_opening_fails(UnixSocket(tmp_path / "none"), world), NodeUnreachableError)
    no_pool = replace(made.site(), pool="none")
    with pytest.raises(NodeRefusedError, match="no storage pool 'none'; pools: pool"):
        asyncio.run(open_nodes(socket_of(daemon), no_pool))


def _run_with_nodes(
    daemon: LxdDaemon, made: Bridges, body: Callable[[list[NodeAdapter]], Awaitable[None]]
) -> None:
    async def whole() -> None:
        nodes = await open_nodes(socket_of(daemon), made.site())
        try:
            await body(nodes)
        finally:
            for node in nodes:
                await node.close()

    asyncio.run(whole())


def test_members_of_a_cluster_are_nodes(tmp_path: Path) -> None:
    """Each member holds what was made on it and sees nothing of the other's."""
    image = make_tiny_image(tmp_path)
    with bridges() as made, LxdCluster() as cluster:
        names = place_at(socket_of(cluster.members[0]), made.site(), image, member="member1")

        async def body(nodes: list[NodeAdapter]) -> None:
            assert [node.name for node in nodes] == ["member1", "member2"]
            await nodes[0].import_image(image)
            for number, node in enumerate(nodes, 1):
                facts = await node.describe()
                assert facts.name == node.name
                wish = names.wish(number)
                await node.create(wish)
                await node.create(wish)
                await node.start(wish.name)
                found = await node.containers()
                assert [(one.name, one.state) for one in found] == [
                    (wish.name, ContainerState.RUNNING)
                ]
                assert live_violations(found[0].live, made.site()) == []
                location = cluster.members[0].query(
                    f"/1.0/instances/{wish.name}?project={PROJECT}"
                )["location"]
                assert location == node.name
            for number, node in enumerate(nodes, 1):
                await node.delete(names.wish(number).name)

        _run_with_nodes(cluster.members[0], made, body)


def test_a_member_that_is_lost_is_unreachable(tmp_path: Path) -> None:
    """The cluster goes on answering for it; the node of it does not, and comes back with it."""
    image = make_tiny_image(tmp_path)
    with bridges() as made, LxdCluster() as cluster:
        first, second = cluster.members
        first.run("lxc", "config", "set", "cluster.offline_threshold", "11")
        names = place_at(socket_of(first), made.site(), image, member="member2")

        async def body(nodes: list[NodeAdapter]) -> None:
            alive, lost = nodes
            await lost.import_image(image)
            wish = names.wish()
            await lost.create(wish)
            await lost.start(wish.name)
            await asyncio.to_thread(second.kill)
            await wait_for(lambda: _is_offline(lost, wish.name), 60)
            for step in (lost.describe(), lost.start(wish.name), lost.create(names.wish(2))):
                with pytest.raises(NodeUnreachableError):
                    await step
            assert await alive.containers() == []
            assert (await alive.describe()).name == "member1"
            await asyncio.to_thread(second.start)
            await wait_for(lambda: _is_running(lost, wish.name), 60)
            await lost.delete(wish.name)

        _run_with_nodes(first, made, body)


async def _is_offline(node: NodeAdapter, name: str) -> bool:
    """Tell whether the cluster knows that a member is away; its container is there till then."""
    try:
        assert [one.name for one in await node.containers()] == [name]
    except NodeUnreachableError as error:
        return "offline" in str(error)
    return False


async def _is_running(node: NodeAdapter, name: str) -> bool:
    try:
        found = await node.containers()
    except NodeUnreachableError:
        return False
    return [(one.name, one.state) for one in found] == [(name, ContainerState.RUNNING)]


def test_what_a_killed_experiment_left_is_swept(tmp_path: Path) -> None:
    """Processes, mounts, loop devices, filters, interfaces and files of a server of nobody."""
    script = """
import asyncio, json, os, signal, sys
from pathlib import Path
from packetcloud.testbed.lxd_daemon import LxdDaemon
from packetcloud.testbed.lxd_remains import sweep_stale_lxd
from packetcloud.testbed.tiny_image import make_tiny_image
from tests.system.lxd_places import Bridges, place_at, socket_of
daemon = LxdDaemon().__enter__()
made = Bridges(*sys.argv[1:4])
place = place_at(socket_of(daemon), made.site(), make_tiny_image(Path(sys.argv[4])))
async def body(node):
    wish = place.wish()
    await node.create(wish)
    await node.start(wish.name)
    print(json.dumps([str(daemon.folder), wish.name]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
place.run(body)
"""
    with bridges() as made:
        command = [sys.executable, "-c", script, *astuple(made), str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == -signal.SIGKILL, result.stderr
        folder, name = json.loads(result.stdout)
        assert name in _rules()
        config = (Path(folder) / "logs" / f"{PROJECT}_{name}" / "lxc.conf").read_text()
        interfaces = re.findall(r"lxc\.net\.\d\.link = (\S+)", config)
        assert len(interfaces) == 2
        assert Path(folder) in sweep_stale_lxd()
        assert not Path(folder).exists()
        assert folder not in Path("/proc/self/mounts").read_text()
        assert name not in _rules()
        assert set(interfaces).isdisjoint(path.name for path in Path("/sys/class/net").iterdir())
        loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
        assert not any(folder in text for text in loops)


def _rules() -> str:
    command = ["nft", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
