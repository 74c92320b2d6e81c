"""The network of a node's VIs on this machine: two bridges and tables of filters.

Made when a cloudlet starts, checked while it runs, removed with it. Every step may be repeated.
Bridges that somebody else made are used, not removed. Calls block: on a worker thread, please.
Needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from pyroute2 import NetlinkError

from packetcloud.cloudlet.bridges import (
    NetworkError,
    bridge_problems,
    make_bridge,
    remove_bridge,
)
from packetcloud.cloudlet.containers import Protection
from packetcloud.cloudlet.egress_counts import EgressCounts, read_counts
from packetcloud.cloudlet.egress_filters import EgressElements, EgressPlan, elements_script
from packetcloud.cloudlet.filters import (
    FAMILIES,
    BridgePlan,
    NetworkPlan,
    removal_script,
    table_script,
)
from packetcloud.cloudlet.forwarding import (
    for_us,
    forwarding_problems,
    start_forwarding,
    stop_forwarding,
)

_NFT_TIMEOUT_S = 20.0
_DAEMON_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class NodeNetwork:
    """The bridges and the tables of one plan."""

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self._installed: list[Any] | None = None
        """The tables as nft listed them when we had just put them there."""
        self._elements = EgressElements()
        self._lock = threading.Lock()
        """Two threads may call: one looks after the tables, another lets VIs in."""

    def set_up(self) -> None:
        """Make bridges and tables, or put right what is not as planned.

        The tables come first: nothing passes that they would not have let pass.

        Raises:
            NetworkError: not allowed, or kernel or nft does not know how.
        """
        with self._lock:
            self._set_up()

    def change(self, plan: NetworkPlan) -> None:
        """Take another plan, of which only what services are granted differs.

        Raises:
            NetworkError: as `set_up`; `problems` says so until it comes true.
        """
        with self._lock:
            self.plan, self._installed = plan, None
            self._set_up()

    def admit(self, elements: EgressElements) -> None:
        """Let these VIs, and nobody else, use the bridge to the IP network.

        Raises:
            NetworkError: nft refuses; who could use it before can do so still.
        """
        with self._lock:
            egress = self.plan.egress
            if egress is not None:
                _nft("-f", "-", script=elements_script(egress, self.plan.table, elements))
                self._elements = elements

    def egress_counts(self) -> EgressCounts:
        """Return what VIs tried and did since the tables were put there."""
        if self.plan.egress is None:
            return EgressCounts()
        return read_counts(self.plan.egress.subnet, self._list())

    def tear_down(self) -> None:
        """Remove the bridges that we made, then the tables; what is not there is right too."""
        for bridge in self._bridges():
            try:
                if isinstance(bridge, EgressPlan):
                    stop_forwarding(bridge)
                remove_bridge(bridge)
            except (NetlinkError, OSError) as error:
                raise NetworkError(f"bridge {bridge.name}: {error}") from error
        _nft("-f", "-", script=removal_script(self.plan.table))
        self._installed = None

    def problems(self) -> list[str]:
        """Return what is not as planned; empty: everything is in force."""
        return [
            *self._table_problems(),
            *(problem for bridge in self._bridges() for problem in bridge_problems(bridge)),
            *(forwarding_problems(self.plan.egress) if self.plan.egress is not None else ()),
        ]

    def protections(self) -> tuple[Protection, ...]:
        """Say of tables and bridges whether they are in force, as a node does of itself."""
        return network_protections(self.problems())

    def dropped_packets(self) -> int:
        """Return how many packets of VIs the tables have dropped since they were put there."""
        return sum(
            expression["counter"]["packets"]
            for item in self._list()
            for expression in _expressions(item)
            if "counter" in expression and {"drop": None} in _expressions(item)
        )

    def _bridges(self) -> list[BridgePlan | EgressPlan]:
        """Return what there is to be; first what turns forwarding on, others then keep it off."""
        egress = [self.plan.egress] if self.plan.egress is not None else []
        return [*egress, self.plan.data, self.plan.control]

    def _set_up(self) -> None:
        egress = self.plan.egress
        closed = for_us(egress) if egress is not None else ()
        script = table_script(self.plan, closed_transit=closed)
        if egress is not None:
            script += elements_script(egress, self.plan.table, self._elements)
        _nft("-f", "-", script=script)
        self._installed = self._listed()
        for bridge in self._bridges():
            try:
                make_bridge(bridge)
                if isinstance(bridge, EgressPlan):
                    start_forwarding(bridge)
            except (NetlinkError, OSError) as error:
                raise NetworkError(f"bridge {bridge.name}: {error}") from error

    def _table_problems(self) -> Iterator[str]:
        if self._installed is None:
            yield f"table {self.plan.table} was not put there by this process"
        elif self._installed != (found := self._listed()):
            yield f"table {self.plan.table} " + ("was changed" if found else "is gone")

    def _listed(self) -> list[Any]:
        """Return the tables as they are, without what changes by itself: handles and counts."""
        return [_without_counts(item) for item in self._list()]

    def _list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for family in FAMILIES:
            try:
                listing = json.loads(_nft("-j", "list", "table", family, self.plan.table))
            except NetworkError as error:
                if "No such file" in str(error):
                    continue
                raise
            found += [item for item in listing["nftables"] if "metainfo" not in item]
        return found


def network_protections(problems: list[str]) -> tuple[Protection, ...]:
    """Return what `NodeNetwork.problems` means for whoever asks what is in force."""
    if not problems:
        return (Protection("destinations of VIs", True),)
    cost = "VIs may reach more than router and controller: " + "; ".join(problems)
    remedy = "nothing by hand: the controller tries again every few seconds to put it right"
    return (Protection("destinations of VIs", False, cost, remedy),)


def _expressions(item: dict[str, Any]) -> list[dict[str, Any]]:
    expressions: list[dict[str, Any]] = item.get("rule", {}).get("expr", [])
    return expressions


def _without_counts(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_counts(one) for one in value]
    if isinstance(value, dict):
        return {
            key: None if key == "counter" else _without_counts(one)
            for key, one in value.items()
            # What a set of ours holds changes; a rule's own sets are its text.
            if key != "handle" and not (key == "elem" and isinstance(one, list))
        }
    return value


def _nft(*arguments: str, script: str | None = None) -> str:
    command = shutil.which("nft", path=_DAEMON_PATH)
    if command is None:
        raise NetworkError("needs the command nft: apt-get install nftables")
    try:
        result = subprocess.run(
            [command, *arguments],
            input=script,
            stdin=subprocess.DEVNULL if script is None else None,
            capture_output=True,
            text=True,
            timeout=_NFT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"nft: {error}") from error
    if result.returncode != 0:
        raise NetworkError(f"nft: {result.stderr.strip()}")
    return result.stdout
