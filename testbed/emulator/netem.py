"""The same link made by the kernel's own tbf and netem, where it has them.

A - m1 - m2 - B, two bridges in between, because the bottleneck must not be in the sender's own
kernel, where it would hear of a full queue, and what is lost must have used the link: m1 sends on
at the link's rate, m2 delays and loses; the other way round for the other direction. Cheaper than
the TUN emulator, but chances have no seed here, and not every shape can be made.
Source: tc-netem(8), tc-tbf(8).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packetcloud.testbed import links
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import DEFAULT_MTU, End, Namespace, NetworkLab
from packetcloud.testbed.peers.tools import find_tool

_UNKNOWN = (
    "jitter_s",
    "reordering",
    "reordering_s",
    "loss_run",
    "corruption",
    "corruption_run",
    "largest_bytes",
    "up_s",
    "down_s",
)
"""What netem has not, or not with the meaning that `Shape` gives it."""
_ETHERNET_BYTES = 14
_FULL_PACKET_BYTES = 1500
_MOST_DELAYED_PACKETS = 200_000
_UNLIMITED_PACKETS = 20_000
_BURST_PACKETS = 2
_PLAIN, _BUCKET, _QUEUE, _FAULTS = "1:", "2:", "3:", "4:"
"""A handle for each kind of qdisc: the kernel does not replace one by another kind in place."""
Command = list[str]


def unfit(*shapes: Shape) -> str:
    """Say why the kernel cannot make one of these shapes; empty: it can make all."""
    plain = Shape()
    names = {
        name for one in shapes for name in _UNKNOWN if getattr(one, name) != getattr(plain, name)
    }
    return f"netem has no {', '.join(sorted(names))}" if names else ""


def rate_commands(device: str, shape: Shape) -> list[Command]:
    """Return the arguments of `tc` that give a device the rate and the queue of a shape.

    tbf counts Ethernet headers, a shape does not: the rate is raised by what they add to a full
    packet, so smaller ones are a little slower.
    """
    root = ["qdisc", "replace", "dev", device, "root", "handle"]
    if not shape.rate_bps:
        return [[*root, _PLAIN, "pfifo", "limit", str(_UNLIMITED_PACKETS)]]
    frame_bytes = _FULL_PACKET_BYTES + _ETHERNET_BYTES
    rate_bps = round(shape.rate_bps * frame_bytes / _FULL_PACKET_BYTES)
    limit_bytes = shape.queue_bytes or (shape.queue_packets or _UNLIMITED_PACKETS) * frame_bytes
    burst_bytes = _BURST_PACKETS * frame_bytes
    bucket = [
        "tbf",
        "rate",
        f"{rate_bps}bit",
        "burst",
        f"{burst_bytes}b",
        "limit",
        f"{limit_bytes}b",
    ]
    commands = [[*root, _BUCKET, *bucket]]
    if shape.queue_packets:
        inner = ["qdisc", "replace", "dev", device, "parent", _BUCKET, "handle", _QUEUE]
        commands.append([*inner, "pfifo", "limit", str(shape.queue_packets)])
    return commands


def fault_commands(device: str, shape: Shape) -> list[Command]:
    """Return the arguments of `tc` that give a device the delay and the faults of a shape."""
    root = ["qdisc", "replace", "dev", device, "root", "handle"]
    if not (shape.delay_s or shape.loss or shape.duplication):
        return [[*root, _PLAIN, "pfifo", "limit", str(_UNLIMITED_PACKETS)]]
    netem = ["netem", "limit", str(_MOST_DELAYED_PACKETS), "delay", f"{shape.delay_s * 1e6:.0f}us"]
    if shape.loss and shape.loss_burst > 1:
        leave = 1 / shape.loss_burst
        enter = shape.loss * leave / (1 - shape.loss)
        netem += ["loss", "gemodel", _percent(enter), _percent(leave)]
    elif shape.loss:
        netem += ["loss", "random", _percent(shape.loss)]
    if shape.duplication:
        netem += ["duplicate", _percent(shape.duplication)]
    return [[*root, _FAULTS, *netem]]


@dataclass(frozen=True, slots=True)
class _Way:
    """Where one direction gets its rate, and where its faults."""

    rate: End
    faults: End


class NetemLink:
    """A running link; a `link.Link`."""

    def __init__(self, left: End, right: End, to_right: _Way, to_left: _Way) -> None:
        self.left = left
        self.right = right
        self._ways = {"to_right": to_right, "to_left": to_left}
        self._shapes: dict[str, Shape] = {}

    def change(self, to_right: Shape | None = None, to_left: Shape | None = None) -> None:
        """Change one direction or both while packets pass.

        Raises:
            TestbedError: the kernel cannot make such a link.
        """
        for name, shape in (("to_right", to_right), ("to_left", to_left)):
            if shape is None:
                continue
            if text := unfit(shape):
                raise TestbedError(f"{text}; use the TUN emulator: --emulator tun")
            way = self._ways[name]
            self._shapes[name] = shape
            for end, commands in (
                (way.rate, rate_commands(way.rate.device, shape)),
                (way.faults, fault_commands(way.faults.device, shape)),
            ):
                for command in commands:
                    _tc(end.namespace, command)

    def restart(self, to_right: Shape, to_left: Shape, seed: int) -> None:
        """Begin anew: an empty link, sums from zero. Chances have no seed here.

        Raises:
            TestbedError: the kernel cannot make such a link.
        """
        for way in self._ways.values():
            for end in (way.rate, way.faults):
                # Of another kind than any that is set next, so that nothing of it is kept.
                _tc(end.namespace, ["qdisc", "replace", "dev", end.device, "root", "noqueue"])
        self.change(to_right, to_left)

    def report(self) -> dict[str, Any]:
        """Return what the kernel counted since the link was restarted. It does not say how late it
        was, so a report has no objections and no `lateness`."""
        ways = {name: self._way_report(way) for name, way in self._ways.items()}
        return {
            "emulator": "netem",
            "lateness": None,
            "overruns": {},
            "objections": [],
            "is_valid": True,
            "shapes": {name: shape.to_json() for name, shape in self._shapes.items()},
            **ways,
        }

    def _way_report(self, way: _Way) -> dict[str, Any]:
        rate, faults = (
            way_sums(
                json.loads(_tc(end.namespace, ["-s", "-j", "qdisc", "show", "dev", end.device]))
            )
            for end in (way.rate, way.faults)
        )
        dropped = {"queue_full": rate["drops"], "lost": faults["drops"]}
        return {
            "in_packets": rate["packets"] + rate["drops"],
            "out_packets": faults["packets"],
            "out_bytes": faults["bytes"] - _ETHERNET_BYTES * faults["packets"],
            "dropped": {reason: count for reason, count in dropped.items() if count},
        }


def way_sums(shown: list[dict[str, Any]]) -> dict[str, int]:
    """Return the sums of the root of what `tc -s -j qdisc show` printed for one device."""
    root = next(entry for entry in shown if entry.get("root"))
    return {key: int(root.get(key, 0)) for key in ("packets", "bytes", "drops")}


def start_netem_link(
    lab: NetworkLab,
    left: Namespace,
    right: Namespace,
    to_right: Shape,
    to_left: Shape,
    mtu: int = DEFAULT_MTU,
) -> NetemLink:
    """Join two namespaces by a link that the kernel emulates.

    Raises:
        TestbedError: the kernel has no netem, or cannot make such a link.
    """
    pair = f"{left.role}-{right.role}"
    middles = lab.namespace(f"{pair}-m1"), lab.namespace(f"{pair}-m2")
    m1, m2 = middles
    for one, other, devices in (
        (left, m1, (f"to-{right.role}"[:15], "outer")),
        (m1, m2, ("inner", "inner")),
        (right, m2, (f"to-{left.role}"[:15], "outer")),
    ):
        one.add_pair(devices[0], mtu, other, devices[1])
        for namespace, device in zip((one, other), devices, strict=True):
            namespace.run(links.set_features, device, LinkMode.BARE.features)
    for middle in middles:
        middle.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        middle.add_bridge("bridge", ("outer", "inner"))
    ends = []
    addresses = lab.next_addresses()
    for namespace, peer, address in zip((left, right), (right, left), addresses, strict=True):
        device = f"to-{peer.role}"[:15]
        namespace.set_sysctl(f"net.ipv6.conf.{device}.disable_ipv6", "1")
        namespace.attach(device, address)
        ends.append(End(namespace, device, address))
    for end, peer_end in (ends, reversed(ends)):
        # A question for an address would be lost like anything else.
        hardware = peer_end.namespace.hardware_address(peer_end.device)
        end.namespace.add_neighbour(end.device, peer_end.address, hardware)
    link = NetemLink(
        ends[0],
        ends[1],
        _Way(End(m1, "inner", ""), End(m2, "outer", "")),
        _Way(End(m2, "inner", ""), End(m1, "outer", "")),
    )
    link.restart(to_right, to_left, 0)
    return link


def _tc(namespace: Namespace, arguments: Sequence[str]) -> str:
    """Run `tc` in a namespace; return what it prints."""
    command = [find_tool("tc"), *arguments]
    done = namespace.run(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    )
    if done.returncode != 0:
        text = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise TestbedError(f"tc {' '.join(arguments)}: {text}; is the module sch_netem there?")
    return done.stdout


def _percent(share: float) -> str:
    return f"{share * 100:.6g}%"
