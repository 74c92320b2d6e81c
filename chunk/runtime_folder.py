"""Where what runs for this user leaves what others of its programs look for: status, sockets.

The folder is packetcloud-<uid> in XDG_RUNTIME_DIR, else in /run for root and in /tmp for others. It
has mode 0700 and must be ours: in /tmp somebody else could have made it first.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def runtime_folder() -> Path:
    """Return the folder of this user; it may not exist yet."""
    uid = os.getuid()
    base = os.environ.get("XDG_RUNTIME_DIR") or ("/tmp" if uid else "/run")
    return Path(base) / f"packetcloud-{uid}"


def make_private(*folders: Path) -> None:
    """Make folders, each inside the one before, that nobody else may look into.

    Raises:
        OSError: one cannot be made, is somebody else's, or is open to others.
    """
    for path in folders:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(path)


def check_private(path: Path) -> None:
    """Raises: OSError: it is no folder of this user, or open to others."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{path} is not a folder of this user")
    if status.st_mode & 0o077:
        raise PermissionError(f"{path} is open to others; chmod 700 it")
