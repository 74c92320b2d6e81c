"""What a private LXD server leaves behind, and its removal, also after a crash of all concerned.

Only what belongs to one server's folder is touched: processes that name it, mounts and loop devices
under it, filters, interfaces and cgroups of its containers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from packetcloud.cloudlet.filters import FAMILIES
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.ownership import is_abandoned
from packetcloud.testbed.processes import wait_until

PREFIX = "pclxd"
NETWORK_PREFIX = "pcb"
"""Of the bridges and tables of a cloudlet of the testbed; its process's number follows, in
hexadecimal. Names of devices have room for 15 characters."""
PARENT = Path("/tmp")
"""Not TMPDIR: the path of a Unix socket has room for 107 characters."""
PLACED = "placed"
"""In the folder of a server that is in a namespace: its filters and interfaces are there too."""
END_TIMEOUT_S = 20.0
ORPHAN_AGE_S = 1.0
"""A server that starts a container has such a pair for some milliseconds, before it gives one end
to a bridge and the other to the container."""
_PAIR_NAME = re.compile(r"veth[0-9a-f]{8}")
"""As LXD names both ends."""


def sweep_stale_lxd(owner: str = "") -> list[Path]:
    """Remove the servers of experiments whose process is dead; return their folders.

    Args:
        owner: only those of the process with this mark; empty: all.
    """
    found = lxd_folders_of(owner) if owner else PARENT.glob(f"{PREFIX}-*")
    stale = [path for path in found if is_abandoned(path.name, PREFIX)]
    for folder in stale:
        end_processes(folder)
        clear(folder)
    return stale


def lxd_folders_of(owner: str) -> list[Path]:
    """Return the folders of servers that the process with this mark made and did not remove."""
    return list(PARENT.glob(f"{PREFIX}-{owner}-*"))


def sweep_stale_networks() -> list[str]:
    """Remove bridges and tables of cloudlets whose process is dead; return their names."""
    names = {
        found[1]
        for device in Path("/sys/class/net").iterdir()
        if (found := re.fullmatch(rf"({NETWORK_PREFIX}[0-9a-f]+)[cde]", device.name))
        and not Path(f"/proc/{int(found[1].removeprefix(NETWORK_PREFIX), 16)}").exists()
    }
    for name in names:
        for bridge in (f"{name}d", f"{name}c", f"{name}e"):
            subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
        for family in FAMILIES:
            command = ["nft", "delete", "table", family, name]
            subprocess.run(command, capture_output=True, check=False)
    return sorted(names)


def sweep_stale_pairs() -> list[str]:
    """Remove pairs of interfaces that a killed server made and gave to nobody; return their names.

    Waits `ORPHAN_AGE_S`, if there is one.
    """
    orphans = _lone_pairs()
    if not orphans:
        return []
    time.sleep(ORPHAN_AGE_S)
    orphans &= _lone_pairs()
    for _, name, _ in orphans:
        # With one end the other goes, too.
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
    return sorted(name for _, *names in orphans for name in names)


def end_containers(folder: Path) -> None:
    """Kill the init of every container of this server; their monitors then clean up and end."""
    for monitor in _processes_of(folder, "[lxc monitor]"):
        for child in _children(monitor):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildError):
        wait_until(
            lambda: not _processes_of(folder, "[lxc monitor]"), END_TIMEOUT_S, "containers end"
        )


def end_processes(folder: Path) -> None:
    """Kill whatever still runs for this server: daemons of dead parents, monitors, proxies."""
    end_containers(folder)
    for pid in [*_processes_of(folder), *_daemons_of(folder)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildError):
        wait_until(
            lambda: not _processes_of(folder) and not _daemons_of(folder),
            END_TIMEOUT_S,
            "processes end",
        )


def _processes_of(folder: Path, title: str = "") -> list[int]:
    """Return the processes whose command line names the folder, and begins with `title`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
                if f"{folder}/" in line and line.startswith(title):
                    found.append(int(entry.name))
    return found


def _daemons_of(folder: Path) -> list[int]:
    """Return the daemons with this LXD_DIR: their command line does not name it."""
    wanted = f"LXD_DIR={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                is_lxd = (entry / "comm").read_text().strip() == "lxd"
                if is_lxd and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def clear(folder: Path) -> None:
    """Remove filters, mounts, loop devices and files of a server that runs no more."""
    names = _names_in(folder / "containers")
    if not (folder / PLACED).exists():  # else those here, of the same names, are others'
        _remove_filters(names)
        _remove_interfaces(folder)
    _remove_groups(names)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if device.read_text().startswith(f"{folder}/"):
                name = f"/dev/{device.parents[1].name}"
                subprocess.run(["losetup", "--detach", name], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_filters(names: list[str]) -> None:
    """Remove the chains that LXD made for the NICs of these containers."""
    listing = subprocess.run(
        ["nft", "--json", "list", "chains", "bridge"], capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        return
    for item in json.loads(listing.stdout)["nftables"]:
        chain = item.get("chain")
        # Such as fwd.packetcloud_vi-1.eth0.
        if chain and chain["table"] == "lxd" and set(chain["name"].split(".")) & set(names):
            command = ["nft", "delete", "chain", "bridge", "lxd", chain["name"]]
            subprocess.run(command, capture_output=True, check=False)


def _remove_interfaces(folder: Path) -> None:
    """Remove the interfaces that came back to this machine when their containers were killed."""
    for container in _names_in(folder / "logs"):
        try:
            text = (folder / "logs" / container / "lxc.conf").read_text()
        except OSError:
            continue  # it is a file or has none, or another sweep removed it meanwhile
        for name in re.findall(r"^lxc\.net\.\d+\.link = (\S+)$", text, re.MULTILINE):
            subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


def _names_in(folder: Path) -> list[str]:
    """Return what is in a folder; nothing if it is not there, or another sweep removed it."""
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _lone_pairs() -> set[tuple[int, str, str]]:
    """Return number and names of the pairs with both ends on this machine, neither in a bridge."""
    listing = subprocess.run(
        ["ip", "-json", "link", "show", "type", "veth"], capture_output=True, text=True, check=False
    )
    devices = {one["ifname"]: one for one in json.loads(listing.stdout or "[]")}
    lone = {
        name: device
        for name, device in devices.items()
        if "master" not in device and _PAIR_NAME.fullmatch(name)
    }
    return {
        (device["ifindex"], name, device["link"])
        for name, device in lone.items()
        # An end that is elsewhere has no name here.
        if device.get("link") in lone and name < device["link"]
    }


def _remove_groups(names: list[str]) -> None:
    """Remove the empty cgroups that killed monitors left."""
    for name in names:
        for kind in ("payload", "monitor"):
            for hierarchy in Path("/sys/fs/cgroup").glob(f"*/lxc.{kind}.{name}"):
                folders = sorted(hierarchy.rglob("*/"), reverse=True)
                for folder in [*folders, hierarchy]:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
