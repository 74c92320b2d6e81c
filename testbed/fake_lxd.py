"""A compute node in memory, under the same contract as LXD, that fails when a test wants it to.

Faults are told by step: `fail_next("create", ...)` makes the next `create` raise before it does
anything, `lose_answer("create")` lets it be done and then raises NodeUnreachableError, as a node
that crashed behind the answer would. A node that is down answers nothing; its containers go on.
Time passes only in the function `sleep` that a test hands in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from packetcloud.cloudlet.container_config import (
    build,
    label_config,
    limit_config,
    restored_config,
    root_device,
)
from packetcloud.cloudlet.containers import (
    ContainerFacts,
    ContainerState,
    ContainerUsage,
    ContainerWish,
    ImageFiles,
    LiveConfig,
    NicUsage,
    NodeAdapter,
    NodeFacts,
    Protection,
)
from packetcloud.cloudlet.errors import (
    ContainerExistsError,
    ContainerMissingError,
    NodeError,
    NodeRefusedError,
    NodeUnreachableError,
    NoRoomError,
)
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import LABEL_PREFIX, NodeSite

Sleep = Callable[[float], Awaitable[None]]
MIB = 1 << 20
_NO_NIC_USE = NicUsage(0, 0, 0, 0)
_UNUSED = ContainerUsage(0.0, 0, 0, 0, 0, {})


async def no_sleep(delay_s: float) -> None:
    """Let no time pass."""


@dataclass(slots=True)
class FakeContainer:
    """One container; a test may change what it uses."""

    wish: ContainerWish
    live: LiveConfig
    limits: Limits
    state: ContainerState = ContainerState.STOPPED
    usage: ContainerUsage = _UNUSED
    log: str = ""
    starts_count: int = 0

    def facts(self) -> ContainerFacts:
        config = self.live.config
        labels = {
            key.removeprefix(LABEL_PREFIX): value
            for key, value in config.items()
            if key.startswith(LABEL_PREFIX)
        }
        return ContainerFacts(self.wish.name, self.state, self.wish.image, labels, self.live)


@dataclass(slots=True)
class _Fault:
    error: NodeError
    is_done_first: bool


@dataclass
class FakeNode:
    """A node with room for so much; see `NodeAdapter` for what each method promises."""

    name: str
    site: NodeSite = NodeSite("pool", "pc-data", "pc-control")  # noqa: RUF009 (frozen)
    cores_count: int = 4
    memory_bytes: int = 8192 * MIB
    disk_bytes: int = 65536 * MIB
    sleep: Sleep = no_sleep
    delays_s: Mapping[str, float] = field(default_factory=dict)
    """How long each step takes, by its name; what is not named takes no time."""
    on_start: Callable[[FakeContainer], None] | None = None
    """Hears of each start: where a test lets the init of a container begin."""
    is_up: bool = True
    found: dict[str, FakeContainer] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Every call: the step, and the container or image."""
    _faults: dict[str, deque[_Fault | None]] = field(default_factory=dict)
    _boot_count: int = 0
    _is_closed: bool = False

    def fail_next(self, step: str, error: NodeError, *, after: int = 0) -> None:
        """Make a call of `step` fail with nothing done, the one `after` so many that succeed."""
        self._plan(step, _Fault(error, is_done_first=False), after)

    def lose_answer(self, step: str, *, after: int = 0) -> None:
        """Let a call of `step` be done, but its answer be lost."""
        error = NodeUnreachableError(f"{self.name}: no answer to {step}")
        self._plan(step, _Fault(error, is_done_first=True), after)

    def go_down(self) -> None:
        """The daemon ends: calls in progress lose their answer, new ones get none; VIs go on."""
        self.is_up = False
        self._boot_count += 1

    def come_back(self) -> None:
        self.is_up = True

    def restart(self) -> None:
        """The daemon ends and is there again."""
        self.go_down()
        self.come_back()

    def lose_power(self) -> None:
        """The whole machine ends, and every container with it."""
        self.go_down()
        for name in self.found:
            self.crash(name)

    def crash(self, name: str) -> None:
        """The init of a container ends by itself."""
        self.found[name].state = ContainerState.STOPPED

    async def describe(self) -> NodeFacts:
        await self._step("describe", "")
        running = [one for one in self.found.values() if one.state is ContainerState.RUNNING]
        return NodeFacts(
            name=self.name,
            server_version="fake",
            cores_count=self.cores_count,
            memory_bytes=self.memory_bytes,
            memory_used_bytes=sum(one.usage.memory_bytes for one in running),
            pool=self.site.pool,
            disk_bytes=self.disk_bytes,
            disk_used_bytes=sum(one.usage.disk_bytes or 0 for one in self.found.values()),
            has_disk_quota=self.site.has_disk_quota,
            protections=(Protection("everything", False, "it is a fake", "use LXD"),),
        )

    async def containers(self) -> list[ContainerFacts]:
        await self._step("containers", "")
        return [self.found[name].facts() for name in sorted(self.found)]

    async def create(self, wish: ContainerWish) -> None:
        built = build(wish, self.site)

        def do() -> None:
            existing = self.found.get(wish.name)
            if existing is not None:
                if existing.wish != wish:
                    raise ContainerExistsError(f"container {wish.name}: another one has this name")
                return
            if wish.image not in self.images:
                raise NodeRefusedError(f"container {wish.name}: no image {wish.image}")
            taken = sum(one.limits.disk_mib for one in self.found.values())
            if (taken + wish.limits.disk_mib) * MIB > self.disk_bytes:
                raise NoRoomError(f"{self.name}: no space left for {wish.name}")
            live = LiveConfig((), dict(built.config), dict(built.devices))
            self.found[wish.name] = FakeContainer(wish, live, wish.limits)

        await self._step("create", wish.name, do)

    async def start(self, name: str) -> None:
        def do() -> None:
            container = self._get(name)
            if container.state is not ContainerState.RUNNING:
                container.state = ContainerState.RUNNING
                container.starts_count += 1
                container.log += f"up {container.wish.environment.get('PACKETCLOUD_TOKEN', '')}\n"
                devices = container.live.devices
                nics = {name: _NO_NIC_USE for name in devices if name.startswith("eth")}
                container.usage = ContainerUsage(0.0, MIB, MIB, MIB, 1, nics)
                if self.on_start is not None:
                    self.on_start(container)

        await self._step("start", name, do)

    async def stop(self, name: str, timeout_s: float) -> None:
        await self._step("stop", name, lambda: self._end(name))

    async def kill(self, name: str) -> None:
        await self._step("kill", name, lambda: self._end(name))

    async def delete(self, name: str) -> None:
        await self._step("delete", name, lambda: self.found.pop(name, None))

    async def resize(self, name: str, limits: Limits) -> None:
        config = limit_config(limits)

        def do() -> None:
            container = self._get(name)
            if limits.memory_mib * MIB < container.usage.memory_bytes:
                raise NoRoomError(
                    f"container {name}: uses more memory than {limits.memory_mib} MiB"
                )
            live = container.live
            container.live = replace(
                live,
                config={**live.config, **config},
                devices={**live.devices, "root": root_device(limits, self.site)},
            )
            container.limits = limits

        await self._step("resize", name, do)

    async def restore(self, name: str, wish: ContainerWish) -> None:
        built = build(wish, self.site)

        def do() -> None:
            container = self._get(name)
            if wish.limits.memory_mib * MIB < container.usage.memory_bytes:
                raise NoRoomError(
                    f"container {name}: uses more memory than {wish.limits.memory_mib} MiB"
                )
            config = restored_config(container.live.config, built)
            container.live = LiveConfig((), config, dict(built.devices))
            container.limits = wish.limits

        await self._step("restore", name, do)

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        config = label_config(labels)

        def do() -> None:
            container = self._get(name)
            container.live = replace(container.live, config={**container.live.config, **config})

        await self._step("label", name, do)

    async def read(self, name: str) -> ContainerFacts:
        await self._step("read", name)
        return self._get(name).facts()

    async def usage(self, name: str) -> ContainerUsage:
        await self._step("usage", name)
        container = self._get(name)
        if container.state is ContainerState.RUNNING:
            return container.usage
        return ContainerUsage(0.0, 0, 0, container.usage.disk_bytes, 0, {})

    async def logs(self, name: str) -> str:
        await self._step("logs", name)
        return self._get(name).log

    async def has_image(self, fingerprint: str) -> bool:
        await self._step("has_image", fingerprint)
        return fingerprint in self.images

    async def import_image(self, image: ImageFiles) -> None:
        await self._step(
            "import_image", image.fingerprint, lambda: self.images.add(image.fingerprint)
        )

    async def remove_image(self, fingerprint: str) -> None:
        await self._step("remove_image", fingerprint, lambda: self.images.discard(fingerprint))

    async def close(self) -> None:
        self._is_closed = True

    def _plan(self, step: str, fault: _Fault, after: int) -> None:
        faults = self._faults.setdefault(step, deque())
        faults.extend([None] * after)
        faults.append(fault)

    async def _step(self, step: str, what: str, do: Callable[[], object] = lambda: None) -> None:
        """Do one step as a server would: faults before, time, the change, faults behind it."""
        self.calls.append((step, what))
        faults = self._faults.get(step)
        fault = faults.popleft() if faults else None
        self._check_up(step)
        boot = self._boot_count
        if fault is not None and not fault.is_done_first:
            raise fault.error
        await self.sleep(self.delays_s.get(step, 0.0))
        self._check_up(step)
        do()
        if fault is not None:
            raise fault.error
        if boot != self._boot_count:
            raise NodeUnreachableError(f"{self.name}: restarted during {step}")

    def _check_up(self, step: str) -> None:
        if self._is_closed:
            raise NodeUnreachableError(f"{self.name}: this connection is closed")
        if not self.is_up:
            raise NodeUnreachableError(f"{self.name}: no answer to {step}")

    def _get(self, name: str) -> FakeContainer:
        try:
            return self.found[name]
        except KeyError:
            raise ContainerMissingError(f"no container {name}") from None

    def _end(self, name: str) -> None:
        container = self._get(name)
        if container.state is ContainerState.RUNNING:
            container.state = ContainerState.STOPPED
            container.log += "bye\n"


_ADAPTER: type[NodeAdapter] = FakeNode
"""For the type checker: a fake is a node."""
