"""Where routers and services of this machine meet to share memory; see `lane_door`."""

from __future__ import annotations

from pathlib import Path

from packetcloud.chunk.names import GUID
from packetcloud.chunk.runtime_folder import make_private, runtime_folder


def lane_folder() -> Path | None:
    """Return where the sockets of this user's routers are; None: somebody else could put one there.

    The folder above is made, so that nobody else can make it later. Services of another user, or in
    another file system, find none.
    """
    folder = runtime_folder()
    try:
        make_private(folder)
    except OSError:
        return None
    return folder / "lanes"


def door_path(folder: Path, router: GUID) -> Path:
    """Return the socket of one router: in a folder of its own, which a container may get alone.

    A part of its name is enough, as tokens tell sessions apart, and a path has 107 bytes at most.
    """
    return folder / router.hex[:16] / "door"
