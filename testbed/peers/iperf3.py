"""iperf3: one TCP flow between two places, with the congestion control that we name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True)
class Interval:
    """What the receiving side counted in one second of a flow."""

    begin_s: float
    """Since the flow began, by the receiver's clock."""
    end_s: float
    bits_per_s: float


def start_interval_server(children: Children, flow: Flow, name: str = "receiver") -> Child:
    """Start an iperf3 that serves one test and says every second what arrived."""
    command = [find_tool("iperf3"), "-s", "-1", "-p", str(flow.server_port)]
    command += ["-B", flow.server_address, "-i", "1", "-f", "k", "--forceflush"]
    server = children.start(name, command, flow.server)
    wait_listening(server, flow.server_port)
    return server


def start_endless_client(
    children: Children, flow: Flow, congestion_control: str, name: str = "sender"
) -> Child:
    """Start a sending side that goes on until it is stopped."""
    command = [find_tool("iperf3"), "-c", flow.target[0], "-p", str(flow.target[1])]
    command += ["-C", congestion_control, "-t", "0", "-i", "0"]
    return children.start(name, command, flow.client)


def parse_intervals(lines: Iterable[str]) -> list[Interval]:
    """Return the seconds that a server of `start_interval_server` has said so far."""
    found = map(_INTERVAL.search, lines)
    return [
        Interval(float(hit[1]), float(hit[2]), float(hit[3]) * 1000.0)
        for hit in found
        if hit and float(hit[2]) - float(hit[1]) > _SHORTEST_INTERVAL_S
    ]


def wait_intervals(
    server: Child, client: Child, count: int, start_limit_s: float
) -> list[Interval]:
    """Wait for `count` seconds of a flow; return them. The end of a test, which on a bad link may
    take longer than the test, is not waited for.

    Fewer come back when the flow did not begin within `start_limit_s`, or broke off: on a bad link
    that is a result.

    Raises:
        ChildError: iperf3 itself failed.
    """
    deadline = time.monotonic() + start_limit_s
    has_begun = False
    while True:
        found = parse_intervals(list(server.output))
        if found and not has_begun:
            has_begun = True
            deadline = time.monotonic() + count + _SLACK_S
        if len(found) >= count or time.monotonic() > deadline:
            return found[:count]
        if client.poll_exit() is not None:
            text = client.last_words()
            if any(word in text for word in _BROKEN_LINK):
                return found
            raise ChildError(f"iperf3 ended ({client.poll_exit()}): {text}")
        time.sleep(0.05)


_INTERVAL = re.compile(r"\]\s+([\d.]+)-([\d.]+)\s+sec\s.*?\s([\d.]+) Kbits/sec\s*$")
_SHORTEST_INTERVAL_S = 0.5
"""The last line of a test is a remainder, and one of zero length comes at its very end."""
_BROKEN_LINK = (
    "timed out",
    "unable to receive",
    "unable to send",
    "unable to write",
    "unable to read",
    "reset by peer",
    "server has terminated",
    "closed",
)
"""How iperf3 names that a connection did not survive the link."""


def _error_in(output: str) -> str:
    try:
        return str(json.loads(output).get("error", ""))
    except ValueError:
        return ""
