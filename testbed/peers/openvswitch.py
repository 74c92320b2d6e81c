"""Open vSwitch in user space, with a database and folders of its own; ended with the experiment.

No kernel module: the bridge's datapath is `netdev`. What is measured is the classifier that finds
the flow of a packet among all that were installed (`ofproto`, tuple-space search). The caches in
front of it, which remember at most 200 000 decisions, never see these packets.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.openflow import (
    OpenFlowConnection,
    flow_for_all,
    flows,
    questions,
)
from packetcloud.testbed.peers.tools import START_TIMEOUT_S, find_tool
from packetcloud.testbed.processes import Child, Children, wait_until
from packetcloud.testbed.traffic.rule_traffic import Names

BRIDGE = "br0"
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_BARE_TABLE = 1
"""One flow, which matches everything: all that a question costs but looking for a name."""
BYTES_PER_FLOW = 700
"""Of memory, measured with version 3.1."""
_FLOWS_PER_ROUND = 20_000
_PACKETS_PER_ROUND = 20


class OpenVSwitch:
    """A switch with one flow table for each size; use it in a `with` statement.

    Args:
        sizes: flows of each table.
    """

    name = "openvswitch"

    def __init__(self, children: Children, place: Namespace, sizes: Sequence[int]) -> None:
        self._children = children
        self._place = place
        self.sizes = tuple(sizes)
        self._folder = children.directory / "openvswitch"

    def __enter__(self) -> Self:
        """Start the switch.

        Raises:
            MissingToolError: Open vSwitch is not installed.
            TestbedError: it does not run here.
        """
        # Looked for first, so that nothing is left half started.
        self._tools = {
            name: find_tool(name)
            for name in ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl")
        }
        self._folder.mkdir()
        database, where = self._folder / "conf.db", self._folder / "db.sock"
        self._run("ovsdb-tool", "create", database, SCHEMA)
        server = self._start("ovsdb-server", database, f"--remote=punix:{where}")
        wait_until(lambda: _is_there(server, where), START_TIMEOUT_S, "ovsdb-server listens")
        self._run("ovs-vsctl", f"--db=unix:{where}", "--no-wait", "init")
        self._switch = self._start("ovs-vswitchd", f"unix:{where}")
        bridge = ["set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"]
        command = [f"--db=unix:{where}", "--timeout=20", "add-br", BRIDGE, "--", *bridge]
        self._run("ovs-vsctl", *command, "protocols=OpenFlow13")
        self._connection = OpenFlowConnection(self._folder / f"{BRIDGE}.mgmt")
        self._connection.send(flow_for_all(_BARE_TABLE))
        self._connection.wait_done()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(AttributeError):  # it did not come that far
            self._connection.__exit__()

    def load(self, size: int, names: Names) -> None:
        """Install `size` flows."""
        for first in range(0, size, _FLOWS_PER_ROUND):
            part = names[first : min(size, first + _FLOWS_PER_ROUND)]
            self._connection.send(flows(self._table(size), part).data.cast("B"))
            self._connection.wait_done()

    def lookup_s(self, size: int, names: Names) -> dict[str, float]:
        """Return the seconds of CPU time for one question, whole and without what is not search.

        Args:
            names: a multiple of `QUESTIONS_PER_PACKET`, all of which have a flow.

        Raises:
            TestbedError: a name was not found.
        """
        table = self._table(size)
        found = self._connection.hits(table)
        bare_s = self._ask(_BARE_TABLE, names)
        asked_s = self._ask(table, names)
        found = self._connection.hits(table) - found
        if found != len(names):
            raise TestbedError(f"Open vSwitch found {found} of {len(names)} names that it holds")
        count = len(names)
        return {
            "openvswitch": asked_s / count,
            "openvswitch_search": max(0.0, asked_s - bare_s) / count,
        }

    def _ask(self, table: int, names: Names) -> float:
        messages = questions(table, names)
        before_s = _cpu_s(self._switch)
        for first in range(0, len(messages), _PACKETS_PER_ROUND):
            part = messages[first : first + _PACKETS_PER_ROUND]
            self._connection.send(part.data.cast("B"))
        self._connection.wait_done()
        return _cpu_s(self._switch) - before_s

    def _table(self, size: int) -> int:
        return _BARE_TABLE + 1 + self.sizes.index(size)

    def _start(self, name: str, *arguments: object) -> Child:
        options = ["--no-chdir", f"--pidfile={self._folder / name}.pid", "-vconsole:warn"]
        options += [f"--log-file={self._folder / name}.log"]
        command = [self._tools[name], *map(str, arguments), *options]
        return self._children.start(name, command, self._place, self._environment())

    def _run(self, name: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._tools[name], *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise TestbedError(f"Open vSwitch does not run here: {name}: {done.stderr.strip()}")

    def _environment(self) -> dict[str, str]:
        names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        return {name: str(self._folder) for name in names}


def _is_there(child: Child, path: Path) -> bool:
    if not child.is_running:
        child.wait_event("listening", 0.5)  # raises with the child's last words
    return path.exists()


def _cpu_s(child: Child) -> float:
    """CPU time of all threads of a process; `Child.cpu_seconds` counts in ticks of 10 ms."""
    tasks = Path(f"/proc/{child.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
