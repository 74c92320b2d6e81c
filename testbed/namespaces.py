"""Network namespaces joined by veth pairs, removed again whatever happens.

A name holds the pid and the start time of the process that made it, so that whoever comes next
knows whether its maker is still alive and sweeps what a killed one left. Needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pyroute2 import IPRoute, NetlinkError, netns

from packetcloud.testbed import links
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.kernel import (
    NAMESPACE_DIRECTORY,
    bind_mount,
    enter,
    share_mounts,
    unshare_network,
)
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.ownership import is_abandoned, owner_tag

PREFIX = "pctb"
DEFAULT_MTU = 1500
LARGEST_MTU = 65535
BENCHMARK_NETWORK = "198.18"
"""198.18.0.0/15 is set aside for benchmarks. Source: RFC 2544, appendix C.2.2."""

CONGESTION_CONTROL = "net.ipv4.tcp_congestion_control"
_ALLOWED_CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_MACHINE_LOCK = Path("/run/packetcloud-testbed.lock")

T = TypeVar("T")


def can_make_namespaces() -> bool:
    """Tell whether this process may make network namespaces here."""
    if os.geteuid() != 0 or not Path("/proc/self/ns/net").exists():
        return False
    name = _full_name("probe", secrets.token_hex(3))
    try:
        _create(name)
    except OSError:
        return False
    _remove(name)
    return True


def sweep_stale() -> list[str]:
    """Remove the namespaces of testbeds whose process is dead; return their names."""
    swept = []
    for name in netns.listnetns():
        if not is_abandoned(name, PREFIX):
            continue
        with contextlib.suppress(OSError):
            _remove(name)
            swept.append(name)
    return swept


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link."""

    namespace: Namespace
    device: str
    address: str


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair: two ends and its settings."""

    left: End
    right: End
    mode: LinkMode
    mtu: int

    def in_force(self) -> list[dict[str, object]]:
        """Read back from the kernel what holds at both ends."""
        return [
            {
                "namespace": end.namespace.role,
                "device": end.device,
                "mtu": end.namespace.device_mtu(end.device),
                "features": end.namespace.run(links.read_features, end.device),
            }
            for end in (self.left, self.right)
        ]


class Namespace:
    """One network namespace. `role` is its short name in this testbed, such as `a` or `router`."""

    def __init__(self, role: str, name: str) -> None:
        self.role = role
        self.name = name

    def create(self, *, uses_cubic: bool = True) -> None:
        """Make the namespace.

        Args:
            uses_cubic: whatever the machine uses; needs root.
        """
        _create(self.name)
        self._netlink(lambda netlink: netlink.link("set", index=_index(netlink, "lo"), state="up"))
        if uses_cubic:
            self._use_cubic()

    def remove(self) -> None:
        """Remove the namespace and its links; a second call does nothing."""
        with contextlib.suppress(FileNotFoundError):
            _remove(self.name)

    def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call `function` inside the namespace, on a thread of its own.

        A thread, because setns moves only the calling one and there is no safe way back.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                enter(self.name)
                results.append(function(*arguments))
            except BaseException as error:  # raised where it was called
                errors.append(error)

        thread = threading.Thread(target=body, name=f"in-{self.name}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def _netlink(self, function: Callable[[Any], T]) -> T:
        """Call `function` with a netlink socket of this namespace."""

        def body() -> T:
            with IPRoute() as netlink:
                return function(netlink)

        return self.run(body)

    def set_sysctl(self, key: str, value: str) -> None:
        """Set a sysctl of the namespace, such as `net.ipv4.ip_forward`."""
        path = Path("/proc/sys") / key.replace(".", "/")
        try:
            self.run(path.write_text, value)
        except OSError as error:
            raise TestbedError(f"cannot set {key}={value} in {self.name}: {error}") from error

    def read_sysctl(self, key: str) -> str:
        return self.run((Path("/proc/sys") / key.replace(".", "/")).read_text).strip()

    def _use_cubic(self) -> None:
        """Make CUBIC the default of TCP here: the peers cannot all be told which to use.

        The kernel lets a namespace choose only what the machine's list of unrestricted algorithms
        holds. Where CUBIC is not in it, it is added for the moment of this one write.
        """
        if self.read_sysctl(CONGESTION_CONTROL) == "cubic":
            return
        with _MACHINE_LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            allowed = _ALLOWED_CONGESTION_CONTROL.read_text()
            try:
                _ALLOWED_CONGESTION_CONTROL.write_text(f"{allowed.strip()} cubic")
                self.set_sysctl(CONGESTION_CONTROL, "cubic")
            finally:
                _ALLOWED_CONGESTION_CONTROL.write_text(allowed)

    def add_route(self, destination: str, gateway: str) -> None:
        """Send `destination` (such as 198.18.2.0/24) through `gateway`."""
        self._netlink(lambda netlink: netlink.route("add", dst=destination, gateway=gateway))

    def device_mtu(self, device: str) -> int:
        def read(netlink: Any) -> int:
            (link,) = netlink.get_links(_index(netlink, device))
            return int(link.get_attr("IFLA_MTU"))

        return self._netlink(read)

    def set_queue(self, device: str, mtu: int, packets: int) -> None:
        """Set the MTU of `device` and how many packets it keeps for who reads it."""

        def change(netlink: Any) -> None:
            netlink.link("set", index=_index(netlink, device), mtu=mtu, txqlen=packets)

        self._netlink(change)

    def dropped_packets(self, device: str) -> int:
        """Packets that the kernel dropped on their way out of `device`."""

        def read(netlink: Any) -> int:
            (link,) = netlink.get_links(_index(netlink, device))
            return int(link.get_attr("IFLA_STATS64")["tx_dropped"])

        return self._netlink(read)

    def attach(self, device: str, address: str) -> None:
        """Give `device` its address (/24) and put it up."""

        def change(netlink: Any) -> None:
            index = _index(netlink, device)
            netlink.addr("add", index=index, address=address, prefixlen=24)
            netlink.link("set", index=index, state="up")

        self._netlink(change)

    def add_bridge(self, bridge: str, ports: Sequence[str]) -> None:
        """Make a bridge of devices and put all of them up."""

        def change(netlink: Any) -> None:
            netlink.link("add", ifname=bridge, kind="bridge")
            index = _index(netlink, bridge)
            for port in ports:
                netlink.link("set", index=_index(netlink, port), master=index, state="up")
            netlink.link("set", index=index, state="up")

        self._netlink(change)

    def hardware_address(self, device: str) -> str:
        def read(netlink: Any) -> str:
            (link,) = netlink.get_links(_index(netlink, device))
            return str(link.get_attr("IFLA_ADDRESS"))

        return self._netlink(read)

    def add_neighbour(self, device: str, address: str, hardware_address: str) -> None:
        """Tell the namespace for good which hardware address `address` has on `device`."""
        self._netlink(
            lambda netlink: netlink.neigh(
                "replace",
                dst=address,
                lladdr=hardware_address,
                ifindex=_index(netlink, device),
                state="permanent",
            )
        )

    def add_pair(self, device: str, mtu: int, other: Namespace, other_device: str) -> None:
        """Make a veth pair with one end here and the other in `other`."""

        def change(netlink: Any) -> None:
            descriptor = os.open(f"{NAMESPACE_DIRECTORY}/{other.name}", os.O_RDONLY)
            try:
                peer = {"ifname": other_device, "net_ns_fd": descriptor, "mtu": mtu}
                netlink.link("add", ifname=device, kind="veth", mtu=mtu, peer=peer)
            finally:
                os.close(descriptor)

        self._netlink(change)


class NetworkLab:
    """Namespaces and links of one experiment; use it in a `with` statement.

    Args:
        uses_cubic: TCP does so by default there, whatever the machine does.
    """

    def __init__(self, *, uses_cubic: bool = True) -> None:
        self._uses_cubic = uses_cubic
        self._suffix = secrets.token_hex(3)
        self._namespaces: list[Namespace] = []
        self._last_subnet = 0
        self.links: list[Link] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise TestbedError("network namespaces need root; run this with sudo")
        sweep_stale()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; a second call does nothing."""
        for namespace in self._namespaces:
            namespace.remove()
        self._namespaces.clear()
        self.links.clear()

    def namespace(self, role: str) -> Namespace:
        namespace = Namespace(role, _full_name(role, self._suffix))
        self._namespaces.append(namespace)
        namespace.create(uses_cubic=self._uses_cubic)
        return namespace

    def link(
        self, left: Namespace, right: Namespace, mode: LinkMode, mtu: int = DEFAULT_MTU
    ) -> Link:
        """Join two namespaces; link number n has the addresses 198.18.n.1 and 198.18.n.2."""
        devices = f"to-{right.role}"[:15], f"to-{left.role}"[:15]
        left.add_pair(devices[0], mtu, right, devices[1])
        ends = []
        addresses = self.next_addresses()
        for namespace, device, address in zip((left, right), devices, addresses, strict=True):
            namespace.run(links.set_features, device, mode.features)
            namespace.attach(device, address)
            ends.append(End(namespace, device, address))
        link = Link(ends[0], ends[1], mode, mtu)
        self.links.append(link)
        return link

    def next_addresses(self) -> tuple[str, str]:
        """Return the addresses of the ends of the next link."""
        self._last_subnet += 1
        network = f"{BENCHMARK_NETWORK}.{self._last_subnet}"
        return f"{network}.1", f"{network}.2"

    def settings_in_force(self) -> list[dict[str, object]]:
        """Read back the settings of every link end."""
        return [entry for link in self.links for entry in link.in_force()]


def _create(name: str) -> None:
    """Make a namespace and its name.

    On a thread, not in a forked child as pyroute2 and `ip` do it: this process may have threads
    already, and a fork of such a process now and then hangs (seen: one name in ten missing).

    Raises:
        OSError: not root, or the kernel has no network namespaces.
    """
    path = Path(NAMESPACE_DIRECTORY, name)
    errors: list[OSError] = []

    def body() -> None:
        try:
            unshare_network()
            bind_mount(f"/proc/self/task/{threading.get_native_id()}/ns/net", str(path))
        except OSError as error:
            errors.append(error)

    path.parent.mkdir(parents=True, exist_ok=True)
    share_mounts(NAMESPACE_DIRECTORY)
    path.touch(mode=0o444, exist_ok=False)
    thread = threading.Thread(target=body, name=f"make-{name}")
    thread.start()
    thread.join()
    if errors:
        path.unlink()
        raise errors[0]


def _remove(name: str) -> None:
    """Remove one namespace; its veth pairs go at once, even if a process still lives inside."""

    def delete_pairs() -> None:
        with IPRoute() as netlink:
            for link in netlink.get_links():
                info = link.get_attr("IFLA_LINKINFO")
                if info is not None and info.get_attr("IFLA_INFO_KIND") == "veth":
                    netlink.link("del", index=link["index"])

    with contextlib.suppress(OSError, NetlinkError):
        Namespace("", name).run(delete_pairs)
    netns.remove(name)


def _index(netlink: Any, device: str) -> int:
    found = netlink.link_lookup(ifname=device)
    if not found:
        raise TestbedError(f"no device {device} in this namespace")
    return int(found[0])


def _full_name(role: str, suffix: str) -> str:
    return f"{PREFIX}-{owner_tag()}-{suffix}-{role}"
