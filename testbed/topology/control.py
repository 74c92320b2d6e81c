"""`packetcloud testbed up|down|list|exec`: what others do with the keepers of topologies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from packetcloud.cloudlet.client import ControllerUnreachableError
from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.testbed.daemons import http_get
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.kernel import NAMESPACE_DIRECTORY, enter
from packetcloud.testbed.lxd_daemon import lxc_call
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.ownership import started_at
from packetcloud.testbed.processes import python_command
from packetcloud.testbed.topology.cloudlets import vis_at
from packetcloud.testbed.topology.keeper import IMAGES, ROOTLESS
from packetcloud.testbed.topology.leftovers import KEEPER_VARIABLE, wait_ended
from packetcloud.testbed.topology.registry import (
    FOLDER_VARIABLE,
    Entry,
    Keeper,
    make_base_folder,
    read_entry,
    sweep,
)
from packetcloud.testbed.topology.rootless import join

TAKE_DOWN_LIMIT_S = 60.0
"""For a keeper to take everything down in order, before it is killed."""
_KILL_LIMIT_S = 10.0
_ROUTER_CONTROL = ("127.0.0.1", 4701)


def bring_up(
    file: Path,
    name: str,
    tell: Callable[[str], None],
    *,
    is_rootless: bool = False,
    images: Path | None = None,
) -> Entry:
    """Start a keeper for the topology in `file`; return once all is attached.

    Interrupted or killed, nothing stays: the keeper notices.

    Args:
        is_rootless: in a user namespace, also where we are root; without root always.
        images: where images of VIs are kept; None: where `packetcloud image build` puts them.

    Raises:
        TestbedError: it cannot be made; the text says why, and nothing is left of it.
    """
    words = [file.absolute(), name, *([ROOTLESS] if is_rootless or os.geteuid() != 0 else [])]
    words += [IMAGES, images.absolute()] if images is not None else []
    keeper = subprocess.Popen(
        python_command("packetcloud.testbed.topology.keeper", *words),
        # In there it is root, and would look elsewhere.
        env={**os.environ, FOLDER_VARIABLE: str(make_base_folder())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    try:
        _follow(keeper, tell)
        keeper.stdin.write("stay\n")
        keeper.stdin.close()
        return read_entry(name)
    except BaseException:  # Ctrl-C above all: nobody else ends the keeper
        with contextlib.suppress(OSError):
            keeper.stdin.close()
        keeper.terminate()  # it may be in a step, such as an image, and reads nothing meanwhile
        try:
            keeper.wait(TAKE_DOWN_LIMIT_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
            sweep(name)
        raise


def _follow(keeper: subprocess.Popen[str], tell: Callable[[str], None]) -> None:
    """Tell what the keeper makes until all is up.

    Raises:
        TestbedError: it failed.
    """
    assert keeper.stdout is not None and keeper.stderr is not None
    for line in keeper.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        match event.get("event"):
            case "step":
                tell(event["text"])
            case "up":
                return
            case "error":
                raise TestbedError(event["text"])
    words = " | ".join(keeper.stderr.read().strip().splitlines()[-3:])
    raise TestbedError(f"the keeper of the topology ended: {words or 'it said nothing'}")


def take_down(name: str) -> None:
    """Take a topology down, or what was left of it; return when nothing is there any more.

    Raises:
        TestbedError: there is none, or it does not end.
    """
    entry = read_entry(name)
    if entry.keeper is not None and entry.is_held:
        _end(entry.keeper)
    if not sweep(name):
        raise TestbedError(f"topology {name!r} does not end; its files are in {entry.folder}")


def _end(keeper: Keeper) -> None:
    """End a keeper, by force if need be; return when it has ended."""
    try:
        descriptor = os.pidfd_open(keeper.pid)
    except ProcessLookupError:
        return
    try:
        # Looked at after it was opened: from now on the number cannot become somebody else's.
        if not keeper.is_alive:
            return
        for number, limit_s in (
            (signal.SIGTERM, TAKE_DOWN_LIMIT_S),
            (signal.SIGKILL, _KILL_LIMIT_S),
        ):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if not wait_ended([descriptor], limit_s):
                return
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Health:
    """How a topology is."""

    word: str
    """`up`, `starting`, `unwell` or `left behind`."""
    problems: tuple[str, ...]


def health_of(entry: Entry) -> Health:
    """Look at a topology's keeper, its processes and its routers."""
    if not entry.is_held:
        text = f"its keeper is dead; remove the rest: packetcloud testbed down {entry.name}"
        return Health("left behind", (text,))
    if entry.state is None:
        return Health("starting", ())
    is_rootless = entry.keeper is not None and entry.keeper.is_rootless
    problems = tuple(_problems(entry.state, is_rootless))
    return Health("unwell" if problems else "up", problems)


def _problems(state: dict[str, Any], is_rootless: bool) -> list[str]:
    found = [
        f"{one['name']} (process {one['pid']}) has ended"
        for one in state["processes"]
        if started_at(one["pid"]) != one["started"]
    ]
    if is_rootless:
        return found  # its namespaces cannot be looked into from outside
    for name, node in state["nodes"].items():
        if not Path(NAMESPACE_DIRECTORY, node["namespace"]).exists():
            found.append(f"{name} has no namespace any more")
        elif node["kind"] == "router" and not any(name in text for text in found):
            found += _router_problems(name, node["namespace"])
    return found


def _router_problems(name: str, namespace: str) -> list[str]:
    try:
        status, _ = Namespace(name, namespace).run(http_get, _ROUTER_CONTROL, "/healthz")
    except OSError as error:
        return [f"router {name} does not answer: {error}"]
    return [] if status == 200 else [f"router {name} says {status} on /healthz"]


@dataclass(frozen=True, slots=True)
class RunningVi:
    """A virtual instance of a topology, as its controller sees it."""

    name: str
    """Of its container, where it is one."""
    service: str
    at: str
    """The router."""
    state: str
    is_attached: bool
    vi_type: str


def vis_of(entry: Entry) -> list[RunningVi]:
    """Return the VIs of a topology's controllers; those that do not answer have none.

    Of one without root nothing can be asked from outside.
    """
    if entry.state is None or not entry.is_held or (entry.keeper and entry.keeper.is_rootless):
        return []
    found = []
    for router, node in entry.state["nodes"].items():
        if "controller" not in node:
            continue
        with contextlib.suppress(ControllerUnreachableError, OSError):
            found += [
                RunningVi(
                    one.container, one.service, router, one.state, one.is_attached, one.vi_type
                )
                for one in vis_at(Namespace(router, node["namespace"]))
            ]
    return found


def run_in(name: str, node: str, command: Sequence[str]) -> None:
    """Become a command inside a node of a topology, or in a container; returns only when that
    fails.

    Its environment names the topology: see `environment_of`.

    Args:
        node: or a VI's name; a service's for the first of its VIs.

    Raises:
        TestbedError: no such topology, node or VI, or the command cannot be run.
    """
    entry = read_entry(name)
    if entry.state is None or entry.keeper is None:
        raise TestbedError(f"topology {name!r} is {health_of(entry).word}; nothing runs there")
    nodes = entry.state["nodes"]
    if node not in nodes:
        _run_in_vi(entry, node, command)
    try:
        join(entry.keeper.pid)
        enter(nodes[node]["namespace"])
        own = {KEEPER_VARIABLE: entry.keeper.mark, **environment_of(entry.state, node)}
        os.execvpe(command[0], list(command), {**os.environ, **own})
    except OSError as error:
        raise TestbedError(f"{command[0]} on {node}: {error.strerror}") from None


def _run_in_vi(entry: Entry, wanted: str, command: Sequence[str]) -> NoReturn:
    """Become a command inside a container."""
    assert entry.state is not None
    nodes, services = entry.state["nodes"], entry.state["services"]
    vis = [one for one in vis_of(entry) if "lxd" in nodes[one.at]]
    found = next((one for one in vis if wanted in (one.name, one.service)), None)
    if found is None:
        contained = [one.name for one in vis]
        if wanted in services and services[wanted]["isolation"] != "lxd":
            raise TestbedError(
                f"topology {entry.name!r}: the VIs of {wanted} are child processes in the node "
                f"{services[wanted]['at']}; get in there"
            )
        what = f"; containers: {', '.join(contained)}" if contained else ""
        raise TestbedError(
            f"topology {entry.name!r} has no node {wanted!r}; nodes: {', '.join(nodes)}{what}"
        )
    folder = Path(nodes[found.at]["lxd"])
    words = ["exec", found.name, "--project", PROJECT, "--", *command]
    try:
        os.execvpe(*lxc_call(folder, words))
    except OSError as error:
        raise TestbedError(f"lxc: {error.strerror}") from None


def environment_of(state: dict[str, Any], node: str) -> dict[str, str]:
    """Return what commands on a node find in their environment.

    `ROUTER` (where its router listens), `ROUTER_GUID` and `KEY` of a host or router; of every other
    node `GUID_NAME` and `IP_NAME`, of every service `SID_NAME`, names in capitals.
    """
    nodes = state["nodes"]
    found = {}
    for name, one in nodes.items():
        if "guid" in one:
            found[f"GUID_{_variable(name)}"] = one["guid"]
        address = next(iter(one["addresses"].values()), None)
        if address is not None:
            found[f"IP_{_variable(name)}"] = address
    found |= {f"SID_{_variable(name)}": one["sid"] for name, one in state["services"].items()}
    own = nodes[node]
    if own["kind"] == "host":
        found |= {"ROUTER": own["router_address"], "ROUTER_GUID": nodes[own["router"]]["guid"]}
    if "key" in own:
        found["KEY"] = own["key"]
    return found


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")
