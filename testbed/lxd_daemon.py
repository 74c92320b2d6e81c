"""Private LXD servers of an experiment: each has its own folder, and leaves nothing behind.

A server is a daemon with an LXD_DIR of its own under /tmp, beside whatever LXD the machine runs
otherwise. Two of them are two compute nodes; joined on loopback addresses they are a cluster. What
a killed experiment left (daemons, containers, mounts, loop devices, filters) the next one sweeps.
Needs root.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from packetcloud.testbed.capabilities import find_command
from packetcloud.testbed.errors import ChildError, TestbedError
from packetcloud.testbed.in_namespace import launcher
from packetcloud.testbed.lxd_remains import (
    PARENT,
    PLACED,
    PREFIX,
    clear,
    end_containers,
    end_processes,
    sweep_stale_lxd,
    sweep_stale_pairs,
)
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.ownership import owner_tag
from packetcloud.testbed.peers.tools import free_port

POOL = "pool"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20.0
_CLIENT = "client"
"""Folder of `lxc` in that of a server."""


def lacking_for_lxd() -> str | None:
    """Return why no private LXD can run here, None if it can."""
    if os.geteuid() != 0:
        return "a private LXD needs root"
    for command, package in (("lxd", "lxd"), ("btrfs", "btrfs-progs"), ("nft", "nftables")):
        if find_command(command) is None:
            return f"a private LXD needs the command {command} (apt-get install {package})"
    return None


def check_lxd() -> None:
    """Find out before anything is made whether private LXD servers can run here.

    Raises:
        TestbedError: what is missing and how to get it.
    """
    if (reason := lacking_for_lxd()) is not None:
        raise TestbedError(f"{reason}; what else this machine lacks: packetcloud doctor")


class LxdDaemon:
    """One LXD server; use it in a `with` statement. Its pool is named `POOL`.

    Args:
        driver: `btrfs` (in a file of its own, with quotas) or `dir`.
        pool_mib: size of the btrfs file, which takes only what is written.
        listens: also over HTTPS, on a free port of loopback.
        place: where it and its containers have their bridges and filters. Its mounts are its own
            then, and the kernel ends it with this process; its containers go on.
    """

    def __init__(
        self,
        *,
        driver: str = "btrfs",
        pool_mib: int = 4096,
        listens: bool = False,
        place: Namespace | None = None,
    ) -> None:
        self.folder = PARENT / f"{PREFIX}-{owner_tag()}-{secrets.token_hex(3)}"
        self.socket = self.folder / "unix.socket"
        self.certificate = self.folder / "server.crt"
        self.address = f"127.0.0.1:{free_port()}" if listens else None
        self._driver = driver
        self._pool_mib = pool_mib
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if (reason := lacking_for_lxd()) is not None:
            raise TestbedError(reason)
        sweep_stale_lxd()
        sweep_stale_pairs()
        try:
            self.folder.mkdir(mode=0o711)
            if self._place is not None:
                (self.folder / PLACED).touch()
            self.start()
            self._set_up()
        except BaseException:  # also Ctrl-C: `__exit__` is not called for what `__enter__` raises
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The daemon's process while it runs."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def start(self) -> None:
        """Start the daemon, also again after `stop` or `kill`; return once it answers.

        Raises:
            ChildError: it ended, or does not answer in time.
        """
        command = [_path_of("lxd"), "--group", "root"]
        if self._place is not None:
            command = [*launcher(self._place.name, f"{PARENT}/{PREFIX}-"), *command]
        with (self.folder / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment_of(self.folder),
                start_new_session=True,
            )
        self.run("lxd", "waitready", "--timeout", str(START_TIMEOUT_S))

    def stop(self) -> None:
        """End the daemon in order; its containers go on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the daemon as a crash would; its containers go on."""
        self._end(signal.SIGKILL)

    def run(self, command: str, *arguments: str, text: str | None = None) -> str:
        """Run one of LXD's own commands against this server; return what it prints.

        Raises:
            ChildError: it failed; the text is what it said.
        """
        result = subprocess.run(
            [_path_of(command), *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            env=_environment_of(self.folder),
            timeout=10 * START_TIMEOUT_S,
            check=False,
        )
        if result.returncode != 0:
            said = (result.stderr or result.stdout).strip()
            raise ChildError(f"{command} {' '.join(arguments)}: {said}")
        return result.stdout

    def query(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Ask the server's API by hand, past everything that is tested; waits for operations."""
        options = ["--wait", "-X", method] + ([] if body is None else ["-d", json.dumps(body)])
        text = self.run("lxc", "query", *options, path)
        return json.loads(text) if text.strip() else None

    def trust(self, certificate: Path) -> None:
        """Let the client with this certificate in, over HTTPS."""
        self.run("lxc", "config", "trust", "add", str(certificate))

    def close(self) -> None:
        """End the server with its containers and remove everything; a second call does nothing."""
        if not self.folder.exists():
            return
        # Containers first: the daemon takes their filters and interfaces away as they end.
        end_containers(self.folder)
        self._end(signal.SIGTERM)
        end_processes(self.folder)
        clear(self.folder)

    def _set_up(self) -> None:
        pool: dict[str, Any] = {"name": POOL, "driver": self._driver}
        if self._driver == "btrfs":
            pool["config"] = {"size": f"{self._pool_mib}MiB"}
        config = {"core.https_address": self.address} if self.address else {}
        self.preseed({"config": config, "storage_pools": [pool]})

    def preseed(self, document: object) -> None:
        """Configure the server as `lxd init` does. JSON is YAML, too."""
        self.run("lxd", "init", "--preseed", text=json.dumps(document))

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class LxdCluster:
    """Two or more servers of this machine joined to one cluster; use it in a `with` statement."""

    def __init__(self, count: int = 2, *, driver: str = "btrfs", pool_mib: int = 4096) -> None:
        self.members = [
            _ClusterMember(f"member{number}", driver=driver, pool_mib=pool_mib)
            for number in range(1, count + 1)
        ]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            first, *others = [stack.enter_context(member) for member in self.members]
            first.begin_cluster()
            for other in others:
                other.join(first)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _ClusterMember(LxdDaemon):
    """A server that gets its pool when the cluster is made."""

    def __init__(self, name: str, *, driver: str, pool_mib: int) -> None:
        super().__init__(driver=driver, pool_mib=pool_mib, listens=True)
        self.name = name

    def _set_up(self) -> None:
        return

    def begin_cluster(self) -> None:
        """Make a cluster of this server alone."""
        super()._set_up()
        self.preseed({"cluster": {"enabled": True, "server_name": self.name}})

    def join(self, first: LxdDaemon) -> None:
        """Become a member of the cluster of `first`."""
        token = first.run("lxc", "cluster", "add", self.name, "--quiet").split()[-1]
        size = [{"entity": "storage-pool", "name": POOL, "key": "source", "value": ""}]
        if self._driver == "btrfs":
            value = f"{self._pool_mib}MiB"
            size.append({"entity": "storage-pool", "name": POOL, "key": "size", "value": value})
        self.preseed(
            {
                "cluster": {
                    "enabled": True,
                    "server_name": self.name,
                    "server_address": self.address,
                    "cluster_token": token,
                    "member_config": size,
                }
            }
        )


def lxc_call(folder: Path, words: Sequence[str]) -> tuple[str, list[str], dict[str, str]]:
    """Return program, words and environment of a call of `lxc` to the server in a folder, for
    `os.execve`.

    Raises:
        TestbedError: no such command.
    """
    config = folder / _CLIENT / "config.yml"
    config.parent.mkdir(mode=0o700, exist_ok=True)
    config.write_text("default-remote: local\n")  # without one `lxc` greets its first user
    return _path_of("lxc"), ["lxc", *words], _environment_of(folder)


def _path_of(command: str) -> str:
    path = find_command(command)
    if path is None:
        raise TestbedError(f"needs the command {command} (apt-get install lxd)")
    return path


def _environment_of(folder: Path) -> dict[str, str]:
    own = {"LXD_DIR": str(folder), "LXD_CONF": str(folder / _CLIENT)}
    return {**os.environ, **own, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
