"""Ways to talk a container out of its cage by configuration.

Each is a change of a live configuration that the policy must find.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Trick:
    """One change: keys of the configuration, devices, or keys of a device; None takes away."""

    name: str
    config: dict[str, str | None] = field(default_factory=dict)
    devices: dict[str, dict[str, str] | None] = field(default_factory=dict)
    eth0: dict[str, str | None] = field(default_factory=dict)
    root: dict[str, str | None] = field(default_factory=dict)

    def apply(
        self, config: dict[str, str], devices: dict[str, dict[str, str]]
    ) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """Return configuration and devices with the trick in them."""
        devices = _merged(devices, self.devices)
        devices["eth0"] = _merged(devices.get("eth0", {}), self.eth0)
        devices["root"] = _merged(devices.get("root", {}), self.root)
        return _merged(config, self.config), {name: keys for name, keys in devices.items() if keys}


def _merged(values: Any, changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


_NIC = {"type": "nic", "nictype": "bridged"}

TRICKS = (
    Trick("privileged", {"security.privileged": "true"}),
    Trick("nesting", {"security.nesting": "true"}),
    Trick("shared map of ids", {"security.idmap.isolated": "false"}),
    Trick("shared map of ids by silence", {"security.idmap.isolated": None}),
    Trick("map of ids chosen", {"security.idmap.base": "0"}),
    Trick("larger map of ids", {"security.idmap.size": "1000000"}),
    Trick("raw.lxc", {"raw.lxc": "lxc.apparmor.profile=unconfined"}),
    Trick("raw.idmap", {"raw.idmap": "both 0 0"}),
    Trick("raw.apparmor", {"raw.apparmor": "mount,"}),
    Trick("raw.seccomp", {"raw.seccomp": "2"}),
    Trick("system calls not denied", {"security.syscalls.deny_default": "false"}),
    Trick("old system calls not denied", {"security.syscalls.deny_compat": None}),
    Trick("system calls denied otherwise", {"security.syscalls.deny": "reboot"}),
    Trick("our system calls not denied", {"security.syscalls.deny": None}),
    Trick("mount intercepted", {"security.syscalls.intercept.mount": "true"}),
    Trick("mknod intercepted", {"security.syscalls.intercept.mknod": "true"}),
    Trick("bpf intercepted", {"security.syscalls.intercept.bpf": "true"}),
    Trick("kernel modules", {"linux.kernel_modules": "veth"}),
    Trick("sysctl", {"linux.sysctl.net.ipv4.ip_forward": "1"}),
    Trick("devlxd", {"security.devlxd": "true"}),
    Trick("devlxd images", {"security.devlxd.images": "true"}),
    Trick("starts by itself", {"boot.autostart": "true"}),
    Trick("host waits for it", {"boot.host_shutdown_timeout": "86400"}),
    Trick("nvidia", {"nvidia.runtime": "true"}),
    Trick("cloud-init", {"cloud-init.user-data": "#!/bin/sh"}),
    Trick("user data", {"user.user-data": "#!/bin/sh"}),
    Trick("another environment", {"environment.LD_PRELOAD": "/tmp/x.so"}),
    Trick("snapshots that fill the pool", {"snapshots.schedule": "* * * * *"}),
    Trick("no limit of memory", {"limits.memory": None}),
    Trick("memory by share", {"limits.memory": "100%"}),
    Trick("soft memory", {"limits.memory.enforce": "soft"}),
    Trick("swap", {"limits.memory.swap": "true"}),
    Trick("no limit of processes", {"limits.processes": None}),
    Trick("no limit of time", {"limits.cpu.allowance": None}),
    Trick("time by weight only", {"limits.cpu.allowance": "100%"}),
    Trick("cores of its own", {"limits.cpu": "0-1"}),
    Trick("priority", {"limits.cpu.priority": "10"}),
    Trick("core files", {"limits.kernel.core": "unlimited"}),
    Trick("real time", {"limits.kernel.rtprio": "99"}),
    Trick("huge pages", {"limits.hugepages.2MB": "1GiB"}),
    Trick("folder of the host", devices={"h": {"type": "disk", "source": "/", "path": "/mnt"}}),
    Trick("root of the host", root={"source": "/"}),
    Trick("another pool", root={"pool": "default"}),
    Trick("root without size", root={"size": None}),
    Trick("no limit of reading", root={"limits.read": None}),
    Trick("no limit of writing", root={"limits.write": None}),
    Trick("propagated mounts", root={"propagation": "rshared"}),
    Trick("character device", devices={"m": {"type": "unix-char", "path": "/dev/mem"}}),
    Trick("block device", devices={"b": {"type": "unix-block", "source": "/dev/loop0"}}),
    Trick("device when it comes", devices={"u": {"type": "unix-hotplug", "vendorid": "1"}}),
    Trick("gpu", devices={"g": {"type": "gpu"}}),
    Trick("usb", devices={"u": {"type": "usb", "vendorid": "1"}}),
    Trick("pci", devices={"p": {"type": "pci", "address": "0000:00:00.0"}}),
    Trick("tpm", devices={"t": {"type": "tpm", "path": "/dev/tpm0"}}),
    Trick("infiniband", devices={"i": {"type": "infiniband", "nictype": "physical"}}),
    Trick(
        "socket of the host",
        devices={
            "p": {"type": "proxy", "listen": "unix:/tmp/s", "connect": "unix:/run/docker.sock"}
        },
    ),
    Trick(
        "port of the host",
        devices={"p": {"type": "proxy", "listen": "tcp:0.0.0.0:9", "connect": "tcp:127.0.0.1:9"}},
    ),
    Trick("third nic", devices={"eth2": {**_NIC, "parent": "pc-data"}}),
    Trick("nic elsewhere", eth0={"parent": "docker0"}),
    Trick("nic of the host", eth0={"nictype": "physical", "parent": "eth0"}),
    Trick("macvlan", eth0={"nictype": "macvlan", "parent": "eth0"}),
    Trick("managed network", eth0={"network": "lxdbr0"}),
    Trick("any hardware address", eth0={"security.mac_filtering": "false"}),
    Trick("any IPv4 address", eth0={"security.ipv4_filtering": None}),
    Trick("any IPv6 address", eth0={"security.ipv6_filtering": "false"}),
    Trick("no IPv4 address", eth0={"ipv4.address": "none"}),
    Trick("address of all", eth0={"ipv4.address": "224.0.0.1"}),
    Trick("address of the host itself", eth0={"ipv6.address": "::1"}),
    Trick("neighbours in reach", eth0={"security.port_isolation": "false"}),
    Trick("a route of its own", eth0={"ipv4.routes": "0.0.0.0/0"}),
    Trick("tagged frames", eth0={"vlan": "1"}),
    Trick("chosen hardware address", eth0={"hwaddr": "00:16:3e:00:00:01"}),
    Trick("no data nic", devices={"eth0": None}),
    Trick("no control nic", devices={"eth1": None}),
)
