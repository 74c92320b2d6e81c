"""A world for the core of the cloudlet controller: nodes, VIs and a router on made-up time.

Every command takes a random while, may get lost or be carried out without an answer. The controller
may crash at any moment: what it had saved is kept, what it had begun may or may not happen. The
world notes everything that must never happen, without knowing how the core decides.
"""

from __future__ import annotations

import copy
import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.core import CloudletCore
from packetcloud.cloudlet.core.events import Outcome
from packetcloud.cloudlet.core.instances import Work
from packetcloud.cloudlet.core.rows import from_rows, to_rows
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import CloudletSettings, Resources, ServiceWish

GIB = 1 << 30
SMALL = Resources(1.0, GIB // 4, GIB)
LARGE = Resources(2.0, GIB, GIB)
NODE = Resources(8.0, 8 * GIB, 100 * GIB)
SID = {"alpha": "a" * 40, "beta": "b" * 40}
OBSERVE_S = 2.0
ASK_ROUTER_S = 1.0
BEAT_S = 1.0


def settings(**changes: object) -> CloudletSettings:
    """Return settings with a stateful service `alpha` (2 VIs) and a third party's `beta`."""
    values: dict[str, object] = {
        "name": "test",
        "nodes": ("n1", "n2"),
        "vi_types": {"small": SMALL, "large": LARGE},
        "services": {
            "alpha": ServiceWish("alpha", SID["alpha"], "small", 2, 4, has_state=True),
            "beta": ServiceWish("beta", SID["beta"], "small", 1, 3, owner="tenant"),
        },
        "isp_share": 0.25,
    }
    return CloudletSettings(**(values | changes))  # type: ignore[arg-type]


@dataclass
class Container:
    """A container, and the agent and service in it."""

    number: int
    instance: int
    service: str
    vi_type: str
    is_running: bool = False
    is_launched: bool = False
    link: int = 0
    """The life of the controller to which it has a link; 0: none."""
    state: int = 0
    """Tasks that the service remembers."""
    violations: tuple[str, ...] = ()
    boots: int = 0


@dataclass
class Faults:
    """How often things go wrong, as shares."""

    lost: float = 0.0
    unanswered: float = 0.0
    crash: float = 0.0


@dataclass
class World:
    """Everything outside the core."""

    seed: int
    settings: CloudletSettings = field(default_factory=settings)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 0.0
        self.nodes: dict[str, dict[int, Container]] = {name: {} for name in self.settings.nodes}
        self.silent: set[str] = set()
        self.router_epoch = self.router_version = 0
        self.router_boot = "boot-1"
        self.table: dict[str, dict[str, object]] = {}
        self.wrong: list[str] = []
        self.processed: dict[tuple[str, int], int] = {}
        """Tasks by (service, slot)."""
        self.forgotten: set[tuple[str, int]] = set()
        """Slots whose state was lost with a VI that crashed."""
        self.exported: dict[int, int] = {}
        self.ended: dict[int, tuple[bool, str]] = {}
        self.notes: list[str] = []
        self.crashes = 0
        self.refused_starts_count = 0
        """Starts that nodes refuse from now on."""
        self.life = 0
        self.is_up = False
        self.saved = Saved()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._operations = 0
        self.begin_life()
        self.later(0.3, self.tasks)

    # The controller

    def begin_life(self) -> None:
        """Start the controller from what was saved."""
        self.life += 1
        self.is_up = True
        self.exported.clear()
        saved = _kept(self.saved)
        core = CloudletCore(self.settings, saved, self.random.randbytes)
        self.core = core
        life = self.life
        self.carry_out(core.start(self.now), life)
        for name in self.nodes:
            self.later(0.01, lambda name=name: self.observe(name, life))
        self.later(0.01, lambda: self.ask_router(life))
        for containers in self.nodes.values():
            for container in containers.values():
                container.link = 0
                if container.is_running:
                    self.later(0.2, lambda one=container: self.call(one))

    def crash(self) -> None:
        """Kill the controller; start it again a little later."""
        if not self.is_up:
            return
        self.is_up = False
        self.crashes += 1
        self.life += 1
        self.later(self.random.uniform(0.05, 3.0), self.begin_life)

    def tell(self, event: saw.Event, life: int) -> None:
        """Give the core an event, if it is the one for whom it is meant."""
        if life != self.life or not self.is_up:
            return
        self.carry_out(self.core.handle(event, self.now), life)

    def wish(self, make: Callable[[int], saw.Event]) -> int:
        """Ask for something; returns the operation's number."""
        self._operations += 1
        self.tell(make(self._operations), self.life)
        return self._operations

    def carry_out(self, commands: list[do.Command], life: int) -> None:
        """Save, then begin each command; the controller may crash in between."""
        self.saved = self.core.saved
        kept = _kept(self.saved)
        for command in commands:
            if self.random.random() < self.faults.crash:
                self.saved = kept
                self.crash()
                return
            self.begin(command, life)
        self.saved = kept
        self.check()

    def begin(self, command: do.Command, life: int) -> None:
        match command:
            case do.DoWork():
                self.later(self.random.uniform(0.01, 0.5), lambda: self.work(command, life))
            case do.RemoveStranger(node, number):
                self.later(0.1, lambda: self.nodes[node].pop(number, None))
            case do.SendLaunch(number):
                self.later(0.2, lambda: self.launch(number, life))
            case do.SendStop(number):
                self.later(0.1, lambda: self.stop(number))
            case do.ExportState(number):
                self.later(0.05, lambda: self.export(number, life))
            case do.ImportState(source, number):
                self.later(0.05, lambda: self.import_(source, number, life))
            case do.DropState(source):
                self.exported.pop(source, None)
            case do.AwaitIdle(number):
                self.later(0.05, lambda: self.tell(saw.ViIdle(number, True), life))
            case do.PushTable():
                self.later(self.random.uniform(0.01, 0.2), lambda: self.push(command, life))
            case do.OperationEnded(number, is_done, text):
                self.ended[number] = (is_done, text)
            case do.Note(text):
                self.notes.append(f"{self.now:.2f} {text}")
            case do.StepDown(text):
                self.wrong.append(f"stepped down: {text}")

    # Nodes and VIs

    def container(self, number: int) -> Container | None:
        for containers in self.nodes.values():
            if number in containers:
                return containers[number]
        return None

    def work(self, command: do.DoWork, life: int) -> None:
        if command.node in self.silent or self.random.random() < self.faults.lost:
            text = f"node {command.node} does not answer"
            self.later(0.5, lambda: self.done(command, Outcome.UNREACHABLE, life, text))
            return
        containers = self.nodes[command.node]
        container = containers.get(command.number)
        outcome = Outcome.DONE
        if command.work is Work.CREATE:
            if container is None and life == self.life:
                vi = self.core.saved.vis[command.number]
                containers[command.number] = Container(
                    vi.number, vi.instance, vi.service, command.vi_type
                )
        elif container is None:
            outcome = Outcome.MISSING
        elif command.work is Work.START and self.refused_starts_count:
            self.refused_starts_count -= 1
            self.done(command, Outcome.REFUSED, life, "busy")
            return
        else:
            self.change(container, command)
            if command.work is Work.DELETE:
                del containers[command.number]
        if self.random.random() < self.faults.unanswered:
            outcome = Outcome.UNREACHABLE
        self.done(command, outcome, life)

    def change(self, container: Container, command: do.DoWork) -> None:
        match command.work:
            case Work.START if not container.is_running:
                container.is_running, container.is_launched = True, False
                container.state = 0
                container.boots += 1
                boot = container.boots
                self.later(0.3, lambda: container.boots == boot and self.call(container))
            case Work.STOP | Work.KILL | Work.DELETE:
                self.end(container)
            case Work.RESIZE:
                container.vi_type = command.vi_type

    def done(self, command: do.DoWork, outcome: Outcome, life: int, text: str = "") -> None:
        self.tell(saw.WorkDone(command.number, command.work, outcome, text), life)

    def end(self, container: Container) -> None:
        """The container stops; what its service remembered is gone."""
        self.forget(container)
        container.is_running = container.is_launched = False
        container.link = 0

    def silence(self, name: str) -> None:
        """A node answers no more; the state of its VIs may be lost with it."""
        self.silent.add(name)
        for container in self.nodes[name].values():
            self.forget(container, and_what_comes=True)

    def forget(self, container: Container, *, and_what_comes: bool = False) -> None:
        """What the service in a container remembers may be lost: that of an owner, also a held one.

        A twin that remembers nothing yet loses nothing.
        """
        for vi in self.listed(container.service):
            is_it = vi["instance"] == container.instance
            if is_it and (container.state or and_what_comes):
                self.forgotten.add((container.service, int(vi["slot"])))  # type: ignore[call-overload]

    def call(self, container: Container) -> None:
        if container.is_running and container.link != self.life:
            container.link = self.life
            self.tell(saw.LinkUp(container.number, container.is_launched), self.life)
            self.beat(container, self.life, container.boots)

    def beat(self, container: Container, life: int, boot: int) -> None:
        if life != self.life or not container.is_running or container.boots != boot:
            return
        if container.is_launched:
            status = {"attachment": "attached" if self.is_listed(container) else "waiting"}
            self.tell(saw.ViStatus(container.number, status), life)
        self.later(BEAT_S, lambda: self.beat(container, life, boot))

    def launch(self, number: int, life: int) -> None:
        container = self.container(number)
        if container is not None and container.is_running and life == self.life:
            container.is_launched = True
            self.tell(saw.ViReady(number), life)

    def stop(self, number: int) -> None:
        container = self.container(number)
        if container is not None and container.is_running:
            self.end(container)

    def export(self, number: int, life: int) -> None:
        container = self.container(number)
        if container is None or not container.is_launched:
            self.tell(saw.StateExported(number, False, "it is gone"), life)
        elif life == self.life:
            self.exported[number] = container.state
            self.tell(saw.StateExported(number, True), life)

    def import_(self, source: int, number: int, life: int) -> None:
        container = self.container(number)
        if life != self.life or source not in self.exported:
            return
        if container is None or not container.is_launched:
            self.tell(saw.StateImported(number, False, "it is gone"), life)
        else:
            container.state = self.exported[source]
            self.tell(saw.StateImported(number, True), life)

    def observe(self, name: str, life: int) -> None:
        if life != self.life:
            return
        if name in self.silent:
            self.tell(saw.NodeSilent(name, "no answer"), life)
        else:
            containers = tuple(
                saw.ContainerSeen(one.number, one.instance, one.is_running, one.violations)
                for one in self.nodes[name].values()
            )
            asked_at = self.now
            event = saw.NodeSeen(name, asked_at, NODE, NODE, containers)
            self.later(self.random.uniform(0.0, 0.3), lambda: self.tell(event, life))
        self.later(OBSERVE_S, lambda: self.observe(name, life))

    # The router

    def push(self, command: do.PushTable, life: int) -> None:
        if self.random.random() < self.faults.lost:
            self.tell(saw.TableUnanswered(command.version, "no answer"), life)
            return
        if command.epoch < self.router_epoch:
            answer = saw.TableAnswered(command.version, False, {}, self.router_epoch)
            self.tell(answer, life)
            return
        base = command.base_version
        is_fitting = base is None or (self.router_epoch, self.router_version) == (
            command.epoch,
            base,
        )
        if is_fitting:
            if base is None:
                self.table = {}
            for sid in command.remove:
                self.table.pop(sid, None)
            self.table.update({sid: dict(entry) for sid, entry in command.put.items()})
            self.router_epoch, self.router_version = command.epoch, command.version
        if self.random.random() < self.faults.unanswered:
            self.tell(saw.TableUnanswered(command.version, "no answer"), life)
        else:
            self.tell(saw.TableAnswered(command.version, is_fitting, {}), life)

    def listed(self, service: str) -> list[dict[str, object]]:
        return list(self.table.get(SID[service], {}).get("vis", ()))  # type: ignore[call-overload]

    def is_listed(self, container: Container) -> bool:
        return any(vi["instance"] == container.instance for vi in self.listed(container.service))

    def serving(self, container: Container) -> int | None:
        """Return the slot in which a VI gets tasks now."""
        for vi in self.listed(container.service):
            if vi["instance"] == container.instance and vi["state"] in ("serving", "restricted"):
                return int(vi["slot"])  # type: ignore[call-overload]
        return None

    def tasks(self) -> None:
        """Give each VI that serves a task."""
        for containers in self.nodes.values():
            for container in containers.values():
                slot = self.serving(container) if container.is_launched else None
                if slot is not None:
                    key = (container.service, slot)
                    self.processed[key] = self.processed.get(key, 0) + 1
                    container.state += 1
        self.later(0.1, self.tasks)

    def ask_router(self, life: int) -> None:
        if life != self.life:
            return
        services = {
            sid: saw.ServiceAtRouter(
                0,
                0.0,
                None,
                {int(vi["instance"]): saw.ViAtRouter(True, 0, 0) for vi in entry["vis"]},  # type: ignore[attr-defined]
            )
            for sid, entry in self.table.items()
        }
        event = saw.RouterSeen(self.router_boot, self.router_epoch, self.router_version, services)
        self.tell(event, life)
        self.later(ASK_ROUTER_S, lambda: self.ask_router(life))

    def restart_router(self) -> None:
        """The router starts again; it kept its table."""
        self.router_boot = f"boot-{self.random.random()}"

    # Time

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._order, lambda: (call(), None)[1]))

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        end = self.now + duration_s
        for _ in range(1_000_000):
            due = self.core.next_timeout() if self.is_up else math.inf
            next_at = self._queue[0][0] if self._queue else math.inf
            at = min(max(due, self.now), next_at)
            if at > end:
                break
            self.now = at
            if next_at <= at:
                heapq.heappop(self._queue)[2]()
            else:
                self.now += 0.001
                self.tell(saw.Tick(), self.life)
        else:
            self.wrong.append("a million events without an end")
        self.now = end

    def check(self) -> None:
        """Note what must never be so."""
        for service in SID:
            slots = [vi["slot"] for vi in self.listed(service) if vi["state"] == "serving"]
            if len(slots) != len(set(slots)):
                self.wrong.append(f"{self.now:.2f}: two serve in one slot of {service}")

    def end_wrongs(self) -> list[str]:
        """Return what is not as it should be after a time without faults."""
        wrong = list(self.wrong)
        vis = {vi.number: vi for vi in self.core.saved.vis.values()}
        for name, containers in self.nodes.items():
            for number in containers:
                if number not in vis or vis[number].node != name:
                    wrong.append(f"orphan: container {number} on {name}")
        for service, wished in self.settings.services.items():
            count = self.core.saved.counts[service]
            running = [
                container
                for containers in self.nodes.values()
                for container in containers.values()
                if container.service == service and self.serving(container) is not None
            ]
            if len(running) != count or not all(one.is_launched for one in running):
                wrong.append(f"{service}: {len(running)} serve, {count} should")
            for container in running if wished.has_state else ():
                slot = self.serving(container)
                assert slot is not None
                known = self.processed.get((service, slot), 0)
                if (service, slot) not in self.forgotten and container.state != known:
                    wrong.append(
                        f"{service} slot {slot}: it knows {container.state} of {known} tasks"
                    )
        if self.core.saved.migrations:
            wrong.append(f"migrations without an end: {self.core.saved.migrations}")
        return wrong


def _kept(saved: Saved) -> Saved:
    """Return what a database gives back: the fields that are kept, nothing else."""
    return from_rows(copy.deepcopy(to_rows(saved)))
