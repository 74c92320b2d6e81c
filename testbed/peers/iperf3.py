"""iperf3: one TCP flow between two places, with the congestion control that we name."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from packetcloud.testbed.bench.trial import Window
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.tools import find_tool, wait_listening
from packetcloud.testbed.processes import Child, Children

_SLACK_S = 20.0
"""How long over its time an iperf3 may take to connect and to print."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Where one flow runs. `target` is where the client connects: the server, or a relay to it."""

    client: Namespace | None
    server: Namespace | None
    server_address: str
    server_port: int
    target: tuple[str, int]


def start_server(children: Children, flow: Flow) -> Child:
    """Start an iperf3 that serves one test and ends; return once it listens."""
    command = [find_tool("iperf3"), "-s", "-1", "-p", str(flow.server_port)]
    command += ["-B", flow.server_address, "--idle-timeout", "30"]
    server = children.start("receiver", command, flow.server)
    wait_listening(server, flow.server_port)
    return server


def start_client(
    children: Children, flow: Flow, congestion_control: str, seconds: int, warmup: int
) -> Child:
    """Start the sending side; it ends by itself."""
    command = [find_tool("iperf3"), "-c", flow.target[0], "-p", str(flow.target[1]), "-J"]
    command += ["-C", congestion_control, "-t", str(seconds), "-O", str(warmup)]
    return children.start("sender", command, flow.client)


def wait_window(client: Child, seconds: int, warmup: int) -> tuple[Window, dict[str, Any]]:
    """Wait for the end; return what the receiver counted after the warm-up, and the whole report.

    Raises:
        ChildError: iperf3 failed, or its report does not hold what we need.
    """
    try:
        output = client.wait_exit(seconds + warmup + _SLACK_S)
    except ChildError as error:
        raise ChildError(f"{error} {_error_in(''.join(client.output))}".strip()) from error
    end_s = time.monotonic()
    try:
        report: dict[str, Any] = json.loads(output)
        received = report["end"]["sum_received"]
        bits_per_s = float(received["bits_per_second"])
    except (ValueError, KeyError) as error:
        raise ChildError(f"iperf3: {_error_in(output) or f'no {error} in its report'}") from error
    # iperf3 ends within a few milliseconds of its last interval; its rate is taken from its own
    # clock, the window only says which CPU samples belong to it.
    begin_s = end_s - seconds
    return Window(begin_s, end_s, int(bits_per_s * seconds / 8)), report


def _error_in(output: str) -> str:
    try:
        return str(json.loads(output).get("error", ""))
    except ValueError:
        return ""
