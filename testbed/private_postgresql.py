"""A private PostgreSQL of an experiment: a folder of its own, no TCP port, nothing left behind.

Its files and its socket are in one folder that only its user and root can enter. It runs with the
settings that matter as a server does: `fsync` and `synchronous_commit` are on.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from time import monotonic, sleep
from typing import Self

import psutil

from packetcloud.testbed.errors import ChildError, TestbedError
from packetcloud.testbed.ownership import is_abandoned, owner_tag

PARENT = Path("/tmp")
"""Short: the path of a socket has at most 107 bytes."""
MEMORY = Path("/dev/shm")
"""For who restarts a server often: flushing the files of thirty databases took 20 s on a disk."""
MEMORY_ROOM_BYTES = 2 << 30
PREFIX = "pcpg"
USER = "packetcloud"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_DEBIAN = Path("/usr/lib/postgresql")


def lacking_for_postgresql() -> str | None:
    """Return why no private PostgreSQL can run here, None if it can."""
    if _programs() is None:
        return "a private PostgreSQL needs its programs (apt-get install postgresql)"
    return None


def quick_parent() -> Path:
    """Return where a server whose flushes do not matter has its folder: in memory, if it fits."""
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        return PARENT
    return MEMORY if room.f_bavail * room.f_frsize >= MEMORY_ROOM_BYTES else PARENT


def postgresql_version() -> str | None:
    """Return what the server says of itself; None: it is not here."""
    if lacking_for_postgresql() is not None:
        return None
    command = [str(_program("postgres")), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class PrivatePostgresql:
    """One server; use it in a `with` statement. It listens on a Unix socket alone.

    Args:
        parent: where its folder is made, `PARENT` or `MEMORY`.
    """

    def __init__(self, parent: Path = PARENT) -> None:
        self.folder = parent / f"{PREFIX}-{owner_tag()}-{secrets.token_hex(3)}"
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if (reason := lacking_for_postgresql()) is not None:
            raise TestbedError(reason)
        _sweep()
        try:
            self.folder.mkdir(mode=0o700)
            account = _account()
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8")
            self.start()
        except BaseException:  # also Ctrl-C: `__exit__` is not called for what `__enter__` raises
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def make_database(self, template: str = "template1") -> str:
        """Make a database, empty or a copy of one that nobody is connected to; return its URL."""
        name = f"d{secrets.token_hex(6)}"
        self._run("createdb", "-h", str(self.folder), "-U", USER, "-T", template, name)
        return self.url(name)

    def start(self) -> None:
        """Start the server, also again after `stop` or `kill`; return once it answers.

        Raises:
            ChildError: it ended, or does not answer in time.
        """
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(_program("postgres")), "-D", str(self._data)),
                    *("-k", str(self.folder), "-c", "listen_addresses="),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=_user(),
                group=_group(),
            )
        end_s = monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or monotonic() > end_s:
                raise ChildError(f"PostgreSQL does not start: {(self.folder / 'log').read_text()}")
            sleep(0.05)

    def stop(self) -> None:
        """End the server in order; whoever is connected is thrown out."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server and its processes as a crash would."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._end(signal.SIGKILL)
        end_s = monotonic() + STOP_TIMEOUT_S
        while any(map(_is_alive, processes)) and monotonic() < end_s:
            sleep(0.01)

    def pause(self) -> None:
        """Stop the server and its processes where they are."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def go_on(self) -> None:
        """Let it go on after `pause`."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self.go_on()
            self._end(signal.SIGQUIT)  # at once: nobody needs its files any more
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        processes = self._processes()
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for one in processes:  # the next server does not start while one of them is left
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()

    def _processes(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        server = psutil.Process(self._process.pid)
        return [server, *server.children(recursive=True)]

    def _answers(self) -> bool:
        command = [str(_program("pg_isready")), "-q", "-h", str(self.folder), "-U", USER]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(_program(program)), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=PARENT,
            user=_user(),
            group=_group(),
        )
        if done.returncode:
            raise ChildError(f"{program}: {done.stderr.strip()}")


def _is_alive(process: psutil.Process) -> bool:
    """Tell whether it still runs; who ended and waits to be noticed does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs."""
    versions = [one for one in _DEBIAN.glob("*/bin") if (one / "postgres").exists()]
    if versions:
        return max(versions, key=lambda one: float(one.parent.name))
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def _program(name: str) -> Path:
    folder = _programs()
    if folder is None:
        raise TestbedError("a private PostgreSQL needs its programs (apt-get install postgresql)")
    return folder / name


def _account() -> pwd.struct_passwd:
    """Return whom the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _user() -> int | None:
    return _account().pw_uid if os.geteuid() == 0 else None


def _group() -> int | None:
    return _account().pw_gid if os.geteuid() == 0 else None


def _sweep() -> None:
    """End servers whose experiment was killed, and remove their folders."""
    for folder in (*PARENT.glob(f"{PREFIX}-*"), *MEMORY.glob(f"{PREFIX}-*")):
        if not is_abandoned(folder.name, PREFIX):
            continue
        with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
            server = psutil.Process(pid)
            if str(folder) in " ".join(server.cmdline()):
                server.send_signal(signal.SIGINT)
                server.wait(STOP_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)
