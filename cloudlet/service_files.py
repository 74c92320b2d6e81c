"""Files that services are launched with, looked at again and again: VIs get what changed.

A key is rotated by writing its file; nobody starts a VI again for that.
Source: docs/reference/cloudlet-config.md, "[[service]]".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from packetcloud.cloudlet.declared_services import DeclaredService, content_of
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.launches import ConfiguredLaunches
from packetcloud.services.files import WatchedFile
from packetcloud.services.launch_files import MAX_FILES_BYTES

LOOK_INTERVAL_S = 1.0
_log = logging.getLogger("packetcloud.cloudlet")


class ServiceFiles:
    """Keeps the launches' files as they are on this machine.

    Args:
        give: brings the files of a service to its VIs that run.
    """

    def __init__(self, launches: ConfiguredLaunches, give: Callable[[str], None]) -> None:
        self._launches = launches
        self._give = give
        self._files: dict[tuple[str, str], WatchedFile] = {}
        """By service and parameter."""

    async def watch(self) -> None:
        """Look once a second, for good."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            self.look()

    def look(self) -> None:
        """Read the files that changed and stood still since the last look; bring them to VIs."""
        services = self._launches.services
        keys = {(one.name, name) for one in services for name in one.files}
        self._files = {key: file for key, file in self._files.items() if key in keys}
        for one in services:
            changed = [name for name in one.files if self._has_changed(one, name)]
            if changed:
                _log.info("service %s: %s changed; its VIs get it", one.name, ", ".join(changed))
                self._give(one.name)

    def _has_changed(self, service: DeclaredService, name: str) -> bool:
        key, path = (service.name, name), Path(str(service.spec.parameters[name]))
        file = self._files.get(key)
        if file is None or file.path != path:
            file = self._files[key] = WatchedFile(path, is_read=False, is_steady=True)
        if not file.is_to_be_read():
            return False
        what = f"service {service.name}: files: {name} = '{path}'"
        others = sum(len(content) for each, content in service.files.items() if each != name)
        try:
            content = content_of(what, path, MAX_FILES_BYTES - others)
        except CloudletConfigError as error:
            if file.failed(str(error)):
                _log.error("%s; its VIs keep what they have", error)
            return False
        file.taken()
        if content == service.files[name]:
            return False
        self._launches.take_file(service.name, name, content)
        return True
