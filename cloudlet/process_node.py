"""A compute node without LXD: VIs are child processes of this machine, which is no boundary.

For trying things out, without root. A VI has a folder with what was asked for, its process's number
and what it prints; so a controller that begins anew finds what runs, as with containers. Limits of
a VI's type are kept and shown, not enforced; the service's own limit of memory is.
Source: design, section 7; docs/reference/compute-nodes.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

from packetcloud.cloudlet.container_config import (
    build,
    label_config,
    limit_config,
    restored_config,
    root_device,
)
from packetcloud.cloudlet.containers import (
    MAX_LOG_BYTES,
    ContainerFacts,
    ContainerState,
    ContainerUsage,
    ContainerWish,
    ImageFiles,
    LiveConfig,
    NicAddresses,
    NicUsage,
    NodeAdapter,
    NodeFacts,
    Protection,
)
from packetcloud.cloudlet.errors import (
    ContainerExistsError,
    ContainerMissingError,
    NodeRefusedError,
    NodeUnreachableError,
)
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import LABEL_PREFIX, NodeSite

NOTICE = (
    'isolation "process": VIs are child processes, which is no boundary against hostile code; run '
    "services of others under LXD"
)
OWN_PROGRAM = ImageFiles(
    hashlib.sha256(b"packetcloud process 1").hexdigest(), "none: what is installed here", ()
)
"""Stands for the image: every VI runs what this controller was installed with."""
VI_PROGRAM = (sys.executable, "-P", "-m", "packetcloud.services.vi")
KILL_LIMIT_S = 10.0
"""After SIGKILL the kernel takes this long at most; longer is a process that hangs in it."""
LOOK_EVERY_S = 0.02
_PASSED = (
    "PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "HOME",
    "TMPDIR",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
)
"""All that a VI gets of our environment: nothing that may hold a secret."""
_ONE_CORE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_WRITE_PID = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec "$@"'
"""The process writes its own number: there is no moment in which it runs and nobody knows it."""
_TOKEN = "PACKETCLOUD_TOKEN"
_NO_NICS = {name: NicUsage(0, 0, 0, 0) for name in ("eth0", "eth1")}


@dataclass(slots=True)
class _Vi:
    """What is kept of one VI."""

    wish: ContainerWish
    """As it was made."""
    live: LiveConfig


class ProcessNode:
    """This machine; see `NodeAdapter` for what each method promises.

    Args:
        folder: of the VIs; made when it is needed.
        program: what a VI runs.
    """

    def __init__(
        self, name: str, site: NodeSite, folder: Path, program: Sequence[str] = VI_PROGRAM
    ) -> None:
        self.name = name
        self._site = site
        self._folder = folder
        self._program = tuple(program)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        """Those that this process started, to be waited for."""
        self._vis = {path.parent.name: _read(path) for path in folder.glob("*/vi.json")}
        self._starting = asyncio.Lock()
        self._is_closed = False

    async def describe(self) -> NodeFacts:
        self._check()
        memory = {
            line.split(":")[0]: int(line.split()[1]) << 10
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.endswith("kB")
        }
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk = shutil.disk_usage(self._folder)
        return NodeFacts(
            name=self.name,
            server_version="process",
            cores_count=len(os.sched_getaffinity(0)),
            memory_bytes=memory["MemTotal"],
            memory_used_bytes=memory["MemTotal"] - memory["MemAvailable"],
            pool=self._site.pool,
            disk_bytes=disk.total,
            disk_used_bytes=disk.total - disk.free,
            has_disk_quota=False,
            protections=(Protection("isolation of VIs", False, NOTICE, "a [[node]] with LXD"),),
        )

    async def containers(self) -> list[ContainerFacts]:
        self._check()
        return [self._facts(name) for name in sorted(self._vis)]

    async def create(self, wish: ContainerWish) -> None:
        self._check()
        built = build(wish, self._site)
        known = self._vis.get(wish.name)
        if known is not None:
            if known.wish != wish:
                raise ContainerExistsError(f"container {wish.name}: another one has this name")
            return
        if not await self.has_image(wish.image):
            raise NodeRefusedError(f"container {wish.name}: no image {wish.image}")
        self._keep(_Vi(wish, LiveConfig((), dict(built.config), dict(built.devices))))

    async def start(self, name: str) -> None:
        async with self._starting:
            await self._start(name)

    async def stop(self, name: str, timeout_s: float) -> None:
        self._get(name)
        self._signal(name, signal.SIGTERM)
        if not await self._ended(name, timeout_s):
            await self.kill(name)

    async def kill(self, name: str) -> None:
        self._get(name)
        self._signal(name, signal.SIGKILL)
        if not await self._ended(name, KILL_LIMIT_S):
            raise NodeRefusedError(f"container {name}: its process cannot be killed")

    async def delete(self, name: str) -> None:
        self._check()
        if name not in self._vis:
            return
        await self.kill(name)
        self._vis.pop(name, None)
        self._children.pop(name, None)
        shutil.rmtree(self._folder / name, ignore_errors=True)

    async def resize(self, name: str, limits: Limits) -> None:
        config = limit_config(limits)
        vi = self._get(name)
        devices = {**vi.live.devices, "root": root_device(limits, self._site)}
        self._change(vi, {**vi.live.config, **config}, devices)

    async def restore(self, name: str, wish: ContainerWish) -> None:
        built = build(wish, self._site)
        vi = self._get(name)
        self._change(vi, restored_config(vi.live.config, built), dict(built.devices))

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        config = label_config(labels)
        vi = self._get(name)
        self._change(vi, {**vi.live.config, **config}, vi.live.devices)

    async def read(self, name: str) -> ContainerFacts:
        self._get(name)
        return self._facts(name)

    async def usage(self, name: str) -> ContainerUsage:
        self._get(name)
        pid = self._pid(name)
        if pid is not None:
            with contextlib.suppress(OSError):  # it ends just now
                return _usage(pid)
        return ContainerUsage(0.0, 0, 0, None, 0, {})

    async def logs(self, name: str) -> str:
        self._get(name)
        try:
            with (self._folder / name / "log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_LOG_BYTES))
                return log.read(MAX_LOG_BYTES).decode("utf-8", "ignore")
        except FileNotFoundError:
            return ""  # it was never started

    async def has_image(self, fingerprint: str) -> bool:
        self._check()
        return fingerprint == OWN_PROGRAM.fingerprint

    async def import_image(self, image: ImageFiles) -> None:
        if not await self.has_image(image.fingerprint):
            raise NodeRefusedError(f"{self.name}: child processes run no image")

    async def remove_image(self, fingerprint: str) -> None:
        self._check()

    async def close(self) -> None:
        """Let go of the node; VIs run on."""
        self._is_closed = True

    async def _start(self, name: str) -> None:
        vi = self._get(name)
        if self._pid(name) is not None:
            return
        folder = self._folder / name
        passed = {key: os.environ[key] for key in _PASSED if key in os.environ}
        own = {**vi.wish.environment, "PACKETCLOUD_ISOLATION": "process"}
        (folder / "pid").unlink(missing_ok=True)
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _WRITE_PID, str(folder / "pid"), *self._program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**passed, **_ONE_CORE, **own},
                start_new_session=True,
            )
        self._children[name] = child
        while self._number(name) is None and child.poll() is None:
            await asyncio.sleep(LOOK_EVERY_S)

    def _check(self) -> None:
        if self._is_closed:
            raise NodeUnreachableError(f"{self.name}: this connection is closed")

    def _get(self, name: str) -> _Vi:
        self._check()
        try:
            return self._vis[name]
        except KeyError:
            raise ContainerMissingError(f"no container {name}") from None

    def _facts(self, name: str) -> ContainerFacts:
        vi = self._vis[name]
        state = ContainerState.STOPPED if self._pid(name) is None else ContainerState.RUNNING
        labels = {
            key.removeprefix(LABEL_PREFIX): value
            for key, value in vi.live.config.items()
            if key.startswith(LABEL_PREFIX)
        }
        return ContainerFacts(name, state, vi.wish.image, labels, vi.live)

    def _change(
        self, vi: _Vi, config: Mapping[str, str], devices: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._keep(_Vi(vi.wish, replace(vi.live, config=dict(config), devices=dict(devices))))

    def _keep(self, vi: _Vi) -> None:
        folder = self._folder / vi.wish.name
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = folder / "vi.json.new"
            new.write_text(json.dumps(asdict(vi), default=str))
            new.chmod(0o600)  # a token is in it
            new.rename(folder / "vi.json")
        except OSError as error:
            raise NodeRefusedError(f"{folder}: {error.strerror}") from None
        self._vis[vi.wish.name] = vi

    def _number(self, name: str) -> int | None:
        try:
            return int((self._folder / name / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _pid(self, name: str) -> int | None:
        """Return the number of a VI's process; None: it has none.

        A number is given again when its process has ended: whose it is shows the token.
        """
        child = self._children.get(name)
        if child is not None and child.poll() is not None:
            del self._children[name]
        pid = self._number(name)
        if pid is None:
            return None
        token = f"{_TOKEN}={self._vis[name].wish.environment.get(_TOKEN, '')}".encode()
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return None
        return pid if token in environment.split(b"\0") else None

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self._pid(name)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(pid, number)  # and all that it started
            else:
                os.kill(pid, number)

    async def _ended(self, name: str, limit_s: float) -> bool:
        for _ in range(max(1, round(limit_s / LOOK_EVERY_S))):
            if name not in self._vis or self._pid(name) is None:
                return True
            await asyncio.sleep(LOOK_EVERY_S)
        return False


def _usage(pid: int) -> ContainerUsage:
    """Raises: OSError: it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    memory, peak = (int(status.get(key, "0 kB").split()[0]) << 10 for key in ("VmRSS", "VmHWM"))
    return ContainerUsage(cpu_s, memory, peak, None, int(status["Threads"]), dict(_NO_NICS))


def _read(path: Path) -> _Vi:
    """Raises: NodeRefusedError: another version wrote it."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        wish, live = document["wish"], document["live"]
        data, control = _nic(wish.pop("data")), _nic(wish.pop("control"))
        own = wish.pop("egress", None)  # an older version wrote none
        egress = _nic(own) if own is not None else None
        limits = Limits(**wish.pop("limits"))
        live["profiles"] = tuple(live["profiles"])
        made = ContainerWish(**wish, data=data, control=control, egress=egress, limits=limits)
        return _Vi(made, LiveConfig(**live))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NodeRefusedError(f"{path} cannot be read: {error}; remove its folder") from None


def _nic(addresses: dict[str, str]) -> NicAddresses:
    return NicAddresses(IPv4Interface(addresses["ipv4"]), IPv6Interface(addresses["ipv6"]))


_ADAPTER: type[NodeAdapter] = ProcessNode
"""For the type checker: it is a node."""
