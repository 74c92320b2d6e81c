"""Which topologies are up on this machine: a folder for each, and a lock that its keeper holds.

A folder whose lock nobody holds was left by a kill or a crash; whoever comes next sweeps it. The
lock ends with its holder, so no number of a process has to be believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pyroute2 import netns

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.held_folder import lock_file
from packetcloud.testbed.lxd_remains import sweep_stale_lxd
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.ownership import started_at
from packetcloud.testbed.topology.leftovers import KEEPER_VARIABLE, Marked, end_processes_in
from packetcloud.testbed.topology.rootless import user_namespace_of

FORMAT = "packetcloud-topology-1"
DEFAULT_FOLDER = Path("/run/packetcloud-testbed")
FOLDER_VARIABLE = "PACKETCLOUD_TESTBED_DIR"
"""Somewhere else, for tests."""
_LOCK = "lock"
_STATE = "state.json"
_KEEPER = "keeper"
_TRIES_COUNT = 20
_LOOKS_COUNT = 3


@dataclass(frozen=True, slots=True)
class Keeper:
    """The process that keeps a topology up."""

    pid: int
    started: str
    """When, in ticks since boot: with it, a number that was given anew is not mistaken."""
    user_namespace: int
    """Its own, where it has no root's power."""

    @property
    def is_alive(self) -> bool:
        return started_at(self.pid) == self.started

    @property
    def mark(self) -> str:
        """What it is called in the environment of all that it starts."""
        return f"{self.pid}-{self.started}"

    @property
    def is_rootless(self) -> bool:
        """Its namespaces are not ours, and their names are not to be seen here."""
        return self.user_namespace != user_namespace_of(os.getpid())


@dataclass(frozen=True, slots=True)
class Entry:
    """One topology that is up, or was left behind."""

    name: str
    folder: Path
    keeper: Keeper | None
    is_held: bool
    """Its lock is held: its keeper lives."""
    state: dict[str, Any] | None
    """What the keeper wrote once all was up."""


class Claim:
    """A name that is ours: its folder, and the lock. Made by `claim`."""

    def __init__(self, name: str, folder: Path, lock: IO[str]) -> None:
        self.name = name
        self.folder = folder
        self._lock = lock
        pid = os.getpid()
        keeper = Keeper(pid, str(started_at(pid)), user_namespace_of(pid) or 0)
        (folder / _KEEPER).write_text(json.dumps(asdict(keeper)))
        os.environ[KEEPER_VARIABLE] = keeper.mark

    @property
    def scratch(self) -> Path:
        """An empty folder for what the topology needs."""
        path = self.folder / "files"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def write_state(self, state: dict[str, Any]) -> None:
        """Say what is up; readers see it whole or not at all."""
        new = self.folder / f".{_STATE}"
        new.write_text(json.dumps({"format": FORMAT, "name": self.name, **state}, indent=2) + "\n")
        new.replace(self.folder / _STATE)

    def release(self) -> None:
        """Give the name back and remove its folder; a second call does nothing."""
        if not self._lock.closed:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.close()


def base_folder() -> Path:
    """Where the folders of all topologies of this user are."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    if os.geteuid() == 0:
        return DEFAULT_FOLDER
    return Path(tempfile.gettempdir()) / f"packetcloud-testbed-{os.getuid()}"


def make_base_folder() -> Path:
    """Return `base_folder`, which is there then and ours.

    Raises:
        TestbedError: it is somebody else's, or cannot be made.
    """
    folder = base_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise TestbedError(f"cannot use {folder}: {error.strerror}") from None
    if folder.is_symlink() or owner != os.geteuid():
        raise TestbedError(f"{folder} is not ours; choose another by {FOLDER_VARIABLE}")
    return folder


def claim(name: str) -> Claim:
    """Take a name for this process; what a dead keeper left under it is swept first.

    Raises:
        TestbedError: a topology of that name is up, or the folder cannot be made.
    """
    folder = make_base_folder() / name
    for _ in range(_TRIES_COUNT):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            lock = (folder / _LOCK).open("w")
        except FileNotFoundError:
            continue  # somebody removed the folder in between
        except OSError as error:
            raise TestbedError(f"cannot use {folder}: {error.strerror}") from None
        if not lock_file(lock):
            lock.close()
            raise TestbedError(
                f"a topology {name!r} is up; end it with: packetcloud testbed down {name}, or give "
                "this one another --name"
            )
        if _is_at(lock, folder / _LOCK):
            _sweep_folder(folder)
            return Claim(name, folder, lock)
        lock.close()
    raise TestbedError(f"cannot use {folder}: others make and remove it all the time")


def entries() -> list[Entry]:
    """Return all topologies of this machine by name, those that were left behind too."""
    base = base_folder()
    if not base.is_dir():
        return []
    return [read_entry(path.name) for path in sorted(base.iterdir()) if path.is_dir()]


def read_entry(name: str) -> Entry:
    """Return what is known of a topology.

    Raises:
        TestbedError: there is none of that name.
    """
    folder = base_folder() / name
    if not folder.is_dir():
        up = ", ".join(one.name for one in entries()) or "none"
        raise TestbedError(f"no topology {name!r} is up; there are: {up}")
    return Entry(name, folder, _read_keeper(folder), _is_held(folder), _read_state(folder))


def sweep(name: str) -> bool:
    """Remove what a dead keeper left; False: its keeper lives, and nothing was done."""
    folder = base_folder() / name
    with contextlib.suppress(FileNotFoundError), (folder / _LOCK).open("a") as lock:
        if not lock_file(lock):
            return False
        if _is_at(lock, folder / _LOCK):
            _sweep_folder(folder)
            shutil.rmtree(folder, ignore_errors=True)
        return True
    # No lock: it was killed before it had one.
    shutil.rmtree(folder, ignore_errors=True)
    return True


def sweep_all() -> list[str]:
    """Remove what all dead keepers left; return the names."""
    return [one.name for one in entries() if not one.is_held and sweep(one.name)]


def namespaces_of(keeper: Keeper) -> list[str]:
    """Return the namespaces that a keeper made, by the mark in their names."""
    return [name for name in netns.listnetns() if f"-{keeper.mark}-" in name]


def _sweep_folder(folder: Path) -> None:
    """End and remove what the last keeper of a folder left, but for the folder and its lock."""
    keeper = _read_keeper(folder)
    if keeper is not None:
        if not keeper.is_rootless:
            # First, while their monitors live, which know the containers.
            sweep_stale_lxd(keeper.mark)
        names = namespaces_of(keeper)
        marked = Marked(keeper.user_namespace, keeper.mark) if keeper.is_rootless else None
        for _ in range(_LOOKS_COUNT):
            # Who forks or becomes another program just now is seen the next time.
            if not end_processes_in(names, marked):
                break
        for name in names:
            with contextlib.suppress(OSError):
                Namespace("", name).remove()
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)


def _is_at(lock: IO[str], path: Path) -> bool:
    """Tell whether an open lock is still the file of that name."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_held(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _read_keeper(folder: Path) -> Keeper | None:
    try:
        return Keeper(**json.loads((folder / _KEEPER).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / _STATE).read_text())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and state.get("format") == FORMAT else None
