"""A whole cloudlet in one process: real controller, fake nodes, a router's table, VIs that call.

Chunks are counted: each service's state is the number of chunks that it processed, so a state that
is lost, doubled or owned by two shows as a wrong number.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet import controller as controller_module
from packetcloud.cloudlet.callers import Callers
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.containers import ContainerState, ImageFiles, NodeAdapter
from packetcloud.cloudlet.controller import Controller
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core import migration as migration_module
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.placement import POLICIES
from packetcloud.cloudlet.errors import StoreError
from packetcloud.cloudlet.launches import ConfiguredLaunches
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import NodeSite
from packetcloud.cloudlet.store import Rows, Store
from packetcloud.router.cloudlet_table import ViState as AtRouter
from packetcloud.testbed.fake_lxd import FakeContainer, FakeNode
from tests.functional.cloudlet_router import CloudletRouter
from tests.functional.control_vi import ControlVi, hello_of

IMAGE = "ab" * 32
BEAT_S = 0.02
LIMIT_S = 40.0
MANIFEST = """\
manifest = 1
[service]
name = "{name}"
version = "1.0.0"
entry_point = "probe:Probe"
[behaviour]
fail_policy = "closed"
state = "{state}"
[supervision]
first_delay_s = 0.05
longest_delay_s = 0.1
quarantine_crashes = 4
"""
CONFIG = """\
[cloudlet]
name = "c1"
state = "state"
node_lost_s = 2.0
[[node]]
name = "n1"
socket = "n1.socket"
[[node]]
name = "n2"
socket = "n2.socket"
[[service]]
manifest = "counts"
key = "counts.key"
replicas_min = 2
replicas_max = 4
[[service]]
manifest = "plain"
key = "plain.key"
owner = "tenant"
"""


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the controller look more often than it would."""
    monkeypatch.setattr(controller_module, "OBSERVE_INTERVAL_S", 0.03)
    monkeypatch.setattr(controller_module, "DESCRIBE_INTERVAL_S", 0.3)
    monkeypatch.setattr(controller_module, "ASK_ROUTER_INTERVAL_S", 0.02)
    monkeypatch.setattr(migration_module, "IDLE_RETRY_S", 0.01)


class TestLaunches(ConfiguredLaunches):
    """Launches of VIs that all call from this machine."""

    __test__ = False

    def control_address(self, vi: Vi) -> str:
        return "127.0.0.1"


class Killed(Store):
    """A store whose controller ends at a save: with it, or just before it."""

    def __init__(self, folder: Path, at: int, *, is_saved: bool) -> None:
        super().__init__(folder)
        self._left = at
        self._is_saved = is_saved
        self.was_killed = False

    def save(self, rows: Rows) -> None:
        before = dict(self._saved)
        if self.was_killed or (not self._is_saved and self._left == 1):
            self.was_killed = True
            raise StoreError("killed before the save")
        super().save(rows)
        if self._saved != before:
            self._left -= 1
            if self._left == 0:
                self.was_killed = True
                raise StoreError("killed right after the save")


@dataclass
class Agent:
    """What runs in a container: calls the controller, keeps the service's state."""

    place: Place
    node: FakeNode
    container: FakeContainer
    boot: int
    is_launched: bool = False
    service: str = ""
    instance: int = 0
    state: int = 0
    launches_count: int = 0
    limits_at_launch: Limits | None = None
    is_mute: bool = False
    """Says nothing of itself."""
    refuses: Counter[str] = field(default_factory=Counter)
    """How often it fails to do something, by what."""

    @property
    def name(self) -> str:
        return self.container.wish.name

    @property
    def is_alive(self) -> bool:
        return (
            self.node.found.get(self.name) is self.container
            and self.container.state is ContainerState.RUNNING
            and self.container.starts_count == self.boot
        )

    async def live(self) -> None:
        while self.is_alive:
            try:
                vi = await ControlVi.call(self.place.address)
            except OSError:
                await asyncio.sleep(BEAT_S)
                continue
            token = self.container.wish.environment["PACKETCLOUD_TOKEN"]
            vi.say(hello_of(self.name, token, is_launched=self.is_launched))
            vi.on_message = lambda message, vi=vi: self.hear(vi, message)  # type: ignore[misc]
            while self.is_alive and not vi.ended.is_set():
                if self.is_launched and not self.is_mute:
                    word = "attached" if self.is_listed else "waiting"
                    vi.say({"event": "status", "status": {"attachment": word}})
                await asyncio.sleep(BEAT_S)
            vi.close()

    @property
    def is_listed(self) -> bool:
        return self.instance in self.place.router.vis(self.place.sid(self.service))

    def hear(self, vi: ControlVi, message: dict[str, Any]) -> None:
        if not self.is_alive:
            return
        match message:
            case {"do": "launch", "spec": {"name": str(name), "instance": int(instance)}}:
                assert len(bytes.fromhex(message["key"])) == 32
                self.service, self.instance = name, instance
                self.is_launched = True
                self.limits_at_launch = self.container.limits
                self.launches_count += 1
                vi.say({"event": "ready"})
            case {"do": "export"}:
                if self.refuses["export"]:
                    self.refuses["export"] -= 1
                    vi.say({"event": "failed", "what": "export", "text": "not now"})
                else:
                    self.place.spawn(vi.send_state(str(self.state).encode()))
            case {"do": "imported"}:
                if self.refuses["import"]:
                    self.refuses["import"] -= 1
                    vi.say({"event": "failed", "what": "import", "text": "cannot read it"})
                else:
                    self.state = int(vi.states[-1])
                    vi.say({"event": "imported"})
            case {"do": "stop"}:
                self.container.state = ContainerState.STOPPED
            case _:
                raise AssertionError(f"a VI is told {message}")


class Place:
    """The cloudlet; `start` begins a life of the controller, `kill` ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, state in (("counts", "export"), ("plain", "none")):
            (folder / name).mkdir()
            (folder / name / "manifest.toml").write_text(MANIFEST.format(name=name, state=state))
            create_identity_file(folder / f"{name}.key")
        (folder / "c1.toml").write_text(CONFIG)
        self.config = CloudletConfig.load(folder / "c1.toml")
        self.router = CloudletRouter()
        self.images = {one.name: ImageFiles(IMAGE, "probe", ()) for one in self.config.services}
        self.nodes = {
            name: FakeNode(
                name, NodeSite("default", "pcdata0", "pccontrol0", io_per_s=1000), cores_count=16
            )
            for name in ("n1", "n2")
        }
        for node in self.nodes.values():
            node.on_start = lambda container, node=node: self._started(node, container)  # type: ignore[misc]
        self.address = ("127.0.0.1", 1)
        self.agents: list[Agent] = []
        self.processed: Counter[tuple[str, int]] = Counter()
        """Chunks by service and slot."""
        self.lost_states: set[tuple[str, int]] = set()
        """Slots whose VI was made to crash with its state."""
        self.wrong: list[str] = []
        self.ends: list[str] = []
        """Why controllers ended by themselves."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._store: Store | None = None
        self._random = random.Random(1)

    def declare(self, text: str) -> None:
        """Take another config file; for the next start."""
        (self.folder / "c1.toml").write_text(text)
        self.config = CloudletConfig.load(self.folder / "c1.toml")

    def sid(self, service: str) -> str:
        sids = {one.name: one.identity.sid.hex for one in self.config.services}
        return sids.get(service, "0" * 40)

    async def start(
        self, make_store: Callable[[Path], Store] = Store, *, name: str = "c1", epoch: int = 0
    ) -> None:
        adapters: dict[str, NodeAdapter] = dict(self.nodes)
        self._store = make_store(self.config.state_folder)
        self.launches = TestLaunches(self.config, self.images)
        self.controller = Controller(
            dataclasses.replace(
                self.config.settings(tuple(self.nodes), self.images), boot_limit_s=5.0
            ),
            self._store,
            adapters,
            {node.name: node.site for node in self.nodes.values()},
            self.router.client(name),
            self.launches,
            os.urandom,
            POLICIES["least-loaded"],
            self.ends.append,
            epoch,
        )
        self.controller.links.callers = Callers(256, 10_000)  # all VIs have one address here
        self.address = await self.controller.links.bind("127.0.0.1", 0)
        await self.controller.start()

    async def kill(self) -> None:
        """End the controller; everything that it had not saved is gone."""
        await self.controller.close()
        assert self._store is not None
        self._store.close()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    def spawn(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _started(self, node: FakeNode, container: FakeContainer) -> None:
        agent = Agent(self, node, container, container.starts_count)
        self.agents = [one for one in self.agents if one.is_alive]
        self.agents.append(agent)
        self.spawn(agent.live())

    async def give_chunks(self) -> None:
        """Give each VI that serves a chunk, for ever; look whether one slot has one bearer."""
        while True:
            for agent in self.agents:
                vi = self.router.vis(self.sid(agent.service)).get(agent.instance)
                if agent.is_alive and agent.is_launched and vi is not None and vi.state.serves:
                    agent.state += 1
                    self.processed[agent.service, vi.slot] += 1
            for one in self.config.services:
                vis = self.router.vis(one.identity.sid.hex).values()
                slots = Counter(vi.slot for vi in vis if vi.state.serves)
                if slots and max(slots.values()) > 1:
                    self.wrong.append(f"two serve in one slot of {one.name}")
            await asyncio.sleep(0.005)

    def crash(self, agent: Agent) -> None:
        """A container ends by itself, and with it what its service knew."""
        vi = self.router.vis(self.sid(agent.service))[agent.instance]
        self.lost_states.add((agent.service, vi.slot))
        agent.node.crash(agent.name)

    def agent(self, vi: Vi) -> Agent:
        """Return what runs in a VI's container now."""
        name = self.launches.container_name(vi.number)
        return next(one for one in self.agents if one.name == name and one.is_alive)

    def vis(self, service: str = "counts") -> list[Vi]:
        """Return the VIs of a service, without those that wait."""
        vis = self.controller.core.saved.vis.values()
        return [vi for vi in vis if vi.service == service and vi.role is not Role.STANDBY]

    def standbys(self, service: str = "counts") -> list[Vi]:
        vis = self.controller.core.saved.vis.values()
        return [vi for vi in vis if vi.service == service and vi.role is Role.STANDBY]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it is true; says what there is when it does not become so."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            vis = "\n".join(map(str, self.controller.core.saved.vis.values()))
            text = f"{self.wrong} {self.ends} {self.unsettled()}\n{vis}\n{self.router.table}"
            raise AssertionError(text) from None

    async def settle(self) -> None:
        """Wait until there is nothing left to do, and see that everything is right."""
        await self.until(lambda: not self.unsettled())
        assert self.wrong == []
        for agent in self.agents:
            vi = self.router.vis(self.sid(agent.service)).get(agent.instance)
            if agent.service != "counts" or vi is None or not agent.is_alive:
                continue
            key = (agent.service, vi.slot)
            if key not in self.lost_states:
                assert agent.state == self.processed[key], f"{agent.name} in slot {vi.slot}"

    def unsettled(self) -> list[str]:
        """Return what is not yet as it should be."""
        core = self.controller.core
        problems = []
        if core.saved.migrations or core.saved.operations:
            problems.append(f"{core.saved.migrations} {core.saved.operations}")
        for service, wish in core.settings.services.items():
            vis = self.vis(service)
            if len(vis) != core.saved.counts.get(service, wish.replicas_min):
                problems.append(f"{service}: {len(vis)} VIs")
            for vi in vis:
                if vi.state is not ViState.RUNNING or not vi.is_attached:
                    problems.append(f"VI {vi.number}: {vi.state}")
            waiting = [vi for vi in self.standbys(service) if vi.is_ready_to_launch]
            if not len(waiting) == len(self.standbys(service)) == wish.standbys:
                problems.append(f"{service}: {len(waiting)} wait")
            at_router = self.router.vis(wish.sid)
            serving = {one.instance: one.slot for one in at_router.values() if one.state.serves}
            if serving != {vi.instance: vi.slot for vi in vis if vi.role is Role.OWNER}:
                problems.append(f"{service}: at the router {at_router}")
            if any(one.state is AtRouter.HELD for one in at_router.values()):
                problems.append(f"{service}: held at the router")
        wanted = {
            (vi.node, self.launches.container_name(vi.number)) for vi in core.saved.vis.values()
        }
        found = {
            (node.name, name) for node in self.nodes.values() if node.is_up for name in node.found
        }
        if wanted != found:
            problems.append(f"containers {found}, wanted {wanted}")
        problems += [
            f"VI {vi.number}: its limits" for vi in core.saved.vis.values() if self._is_misfit(vi)
        ]
        return problems

    def _is_misfit(self, vi: Vi) -> bool:
        """Tell whether a container has other limits than those of its type, or of a standby."""
        container = self.nodes[vi.node].found.get(self.launches.container_name(vi.number))
        if container is None or vi.state not in (ViState.RUNNING, ViState.WAITING):
            return False
        limits = self.launches.limits(vi.vi_type)
        if vi.role is Role.STANDBY:
            limits = dataclasses.replace(limits, vcpu=0.1, memory_mib=128)
        return container.limits != limits

    async def wish(self, make: Callable[[int], saw.Wish]) -> tuple[bool, str]:
        """Ask for something and wait for its end; returns whether it was done, and why not."""
        number = self.controller.wish(make)
        result = await self.controller.ended(number, LIMIT_S)
        assert result is not None, f"no end: {self.unsettled()}"
        return result.is_done, result.text

    async def close(self) -> None:
        await self.kill()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def placed(folder: Path) -> AsyncIterator[Place]:
    """A cloudlet with its chunks; its controller has not begun."""
    place = Place(folder)
    place.spawn(place.give_chunks())
    try:
        yield place
    finally:
        await place.close()


def run(folder: Path, body: Callable[[Place], Awaitable[None]]) -> None:
    """Run a test's body with a cloudlet that has its VIs."""

    async def whole() -> None:
        async with placed(folder) as place:
            await place.start()
            await place.settle()
            await body(place)

    asyncio.run(whole())
