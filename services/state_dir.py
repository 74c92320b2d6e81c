"""Where running services leave their status, one JSON file each, for `service list`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packetcloud.chunk.runtime_folder import make_private, runtime_folder
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import write_private_file

STATUS_FORMAT = "packetcloud-service-status-1"
_FOLDER = "services"


def default_state_dir() -> Path:
    """Return the folder of this user's running services; it may not exist yet."""
    return runtime_folder()


@dataclass(frozen=True, slots=True)
class StatusFile:
    """The status file of one running service."""

    path: Path

    @classmethod
    def create(cls, state_dir: Path, name: str) -> StatusFile:
        """Return the file for service `name` run by this process, its folders made.

        Raises:
            ServiceConfigError: the folder cannot be made, or others may write there.
        """
        folder = state_dir / _FOLDER
        try:
            make_private(state_dir, folder)
        except OSError as error:
            raise ServiceConfigError(
                f"cannot use state folder {state_dir}: {error.strerror or error}; see --state-dir"
            ) from error
        return cls(folder / f"{name}-{os.getpid()}.json")

    def write(self, values: dict[str, Any]) -> None:
        """Replace the status; says also whose it is, so that a dead one is recognised."""
        pid = os.getpid()
        owner = {"format": STATUS_FORMAT, "pid": pid, "pid_started": _start_of(pid)}
        write_private_file(
            self.path, json.dumps(owner | values, indent=1).encode() + b"\n", durable=False
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def running_services(state_dir: Path) -> list[dict[str, Any]]:
    """Return the status of every service that runs; files of dead ones are removed."""
    found = []
    for path in sorted((state_dir / _FOLDER).glob("*.json")):
        try:
            values = json.loads(path.read_text())
            is_ours = values["format"] == STATUS_FORMAT
            is_alive = is_ours and _start_of(int(values["pid"])) == values["pid_started"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being replaced, or not a status file: not ours to remove
        if is_alive:
            found.append(values)
        elif is_ours:
            path.unlink(missing_ok=True)
    return found


def _start_of(pid: int) -> int:
    """Return when a process started, in clock ticks; 0 if there is none. Tells re-used pids."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The name in parentheses may hold anything, also parentheses: count from the last one.
    return int(text.rpartition(")")[2].split()[19])
