"""An emulated link in a lab: a TUN device in each of two namespaces, and the process between."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Protocol

from packetcloud.testbed.capabilities import probe_namespaces
from packetcloud.testbed.emulator.honesty import objections
from packetcloud.testbed.emulator.netem import start_netem_link, unfit
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.namespaces import DEFAULT_MTU, End, Namespace, NetworkLab
from packetcloud.testbed.processes import Child, Children, python_command

ANSWER_TIMEOUT_S = 10.0


class Emulator(StrEnum):
    """What makes a link."""

    AUTO = "auto"
    """netem where the kernel has it and the shape needs no more, else TUN."""
    TUN = "tun"
    """Our own process between two TUN devices: every shape, seeded, and it says how late it was."""
    NETEM = "netem"
    """The kernel's tbf and netem: cheaper, no seed, not every shape."""


class Link(Protocol):
    """A running link of either kind. `left` and `right` are its ends."""

    left: End
    right: End

    def change(self, to_right: Shape | None = None, to_left: Shape | None = None) -> None:
        """Change one direction or both while packets pass."""

    def restart(self, to_right: Shape, to_left: Shape, seed: int) -> None:
        """Begin anew: an empty link, chances from `seed`, sums from zero."""

    def report(self) -> dict[str, Any]:
        """Return what the link did since it was restarted, and whether that can be believed."""


DEVICE_QUEUE_PACKETS = 20_000
"""What the kernel keeps for the emulator: a burst of 30 MB. What it drops beyond that counts as the
emulator's fault."""


class TunLink:
    """A link of TUN devices; see `Link`."""

    def __init__(self, child: Child, left: End, right: End, mtu: int) -> None:
        self.child = child
        self.left = left
        self.right = right
        self.mtu = mtu
        self._dropped_before = 0

    def change(self, to_right: Shape | None = None, to_left: Shape | None = None) -> None:
        """Change one direction or both while packets pass.

        Raises:
            TestbedError: the emulator has ended or does not answer.
        """
        self.child.tell(do="change", **_shapes(to_right, to_left))
        self.child.wait_event("changed", ANSWER_TIMEOUT_S)

    def restart(self, to_right: Shape, to_left: Shape, seed: int) -> None:
        """Begin anew: an empty link, chances from `seed`, sums from zero.

        Raises:
            TestbedError: the emulator has ended or does not answer.
        """
        self.child.tell(do="restart", seed=seed, **_shapes(to_right, to_left))
        self.child.wait_event("changed", ANSWER_TIMEOUT_S)
        self._dropped_before = self._dropped()

    def report(self) -> dict[str, Any]:
        """Return what the link did since it was restarted, and whether that was the link's doing:
        `is_valid`, and `objections` if it is not.

        Raises:
            TestbedError: the emulator has ended or does not answer.
        """
        self.child.tell(do="report")
        report = self.child.wait_event("report", ANSWER_TIMEOUT_S)
        del report["event"]
        report["emulator"] = Emulator.TUN.value
        report["overruns"]["not read in time"] = self._dropped() - self._dropped_before
        report["objections"] = objections(report)
        report["is_valid"] = not report["objections"]
        return report

    def _dropped(self) -> int:
        return sum(end.namespace.dropped_packets(end.device) for end in (self.left, self.right))


def chosen(wanted: Emulator, shapes: Sequence[Shape] = ()) -> Emulator:
    """Return TUN or NETEM: what is wanted, or for AUTO what this machine and the shapes allow."""
    if wanted is not Emulator.AUTO:
        return wanted
    return Emulator.NETEM if not unfit(*shapes) and kernel_has_netem() else Emulator.TUN


@cache
def kernel_has_netem() -> bool:
    """Find out by trying, once per process."""
    return probe_namespaces().get("netem", False)


def start_link(
    lab: NetworkLab,
    children: Children,
    left: Namespace,
    right: Namespace,
    to_right: Shape,
    to_left: Shape,
    seed: int,
    mtu: int = DEFAULT_MTU,
    emulator: Emulator = Emulator.TUN,
) -> Link:
    """Join two namespaces by an emulated link, with the addresses that a veth pair would have.

    Raises:
        TestbedError: this machine cannot make such a link.
    """
    if chosen(emulator, (to_right, to_left)) is Emulator.NETEM:
        return start_netem_link(lab, left, right, to_right, to_left, mtu)
    return start_tun_link(lab, children, left, right, to_right, to_left, seed, mtu)


def start_tun_link(
    lab: NetworkLab,
    children: Children,
    left: Namespace,
    right: Namespace,
    to_right: Shape,
    to_left: Shape,
    seed: int,
    mtu: int = DEFAULT_MTU,
) -> TunLink:
    """Join two namespaces by a process between two TUN devices.

    Raises:
        TestbedError: there are no TUN devices here.
    """
    devices = f"to-{right.role}"[:15], f"to-{left.role}"[:15]
    name = f"link-{left.role}-{right.role}"
    command = python_command(
        "packetcloud.testbed.emulator.process",
        *(left.name, devices[0], right.name, devices[1]),
        *("--seed", seed),
    )
    child = children.start(name, command, takes_orders=True)
    child.wait_event("ready", ANSWER_TIMEOUT_S)
    ends = []
    addresses = lab.next_addresses()
    for namespace, device, address in zip((left, right), devices, addresses, strict=True):
        # Neighbour discovery would use up chances of the seed.
        with contextlib.suppress(TestbedError):
            namespace.set_sysctl(f"net.ipv6.conf.{device}.disable_ipv6", "1")
        namespace.set_queue(device, mtu, DEVICE_QUEUE_PACKETS)
        namespace.attach(device, address)
        ends.append(End(namespace, device, address))
    link = TunLink(child, ends[0], ends[1], mtu)
    link.restart(to_right, to_left, seed)
    return link


def _shapes(to_right: Shape | None, to_left: Shape | None) -> dict[str, object]:
    shapes = {"to_right": to_right, "to_left": to_left}
    return {way: shape.to_json() for way, shape in shapes.items() if shape is not None}
