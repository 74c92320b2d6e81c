"""Where running services leave their status, one JSON file each, for `service list`.

The folder is ${XDG_RUNTIME_DIR:-/tmp}/packetcloud-<uid>, mode 0700, and must be ours: in /tmp
somebody else could have made it first.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import write_private_file

STATUS_FORMAT = "packetcloud-service-status-1"
_FOLDER = "services"


def default_state_dir() -> Path:
    """Return the folder of this user's running services; it may not exist yet."""
    base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
    return Path(base) / f"packetcloud-{os.getuid()}"


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
            for path in (state_dir, folder):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_private(path)
        except OSError as error:
            raise ServiceConfigError(
                f"cannot use state folder {state_dir}: {error.strerror}; see --state-dir"
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


def _check_private(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ServiceConfigError(f"{path} is not a folder of this user; see --state-dir")
    if status.st_mode & 0o077:
        raise ServiceConfigError(f"{path} is open to others; chmod 700 it")


def _start_of(pid: int) -> int:
    """Return when a process started, in clock ticks; 0 if there is none. Tells re-used pids."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The name in parentheses may hold anything, also parentheses: count from the last one.
    return int(text.rpartition(")")[2].split()[19])
