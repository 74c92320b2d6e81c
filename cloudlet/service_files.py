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
from packetcloud.services.files import Stamp, stamp_of
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
        self._read: dict[tuple[str, str], Stamp] = {}
        """The version that was read last, by service and parameter."""
        self._seen: dict[tuple[str, str], Stamp] = {}
        """The version that was there at the last look."""
        self._told: dict[tuple[str, str], str] = {}
        """What was logged last of a file that could not be read."""

    async def watch(self) -> None:
        """Look once a second, for good."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            self.look()

    def look(self) -> None:
        """Read the files that changed and stood still since the last look; bring them to VIs."""
        services = self._launches.services
        keys = {(one.name, name) for one in services for name in one.files}
        self._seen = {key: version for key, version in self._seen.items() if key in keys}
        self._read = {key: version for key, version in self._read.items() if key in keys}
        self._told = {key: text for key, text in self._told.items() if key in keys}
        for one in services:
            changed = [name for name in one.files if self._has_changed(one, name)]
            if changed:
                _log.info("service %s: %s changed; its VIs get it", one.name, ", ".join(changed))
                self._give(one.name)

    def _has_changed(self, service: DeclaredService, name: str) -> bool:
        key, path = (service.name, name), Path(str(service.spec.parameters[name]))
        version = stamp_of(path)
        seen, self._seen[key] = self._seen.get(key), version
        if version != seen or version == self._read.get(key):
            return False  # somebody may be writing it; or it is what was read
        what = f"service {service.name}: files: {name} = '{path}'"
        others = sum(len(content) for each, content in service.files.items() if each != name)
        try:
            if version is None:
                raise CloudletConfigError(f"{what} is gone")
            content = content_of(what, path, MAX_FILES_BYTES - others)
        except CloudletConfigError as error:
            # Tried again at the next look: it may be that too many files were open just now.
            if self._told.get(key) != str(error):
                self._told[key] = str(error)
                _log.error("%s; its VIs keep what they have", error)
            return False
        self._read[key] = version
        self._told.pop(key, None)
        if content == service.files[name]:
            return False
        self._launches.take_file(service.name, name, content)
        return True
