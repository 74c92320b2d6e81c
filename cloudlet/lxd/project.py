"""The LXD project that is ours alone, with LXD's own restrictions switched on.

They stand behind our policy: whoever changes a container past us is refused by LXD as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from pylxd.exceptions import LXDAPIException, NotFound

from packetcloud.cloudlet.lxd.connection import Api

PROJECT = "packetcloud"
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
    "restricted.devices.disk": "managed",  # the root lies in a pool; no folder of the host
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
        document = {"config": {**config, **PROJECT_CONFIG}, "description": "PacketCloud's VIs"}
        with contextlib.suppress(LXDAPIException):
            api.projects[PROJECT].put(json=document)


def project_gaps(config: Mapping[str, str]) -> list[str]:
    """Return the restrictions that are not as they must be."""
    return sorted(key for key, value in PROJECT_CONFIG.items() if config.get(key) != value)


def _make(api: Api) -> None:
    document = {
        "name": PROJECT,
        "description": "PacketCloud's VIs",
        "config": dict(PROJECT_CONFIG),
    }
    try:
        api.projects.post(json=document)
    except LXDAPIException as error:
        # Two controllers, or a repeated call, may both have seen that there was none.
        if "already exists" not in str(error).lower():
            raise
