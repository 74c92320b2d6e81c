"""What LXD answers, and what we make of it: values, errors, protections, ends of operations."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pylxd.exceptions import LXDAPIException, NotFound

from packetcloud.cloudlet.containers import MAX_LOG_BYTES, ContainerState, NicUsage
from packetcloud.cloudlet.errors import (
    CloudletConfigError,
    ContainerExistsError,
    ContainerMissingError,
    NodeRefusedError,
    NodeUnreachableError,
    NoRoomError,
)
from packetcloud.cloudlet.lxd.address import HttpsServer, UnixSocket
from packetcloud.cloudlet.lxd.connection import LxdConnection, said, translated
from packetcloud.cloudlet.lxd.node import LxdNode, wish_digest
from packetcloud.cloudlet.lxd.operations import creations, finish, under_way
from packetcloud.cloudlet.lxd.project import (
    DISK,
    PATHS,
    PROJECT,
    PROJECT_CONFIG,
    allow_lanes,
    ensure_project,
    project_gaps,
)
from packetcloud.cloudlet.lxd.protections import find_protections
from packetcloud.cloudlet.lxd.replies import (
    console_tail,
    container_facts,
    container_usage,
    is_unread,
)
from tests.unit.cloudlet.wishes import LIMITS, SITE, WISH, wish

INSTANCE = {
    "name": "vi-1",
    "type": "container",
    "status": "Running",
    "ephemeral": False,
    "profiles": [],
    "config": {"user.packetcloud.wish": "cd"},
    "expanded_config": {
        "user.packetcloud.wish": "cd",
        "user.packetcloud.vi": "1",
        "volatile.base_image": "ab",
    },
    "expanded_devices": {"root": {"type": "disk"}},
}


def test_what_a_member_that_does_not_answer_has_is_no_container_that_is_gone() -> None:
    """The cluster lists it without configuration; one that is broken where it is has its own."""
    unread = {**INSTANCE, "status": "Error", "config": None, "expanded_config": None}
    assert is_unread(unread)
    assert not is_unread({**INSTANCE, "status": "Error"})
    assert not is_unread({**INSTANCE, "config": {}})


class Answer:
    """A response of the server."""

    def __init__(self, document: Any, status_code: int = 200) -> None:
        self.document = document
        self.status_code = status_code
        self.content = b"text"

    def json(self) -> Any:
        return self.document


class Operations:
    """The server's operations: each question gets the next of the answers."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.operations = self
        self.states = list(states)
        self.asked: list[str] = []

    def __getitem__(self, operation: str) -> Any:
        self.asked.append(operation)
        return SimpleNamespace(wait=self)

    def get(self, params: dict[str, Any]) -> Answer:
        if not self.states:
            raise NotFound(Answer({"error": "not found"}, 404))
        return Answer({"metadata": self.states.pop(0)})


def test_an_instance_becomes_facts() -> None:
    facts = container_facts(INSTANCE)
    assert (facts.name, facts.state, facts.image) == ("vi-1", ContainerState.RUNNING, "ab")
    assert facts.labels == {"vi": "1"}
    assert facts.live.devices == {"root": {"type": "disk"}}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Running", ContainerState.RUNNING),
        ("Stopped", ContainerState.STOPPED),
        ("Error", ContainerState.BROKEN),
        ("Frozen", ContainerState.CHANGING),
        ("Starting", ContainerState.CHANGING),
        ("a state of later", ContainerState.CHANGING),
    ],
)
def test_a_status_becomes_a_state(status: str, state: ContainerState) -> None:
    assert container_facts({**INSTANCE, "status": status}).state is state


def test_a_state_becomes_usage() -> None:
    """Nanoseconds become seconds; what LXD cannot measure is none, not minus one."""
    counters = {
        "bytes_received": 1,
        "bytes_sent": 2,
        "packets_received": 3,
        "packets_sent": 4,
        "errors_sent": 5,
    }
    usage = container_usage(
        {
            "cpu": {"usage": 1_500_000_000},
            "memory": {"usage": 10, "usage_peak": 20},
            "disk": {"root": {"usage": 30}},
            "processes": 2,
            "network": {"lo": {"counters": counters}, "eth0": {"counters": counters}},
        }
    )
    assert usage.cpu_s == 1.5
    assert (usage.memory_bytes, usage.memory_peak_bytes, usage.disk_bytes) == (10, 20, 30)
    assert usage.nics == {"eth0": NicUsage(1, 2, 3, 4)}
    stopped = container_usage({"cpu": {"usage": -1}, "processes": -1, "network": None})
    assert (stopped.cpu_s, stopped.processes_count, stopped.disk_bytes) == (0, 0, None)


def test_a_console_is_cut_at_its_beginning() -> None:
    text = console_tail(b"x" * MAX_LOG_BYTES + b"\xffend\r\n")
    assert text.endswith("end\n")
    assert len(console_tail(b"x" * (MAX_LOG_BYTES + 1))) == MAX_LOG_BYTES


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Failed: write /x: no space left on device", NoRoomError),
        ("Disk quota exceeded", NoRoomError),
        ("fork/exec: cannot allocate memory", NoRoomError),
        ("Not enough uid/gid available for the container", NoRoomError),
        ('Instance "vi-1" already exists', ContainerExistsError),
        ("Instance not found", ContainerMissingError),
        ("LXD is shutting down", NodeUnreachableError),
        ("Failed to begin transaction: sql: database is closed", NodeUnreachableError),
        ("Failed shutting down instance: shutting down the container failed", NodeRefusedError),
        ("Unable to connect to: 127.0.0.1:1 (connection refused)", NodeUnreachableError),
        ('Failed: Use of low-level config "raw.lxc" is forbidden', NodeRefusedError),
    ],
)
def test_what_the_server_says_decides_the_error(text: str, kind: type[Exception]) -> None:
    assert type(said(text)) is kind
    failed = LXDAPIException(Answer({"error": text}, 500))
    assert type(translated(failed, "node")) is kind
    assert str(translated(failed, "node")) == f"node: {text}"


@pytest.mark.parametrize(
    ("status", "kind"), [(404, ContainerMissingError), (503, NodeUnreachableError)]
)
def test_some_answers_speak_by_their_number(status: int, kind: type[Exception]) -> None:
    assert type(translated(LXDAPIException(Answer({"error": "no"}, status)), "node")) is kind


def test_an_operation_is_waited_for_to_its_end() -> None:
    """The server's answers may say several times that it goes on."""
    api = Operations({"id": "o", "status_code": 103}, {"id": "o", "status_code": 200})
    begun = {"type": "async", "metadata": {"id": "o", "status_code": 103, "description": "Do"}}
    finish(api, Answer(begun), 60)
    assert api.asked == ["o", "o"]
    finish(api, Answer({"type": "sync"}), 60)
    assert api.asked == ["o", "o"]


@pytest.mark.parametrize(
    ("states", "timeout_s", "kind"),
    [
        ([{"id": "o", "status_code": 400, "err": "no space left on device"}], 60, NoRoomError),
        ([{"id": "o", "status_code": 401, "status": "Cancelled"}], 60, NodeRefusedError),
        ([], 60, NodeUnreachableError),
        ([{"id": "o", "status_code": 103}], 0, NodeUnreachableError),
    ],
)
def test_an_operation_that_fails_says_how(
    states: list[dict[str, Any]], timeout_s: float, kind: type[Exception]
) -> None:
    """Forgotten by the server, or not over in time: nobody knows whether it was done."""
    begun = {"type": "async", "metadata": {"id": "o", "status_code": 103, "description": "Do"}}
    with pytest.raises(kind):
        finish(Operations(*states), Answer(begun), timeout_s)


def test_operations_in_progress_are_found_by_container() -> None:
    def operation(name: str, status_code: int, description: str) -> dict[str, Any]:
        return {
            "status_code": status_code,
            "class": "task",
            "description": description,
            "resources": {"instances": [f"/1.0/instances/{name}?project=packetcloud"]},
        }

    listing = {
        "running": [operation("a", 103, "Creating instance"), operation("b", 103, "Stopping")],
        "success": [operation("a", 200, "Creating instance")],
    }
    node = SimpleNamespace(get=lambda params: Answer({"metadata": listing}))
    api = SimpleNamespace(operations=node)
    assert under_way(api, "b") == [listing["running"][1]]
    assert under_way(api, "c") == []
    assert creations(api) == [listing["running"][0]]


def test_protections_that_are_not_in_force_say_their_cost() -> None:
    server = {
        "environment": {
            "firewall": "nftables",
            "kernel_features": {"seccomp_listener": "true", "idmapped_mounts": "true"},
        }
    }
    everything = find_protections(server, PROJECT_CONFIG, [], "btrfs")
    assert [one.name for one in everything if not one.is_active] == []
    warnings = [
        {"type": "AppArmor support has been disabled", "status": "new"},
        {"type": "Couldn't find the CGroup pids controller", "status": "new"},
        {"type": "Couldn't find the CGroup memory controller", "status": "resolved"},
        {"type": "Couldn't find the CGroup blkio.weight", "status": "new"},
    ]
    project = {**PROJECT_CONFIG, "restricted": "false"}
    less = find_protections({"environment": {}}, project, warnings, "dir")
    assert [one.name for one in less if not one.is_active] == [
        "system call filter",
        "AppArmor",
        "maps of ids at mount time",
        "limit of processes",
        "filters of the NICs",
        "restrictions of the project",
        "quota of the root",
    ]
    assert all(one.cost and one.remedy for one in less if not one.is_active)


def test_a_project_that_was_loosened_is_found() -> None:
    assert project_gaps(PROJECT_CONFIG) == []
    assert project_gaps({**PROJECT_CONFIG, "restricted.devices.disk": "allow"}) == [
        "restricted.devices.disk"
    ]


LANES = "/run/packetcloud-0/lanes"


@pytest.mark.parametrize("paths", ["", "/", "/etc", f"{LANES},/etc", f"{LANES}/.."])
def test_a_project_that_shows_other_folders_is_found(paths: str) -> None:
    """Of the node's folders containers may see those where routers share memory."""
    allowed = {**PROJECT_CONFIG, DISK: "allow", PATHS: LANES}
    assert project_gaps(allowed) == []
    assert project_gaps({**allowed, PATHS: paths}) != []
    assert project_gaps({**allowed, DISK: "managed"}) == [PATHS]


class Project:
    """Plays LXD's API, as far as a project is asked for and changed."""

    def __init__(self, config: dict[str, str], *, takes_changes: bool = True) -> None:
        self.config = config
        self.projects = {PROJECT: self}
        self._takes_changes = takes_changes
        self.changes_count = 0

    def get(self) -> Any:
        return self

    def json(self) -> Any:
        return {"metadata": {"config": dict(self.config)}}

    def put(self, json: Any) -> None:
        self.changes_count += 1
        if not self._takes_changes:
            raise LXDAPIException(Answer({"error": "a container has it"}, 400))
        self.config = json["config"]


def test_a_project_is_opened_for_the_folders_of_routers() -> None:
    """Of each user's routers, once; putting the project right leaves them."""
    project = Project({**PROJECT_CONFIG, "restricted": "false"})
    other = "/run/user/7/packetcloud-7/lanes"
    for folder in (LANES, LANES, other):
        assert allow_lanes(project, folder)
    assert project.changes_count == 2
    ensure_project(project)
    assert project.config == {
        **PROJECT_CONFIG,
        DISK: "allow",
        PATHS: f"{LANES},{other}",
    }


def test_a_project_that_stays_closed_is_told() -> None:
    assert not allow_lanes(Project(dict(PROJECT_CONFIG), takes_changes=False), LANES)


def test_equal_wishes_have_equal_digests() -> None:
    """Everything of a wish counts, and the order of its labels does not."""
    assert wish_digest(wish(labels={"a": "1", "b": "2"})) == wish_digest(
        wish(labels={"b": "2", "a": "1"})
    )
    others = [
        WISH,
        wish(name="vi-2"),
        wish(image="cd" * 32),
        wish(limits=LIMITS.__class__(1.0, 128, 256, 50, 25, 64)),
        wish(data=WISH.control),
        wish(labels={}),
        wish(environment={}),
    ]
    assert len({wish_digest(one) for one in others}) == len(others)
    assert wish_digest(wish(lanes=f"{LANES}/0123456789abcdef")) == wish_digest(WISH)


def test_addresses_of_servers(tmp_path: Path) -> None:
    """A socket's path is quoted; a URL and its files are checked before anything is dialled."""
    assert UnixSocket(Path("/x/unix.socket")).endpoint == "http+unix://%2Fx%2Funix.socket"
    file = tmp_path / "file.pem"
    file.touch()
    HttpsServer("https://node:8443/", file, file, file).check()
    with pytest.raises(CloudletConfigError, match="allowed: https://HOST:PORT"):
        HttpsServer("http://node:8443", file, file, file).check()
    with pytest.raises(CloudletConfigError, match=r"no file .*none"):
        HttpsServer("https://node:8443", file, tmp_path / "none", file).check()


class Listings:
    """A server whose containers are what a test says."""

    def __init__(self) -> None:
        self.instances = self
        self.found: list[dict[str, Any]] = [{**INSTANCE, "location": "none"}]
        self.read_count = 0

    def get(self, params: dict[str, Any], is_api: bool) -> Any:
        assert params == {"recursion": 1} and not is_api
        text = json.dumps({"metadata": self.found})

        def read() -> Any:
            self.read_count += 1
            return json.loads(text)

        return SimpleNamespace(content=text.encode(), json=read)


def test_an_answer_that_says_the_same_is_not_read_anew() -> None:
    """And one that says something else is, whatever of it changed."""
    node = LxdNode(cast(LxdConnection, None), "n1", SITE)
    server = Listings()
    first = node._containers(server)
    assert node._containers(server) is first and server.read_count == 1
    devices = {"root": {"type": "disk"}, "gpu": {"type": "gpu"}}
    server.found = [{**INSTANCE, "location": "none", "expanded_devices": devices}]
    (changed,) = node._containers(server)
    assert changed.live.devices == devices
    server.found = []
    assert node._containers(server) == []
