"""Networks without root: a user namespace, in which we are root over nothing but ourselves.

It has a mount namespace with it, so names of network namespaces are its own, and all of it is gone
with its last process. What it cannot have: LXD, and a scheduler that runs the emulator first.
Source: user_namespaces(7), mount_namespaces(7).
"""

from __future__ import annotations

import os
from pathlib import Path

from packetcloud.testbed import kernel
from packetcloud.testbed.errors import TestbedError

_RUN = Path("/run")


def user_namespace_of(pid: int) -> int | None:
    """Return the number of a process's user namespace; None: it is gone, or another user's."""
    try:
        return Path(f"/proc/{pid}/ns/user").stat().st_ino
    except OSError:
        return None


def become_root_here(kept: Path) -> None:
    """Become root in a user namespace of our own. Call it before there are threads.

    Args:
        kept: a folder that stays what it is, also if it is below /run, which becomes our own.

    Raises:
        TestbedError: this machine does not let us.
    """
    user, group = os.getuid(), os.getgid()
    try:
        kernel.unshare_user()
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        # Opened in the new mount namespace: nothing of another can be mounted.
        folder = os.open(kept, os.O_RDONLY | os.O_DIRECTORY)
        kernel.mount_memory(str(_RUN))
        if kept.resolve().is_relative_to(_RUN):
            kept.mkdir(parents=True)
            kernel.bind_mount(f"/proc/self/fd/{folder}", str(kept))
        os.close(folder)
    except OSError as error:
        raise TestbedError(
            f"network namespaces need root, or user namespaces, and these cannot be made here "
            f"({error}); run this with sudo, or let users have them: sysctl "
            "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns"
        ) from None


def join(pid: int) -> None:
    """Move into the user namespace of a process of ours, if that is another than our own.

    Raises:
        OSError: it is gone, or somebody else's.
    """
    if user_namespace_of(pid) == user_namespace_of(os.getpid()):
        return
    here = Path.cwd()
    kernel.join_user(pid)
    os.chdir(here)


def is_rootless_here() -> bool:
    """Tell whether this process is root over one user alone, as `become_root_here` makes it."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return sum(int(count) for _, _, count in ranges) == 1
