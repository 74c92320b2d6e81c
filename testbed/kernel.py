"""Calls of the C library that move threads between namespaces and give those a name.

Python has setns and unshare from 3.12 on, and mount not at all.
Source: setns(2), unshare(2), mount(2), umount2(2); ip-netns(8) for where the names are.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NAMESPACE_DIRECTORY = "/run/netns"
_CLONE_NEWNET = 0x4000_0000
_CLONE_NEWNS, _CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
_MS_BIND, _MS_REC, _MS_SLAVE, _MS_SHARED = 0x1000, 0x4000, 0x8_0000, 0x10_0000
_MNT_DETACH = 2


def enter(namespace: str) -> None:
    """Move the calling thread into the network namespace `namespace`.

    Raises:
        OSError: there is no such namespace, or we are not root.
    """
    descriptor = os.open(f"{NAMESPACE_DIRECTORY}/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", descriptor, _CLONE_NEWNET)
    finally:
        os.close(descriptor)


def unshare_network() -> None:
    """Move the calling thread into a new network namespace."""
    _call("unshare", _CLONE_NEWNET)


def unshare_user() -> None:
    """Move this process, which has one thread, into a new user, mount and network namespace.

    What is mounted there later is seen there alone.
    """
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET)
    _call("mount", b"none", b"/", b"none", _MS_SLAVE | _MS_REC, None)


def join_user(pid: int) -> None:
    """Move this process, which has one thread, into the user and mount namespace of another."""
    kinds = (("user", _CLONE_NEWUSER), ("mnt", _CLONE_NEWNS))
    descriptors = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name, _ in kinds]
    try:
        for descriptor, (_, kind) in zip(descriptors, kinds, strict=True):
            _call("setns", descriptor, kind)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def own_mounts(without: str) -> None:
    """Move this process, which has one thread, into a mount namespace of its own.

    /sys shows the devices of its network namespace there: a mount of sysfs shows those of the one
    in which it was made. What is mounted below it stays, cgroups above all. It is mounted as a
    whole: the kernel lets a container mount its own only where nothing covers a part of one.

    Args:
        without: nothing is mounted any more at paths that begin so. Others' mounts would be held by
            ours, for as long as we live, after theirs are gone.
    """
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", b"none", _MS_SLAVE | _MS_REC, None)
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in reversed([path for path in mounted if path.startswith(without)]):
        _call("umount2", path.encode(), _MNT_DETACH)
    kept: dict[str, int] = {}
    for path in (path for path in mounted if path.startswith("/sys/")):
        if not any(path.startswith(f"{one}/") for one in kept):
            kept[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)
    _call("mount", b"sysfs", b"/sys", b"sysfs", 0, None)
    for path, descriptor in kept.items():
        source = f"/proc/self/fd/{descriptor}".encode()
        _call("mount", source, path.encode(), b"none", _MS_BIND | _MS_REC, None)
        os.close(descriptor)


def mount_memory(directory: str) -> None:
    """Mount an empty file system in memory over `directory`."""
    _call("mount", b"tmpfs", directory.encode(), b"tmpfs", 0, b"mode=0755")


def share_mounts(directory: str) -> None:
    """Make what is mounted below `directory` appear everywhere, as `ip netns` does."""
    path = directory.encode()
    try:
        _call("mount", b"", path, b"none", _MS_SHARED | _MS_REC, None)
    except OSError:
        # Not a mount point yet: make it one.
        _call("mount", path, path, b"none", _MS_BIND | _MS_REC, None)
        _call("mount", b"", path, b"none", _MS_SHARED | _MS_REC, None)


def bind_mount(source: str, target: str) -> None:
    """Make `target` another name of `source`."""
    _call("mount", source.encode(), target.encode(), b"none", _MS_BIND, None)


def _call(function: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library; Python 3.11 has no setns, unshare or mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
