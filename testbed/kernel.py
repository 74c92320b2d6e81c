"""Calls of the C library that move a thread between network namespaces and give those a name.

Python has setns and unshare from 3.12 on, and mount not at all.
Source: setns(2), unshare(2), mount(2); ip-netns(8) for where the names are.
"""

from __future__ import annotations

import ctypes
import os

NAMESPACE_DIRECTORY = "/run/netns"
_CLONE_NEWNET = 0x4000_0000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x10_0000


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
