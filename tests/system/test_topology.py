"""Topologies brought up for real: up, list, exec, down, kills at any step, two at once, a run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import netns

from packetcloud.services.catalogue import bundled_services
from packetcloud.testbed.namespaces import PREFIX
from packetcloud.testbed.ownership import is_abandoned
from packetcloud.testbed.processes import packetcloud_command, wait_until
from packetcloud.testbed.topology.build import open_network
from packetcloud.testbed.topology.graph import make_graph
from packetcloud.testbed.topology.leftovers import processes_in
from packetcloud.testbed.topology.model import Topology
from packetcloud.testbed.topology.plan import make_plan
from packetcloud.testbed.topology.rootless import user_namespace_of
from packetcloud.testbed.topology.samples import example_names, find_topology

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("topology")]

LIMIT_S = 100.0
LATE_S = 2.0
"""A busy machine may have a fault happen so late."""
SMALL = """
hosts = ["a", "b"]
routers = ["r"]

[[link]]
nodes = ["a", "r"]

[[link]]
nodes = ["r", "b"]
rate = "20mbit"
delay = "2ms"
"""
MANAGED = """
[[service]]
name = "compress"
at = "r"
manifest = "wan-optimizer"
settings = { direction = "compress" }
isolation = "controller"
"""
LOAD = """
[[load]]
name = "small"
source = "a"
destination = "b"
chunk = "32KiB"
rate = 20

[[fault]]
after = "300ms"
lasts = "200ms"
link = ["r", "b"]
down = true
"""


class _Testbed:
    """The commands, with a registry of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = folder / "registry"
        self.file = folder / "net.toml"
        self.file.write_text(SMALL)
        self.environment = {**os.environ, "PACKETCLOUD_TESTBED_DIR": str(self.registry)}

    def command(self, *words: object) -> list[str]:
        return packetcloud_command("testbed", *words)

    def run(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def up(self, name: str, *more: str) -> dict[str, Any]:
        done = self.run("up", self.file, "--name", name, "--format", "json", *more)
        state: dict[str, Any] = json.loads(done.stdout)
        return state

    def keeper(self, name: str) -> int:
        found: dict[str, int] = json.loads((self.registry / name / "keeper").read_text())
        return found["pid"]

    def states(self) -> dict[str, str]:
        done = subprocess.run(
            [*self.command("list"), "--format", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return {one["name"]: one["state"] for one in json.loads(done.stdout)}


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[_Testbed]:
    before = set(netns.listnetns())
    found = _Testbed(tmp_path)
    try:
        yield found
    finally:
        if found.registry.is_dir():
            found.run("down", "--all")
    left = set(netns.listnetns()) - before
    assert not [name for name in left if is_abandoned(name, PREFIX)], "namespaces were left"
    assert not found.registry.is_dir() or not list(found.registry.iterdir())


def _namespaces(state: dict[str, Any]) -> list[str]:
    return [node["namespace"] for node in state["nodes"].values()]


def test_up_list_exec_down(testbed: _Testbed) -> None:
    """A network is up when `up` returns, can be got into, is listed, and leaves nothing."""
    testbed.file.write_text(SMALL + MANAGED)
    state = testbed.up("one")
    assert testbed.states() == {"one": "up"}
    shown = testbed.run("exec", "one", "a", "--", "sh", "-c", "echo $ROUTER $IP_B $KEY").stdout
    router, address, key = shown.split()
    assert (router, address) == ("198.18.1.2:4700", "198.18.2.2")
    assert Path(key).exists()
    again = testbed.run("up", testbed.file, "--name", "one", code=2)
    assert "a topology 'one' is up" in again.stderr
    pids = [one["pid"] for one in state["processes"]]
    (dead,) = [one["pid"] for one in state["processes"] if one["name"] == "r"]
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: not _runs(dead), 20, "the router has ended")
    ill = testbed.run("list", "--format", "json", code=1)
    assert [one["state"] for one in json.loads(ill.stdout)] == ["unwell"]
    assert "r (process" in ill.stderr
    places = _namespaces(state)
    with _sleeping(testbed, "one", lambda pid: pid in processes_in(places)) as inside:
        testbed.run("down", "one")
        assert inside.wait(20) != 0, "what ran in it has ended"
    assert testbed.states() == {}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not set(places) & set(netns.listnetns())
    gone = testbed.run("down", "one", code=2)
    assert "no topology 'one' is up" in gone.stderr


def test_two_at_once_and_the_keeper_of_one_is_killed(testbed: _Testbed) -> None:
    """One with root and one without, of which the machine sees no name. Of the killed one `down`
    leaves nothing, commands in it included; the other goes on."""
    living = testbed.up("living")
    machine = set(netns.listnetns())
    killed = testbed.up("killed", "--rootless")
    assert not set(_namespaces(killed)) & set(netns.listnetns())
    assert testbed.states() == {"killed": "up", "living": "up"}
    shown = testbed.run("exec", "killed", "a", "--", "sh", "-c", "ip -br addr; pwd").stdout
    assert "198.18.1.1/24" in shown
    assert str(testbed.folder) in shown
    keeper = testbed.keeper("killed")
    own = user_namespace_of(keeper)
    with _sleeping(testbed, "killed", lambda pid: user_namespace_of(pid) == own) as inside:
        os.kill(keeper, signal.SIGKILL)
        pids = [one["pid"] for one in killed["processes"]]
        wait_until(lambda: not any(map(_runs, pids)), 20, "the kernel ended its children")
        assert testbed.states() == {"killed": "left behind", "living": "up"}
        testbed.run("down", "killed")
        assert inside.wait(20) != 0
    assert testbed.states() == {"living": "up"}
    assert set(_namespaces(living)) <= machine & set(netns.listnetns())


def test_up_is_killed_while_it_makes_a_network(testbed: _Testbed) -> None:
    """The keeper notices at its next step and takes down what there is."""
    keeper = _start_keeper(testbed)
    assert keeper.stdin is not None and keeper.stdout is not None
    for line in keeper.stdout:
        if "router r" in line:
            break
    keeper.stdin.close()  # as the kernel does when `up` is killed
    assert keeper.wait(LIMIT_S) == 0
    keeper.stdout.close()
    assert testbed.states() == {}


def test_a_keeper_is_killed_while_it_makes_a_network(testbed: _Testbed) -> None:
    """The next of the same name removes what it had made, and so does `down`."""
    dead = []
    for _ in range(2):
        keeper = _start_keeper(testbed)
        assert keeper.stdin is not None and keeper.stdout is not None
        for line in keeper.stdout:
            if "router r" in line:
                break
        assert len(_made_by(keeper.pid)) == 3
        assert not [name for pid in dead for name in _made_by(pid)], "the one before is swept"
        keeper.kill()
        dead.append(keeper.pid)
        keeper.wait(20)
        keeper.stdin.close()
        keeper.stdout.close()
    assert testbed.states() == {"half": "left behind"}
    testbed.run("down", "half")
    assert testbed.states() == {}


def test_a_network_that_cannot_be_made_leaves_nothing(testbed: _Testbed) -> None:
    """A service that ends at once is named with its last words."""
    folder = testbed.folder / "broken"
    folder.mkdir()
    (whole,) = [one for one in bundled_services() if one.manifest.service.name == "wan-optimizer"]
    manifest = whole.path.read_text().replace(whole.manifest.service.entry_point, "no_such:Thing")
    (folder / "manifest.toml").write_text(manifest)
    service = '[[service]]\nname = "s"\nat = "r"\nmanifest = "broken"\n'
    service += 'settings = { direction = "compress" }\n'
    testbed.file.write_text(SMALL + service)
    done = testbed.run("up", testbed.file, code=2)
    assert "no_such" in done.stderr
    assert testbed.states() == {}


def test_containers_are_refused_where_there_is_no_root(testbed: _Testbed) -> None:
    """One line says why and what helps, and nothing is made."""
    testbed.file.write_text(SMALL + MANAGED.replace('"controller"', '"lxd"'))
    done = testbed.run("up", testbed.file, "--rootless", code=2)
    assert 'isolation = "lxd": a topology without root is in a user namespace' in done.stderr
    assert testbed.states() == {}


@pytest.mark.parametrize("name", example_names())
def test_an_example_comes_up(name: str, tmp_path: Path) -> None:
    """All nodes, routers, services and rules of each are made and attached; nothing stays."""
    graph = make_graph(Topology.load(find_topology(name)))
    with open_network(graph, tmp_path, lambda text: None) as network:
        assert tuple(network.made) == make_plan(graph)
        network.make_all(lambda text: None)
        assert tuple(network.made) == make_plan(graph), "what is there is not made again"
        for router in network.routers.values():
            assert router.get_json("/info")["conservation"]["balance"] == 0
    assert not _made_by(os.getpid())


def test_a_load_runs_and_faults_happen_at_their_times(testbed: _Testbed) -> None:
    """Goodput of what passes the link, the fault when it was due, nothing lost; all files there."""
    testbed.file.write_text(SMALL + LOAD)
    out = testbed.folder / "out"
    code = subprocess.run(
        testbed.command("run", testbed.file, "--quick", "--out", out, "--json", out / "copy.json"),
        env=testbed.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert code.returncode in (0, 1), code.stderr
    document = json.loads((out / "result.json").read_text())
    assert document == json.loads((out / "copy.json").read_text())
    (found,) = document["experiments"]
    # A busy machine makes a late emulator, which is said, and counts as no result of ours.
    assert all("ms late" in text or "overloaded" in text for text in document["failures"])
    assert (code.returncode == 0) is (not document["failures"])
    assert 0 < document["goodput"]["small_mbps"] <= 20
    assert found["tables"]["loads"][0]["delay_p50_ms"] >= 2
    assert document["lost_chunks"]["small"] == 0
    begins, ends = found["tables"]["faults"]
    assert (begins["what"], ends["what"]) == ("r-b goes down", "r-b is well again")
    for one in (begins, ends):
        assert 0 <= one["at_s"] - one["due_s"] < LATE_S
    dropped = [row["dropped"] for row in found["tables"]["links"] if row["way"] == "to_right"]
    assert "lost" in dropped[0]
    names = {path.name for path in (out / "net").iterdir()}
    assert {"result.json", "loads.csv", "links.csv", "goodput.png", "goodput.svg"} <= names
    assert "r-b goes down" in (out / "report.html").read_text()


def test_ctrl_c_stops_a_run_and_takes_all_down(testbed: _Testbed) -> None:
    """What was measured is written, no namespace stays, and the exit code says so."""
    testbed.file.write_text(SMALL + LOAD + "[run]\nseconds = 60\n")
    out = testbed.folder / "out"
    run = subprocess.Popen(
        testbed.command("run", testbed.file, "--out", out),
        env=testbed.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    for line in run.stderr:
        if "goes down" in line:
            break
    run.send_signal(signal.SIGINT)
    assert run.wait(LIMIT_S) == 130
    run.stderr.close()
    assert json.loads((out / "result.json").read_text())["is_complete"] is False
    assert "interrupted" in (out / "report.html").read_text()


def _made_by(pid: int) -> list[str]:
    return [name for name in netns.listnetns() if name.startswith(f"{PREFIX}-{pid}-")]


@contextlib.contextmanager
def _sleeping(
    testbed: _Testbed, name: str, is_inside: Callable[[int], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs on a node, and would go on."""
    command = testbed.command("exec", name, "b", "--", "sleep", "600")
    inside = subprocess.Popen(command, env=testbed.environment)
    try:
        wait_until(lambda: is_inside(inside.pid), 30, "the command is inside")
        yield inside
    finally:
        inside.kill()
        inside.wait()


def _start_keeper(testbed: _Testbed) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "packetcloud.testbed.topology.keeper"]
    return subprocess.Popen(
        [*command, str(testbed.file), "half"],
        env=testbed.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
