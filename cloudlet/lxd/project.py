"""The LXD project that is ours alone, with LXD's own restrictions switched on.

They stand behind our policy: whoever changes a container past us is refused by LXD as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from pylxd.exceptions import LXDAPIException, NotFound

from packetcloud.cloudlet.lxd.connection import Api
from packetcloud.cloudlet.policy import LANES_FOLDER

PROJECT = "packetcloud"
DESCRIPTION = "PacketCloud's VIs"
DISK = "restricted.devices.disk"
PATHS = "restricted.devices.disk.paths"
"""Where folders of the node may lie that a container sees, with commas between; LXD follows no link
out of them. Empty would be: anywhere."""
PROJECT_CONFIG: Mapping[str, str] = {
    "features.images": "true",
    "features.profiles": "true",
    "features.storage.volumes": "true",
    "restricted": "true",
    "restricted.backups": "block",
    "restricted.cluster.target": "allow",  # our containers are placed by us
    "restricted.containers.interception": "block",
    "restricted.containers.lowlevel": "block",
    "restricted.containers.nesting": "block",
    "restricted.containers.privilege": "isolated",
    DISK: "managed",  # the root lies in a pool; no folder of the host, but for `allow_lanes`
    "restricted.devices.gpu": "block",
    "restricted.devices.infiniband": "block",
    "restricted.devices.nic": "allow",  # our bridges are not LXD's own
    "restricted.devices.pci": "block",
    "restricted.devices.proxy": "block",
    "restricted.devices.unix-block": "block",
    "restricted.devices.unix-char": "block",
    "restricted.devices.unix-hotplug": "block",
    "restricted.devices.usb": "block",
    "restricted.snapshots": "block",
    "restricted.virtual-machines.lowlevel": "block",
}


def ensure_project(api: Api) -> None:
    """Make the project, or put its settings right. `api` is of no project.

    LXD does not tighten a project while a container in it breaks the restrictions. Then it stays as
    it is, `project_gaps` says so, and the check of the live configuration finds the container.
    """
    try:
        config = api.projects[PROJECT].get().json()["metadata"]["config"]
    except NotFound:
        _make(api)
        return
    if project_gaps(config):
        document = {"config": {**config, **_wanted(config)}, "description": DESCRIPTION}
        with contextlib.suppress(LXDAPIException):
            api.projects[PROJECT].put(json=document)


def project_gaps(config: Mapping[str, str]) -> list[str]:
    """Return the restrictions that are not as they must be."""
    return sorted(key for key, value in _wanted(config).items() if config.get(key, "") != value)


def allow_lanes(api: Api, folder: str) -> bool:
    """Let containers see what is in a folder where routers share memory; tell whether they may.

    Args:
        folder: as `LANES_FOLDER` has it.
    """
    config = api.projects[PROJECT].get().json()["metadata"]["config"]
    allowed = _lanes_paths(config)
    if folder in allowed:
        return True
    more = {DISK: "allow", PATHS: ",".join([*allowed, folder])}
    document = {"config": {**config, **more}, "description": DESCRIPTION}
    try:
        api.projects[PROJECT].put(json=document)
    except LXDAPIException:
        return False
    return True


def _wanted(config: Mapping[str, str]) -> dict[str, str]:
    """Return what a project is to have whose configuration is this."""
    allowed = _lanes_paths(config)
    disk = {DISK: "allow", PATHS: ",".join(allowed)} if allowed else {PATHS: ""}
    return {**PROJECT_CONFIG, **disk}


def _lanes_paths(config: Mapping[str, str]) -> list[str]:
    """Return where routers share memory, of the folders that containers may see."""
    if config.get(DISK) != "allow":
        return []
    return [one for one in config.get(PATHS, "").split(",") if LANES_FOLDER.fullmatch(one)]


def _make(api: Api) -> None:
    document = {
        "name": PROJECT,
        "description": DESCRIPTION,
        "config": dict(PROJECT_CONFIG),
    }
    try:
        api.projects.post(json=document)
    except LXDAPIException as error:
        # Two controllers, or a repeated call, may both have seen that there was none.
        if "already exists" not in str(error).lower():
            raise
