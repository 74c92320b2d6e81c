"""A world for the core of the cloudlet controller: nodes, VIs and a router on made-up time.

Every command takes a random while, may get lost or be carried out without an answer. The controller
may crash at any moment: what it had saved is kept, what it had begun may or may not happen. The
world notes everything that must never happen, without knowing how the core decides.
"""

from __future__ import annotations

import copy
import dataclasses
import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.allotment import WAITING_SIZE, standing_of
from packetcloud.cloudlet.core.core import CloudletCore
from packetcloud.cloudlet.core.events import Outcome
from packetcloud.cloudlet.core.instances import Evidence, Role, Work
from packetcloud.cloudlet.core.rows import from_rows, to_domain_rows, to_rows
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import (
    NOTHING,
    Allotment,
    CloudletSettings,
    Resources,
    ServiceWish,
)

GIB = 1 << 30
SMALL = Resources(1.0, GIB // 4, GIB)
LARGE = Resources(2.0, GIB, GIB)
READS = {"small": 50, "large": 100}
NODE = Resources(8.0, 8 * GIB, 100 * GIB)
SID = {"alpha": "a" * 40, "beta": "b" * 40}
OBSERVE_S = 2.0
CHUNK_BYTES = 1000
ASK_ROUTER_S = 1.0
BEAT_S = 1.0
EPOCH_S = 1e9
"""When the world began, in seconds since 1970."""


def settings(**changes: object) -> CloudletSettings:
    """Return settings with a stateful service `alpha` (2 VIs) and a third party's `beta`."""
    values: dict[str, object] = {
        "name": "test",
        "nodes": ("n1", "n2"),
        "vi_types": {"small": SMALL, "large": LARGE},
        "reads_mib_s": READS,
        "services": {
            "alpha": ServiceWish("alpha", SID["alpha"], "small", 2, 4, has_state=True),
            "beta": ServiceWish("beta", SID["beta"], "small", 1, 3, owner="tenant"),
        },
        "isp_share": 0.25,
    }
    return CloudletSettings(**(values | changes))  # type: ignore[arg-type]


def with_standbys(**changes: object) -> CloudletSettings:
    """Return the same settings with a standby of each service."""
    plain = settings(**changes)
    services = {
        name: dataclasses.replace(one, standbys=1, image="image-1")
        for name, one in plain.services.items()
    }
    return dataclasses.replace(plain, services=services)


@dataclass
class Container:
    """A container, and the agent and service in it."""

    number: int
    instance: int
    service: str
    vi_type: str
    limits: Allotment
    is_fixed: bool = False
    """Its node refuses to change its limits."""
    is_running: bool = False
    is_launched: bool = False
    link: int = 0
    """The life of the controller to which it has a link; 0: none."""
    state: int = 0
    """Tasks that the service remembers."""
    in_hand: int = 0
    """Tasks that it has and has not answered."""
    is_attached: bool = False
    """Its session with the router is there; while it is not, it may not know that yet."""
    violations: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    is_stubborn: bool = False
    """It cannot be put right while it runs."""
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
    capacity: Resources = NODE
    """Of each node."""
    used_by_others: Resources = NOTHING
    """The same, by programs that are no VIs."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 0.0
        self.nodes: dict[str, dict[int, Container]] = {name: {} for name in self.settings.nodes}
        self.silent: set[str] = set()
        """Nodes that do not answer."""
        self.cut_off: set[str] = set()
        """Nodes whose VIs the controller does not hear, nor they the controller."""
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
        self.violations: dict[int, int] = {}
        self.chunks: dict[int, int] = {}
        """Given to each instance since the router began; each of `CHUNK_BYTES`."""
        """What the router counted, by instance."""
        self.late: set[str] = set()
        """Services whose chunks wait too long for a VI."""
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

    def new_image(self, service: str) -> None:
        """The operator built another image for a service."""
        services = dict(self.settings.services)
        image = f"image-{self.random.random()}"
        services[service] = dataclasses.replace(services[service], image=image)
        self.settings = dataclasses.replace(self.settings, services=services)
        self.tell(saw.Configured(self.settings), self.life)

    def say_to_domain(self, command: do.ToDomain) -> None:
        """Carry out what is to be said to a domain controller; here there is none."""

    # The controller

    def begin_life(self) -> None:
        """Start the controller from what was saved."""
        self.life += 1
        self.is_up = True
        self.exported.clear()
        saved = _kept(self.saved)
        core = CloudletCore(self.settings, saved, self.random.randbytes, lambda: EPOCH_S + self.now)
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
            case do.AwaitIdle(number, limit_s):
                self.later(0.05, lambda: self.await_idle(number, self.now + limit_s, life))
            case do.PushTable():
                self.later(self.random.uniform(0.01, 0.2), lambda: self.push(command, life))
            case do.OperationEnded(number, is_done, text):
                self.ended[number] = (is_done, text)
            case do.Note(text):
                self.notes.append(f"{self.now:.2f} {text}")
            case do.StepDown(text):
                self.wrong.append(f"stepped down: {text}")
            case (
                do.SayAnswer() | do.SayUsage() | do.SayComplete() | do.SayRules() | do.DropDomain()
            ):
                self.say_to_domain(command)

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
                    vi.number, vi.instance, vi.service, command.vi_type, command.limits
                )
        elif container is None:
            outcome = Outcome.MISSING
        elif command.work is Work.START and self.refused_starts_count:
            self.refused_starts_count -= 1
            self.done(command, Outcome.REFUSED, life, "busy")
            return
        elif command.work is Work.RESTORE and container.is_stubborn and container.is_running:
            self.done(command, Outcome.REFUSED, life, "in use")
        elif command.work is Work.RESIZE and container.is_fixed:
            self.done(command, Outcome.REFUSED, life, "fixed")
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
                container.state = container.in_hand = 0
                container.boots += 1
                boot = container.boots
                self.later(0.3, lambda: container.boots == boot and self.call(container))
            case Work.STOP | Work.KILL | Work.DELETE:
                self.end(container)
            case Work.RESIZE:
                container.vi_type, container.limits = command.vi_type, command.limits
            case Work.RESTORE:
                container.vi_type, container.limits = command.vi_type, command.limits
                container.violations = container.differences = ()

    def done(self, command: do.DoWork, outcome: Outcome, life: int, text: str = "") -> None:
        self.tell(saw.WorkDone(command.number, command.work, outcome, text), life)

    def end(self, container: Container) -> None:
        """The container stops; what its service remembered is gone."""
        self.forget(container)
        container.is_running = container.is_launched = container.is_attached = False
        container.link = container.in_hand = 0

    def silence(self, name: str) -> None:
        """A node and its VIs are heard of no more; the state of its VIs may be lost with it."""
        self.silent.add(name)
        self.cut_off.add(name)
        for container in self.nodes[name].values():
            self.forget(container, and_what_comes=True)

    def answer_again(self, *names: str) -> None:
        """These nodes are heard again, and their VIs."""
        self.silent.difference_update(names)
        self.cut_off.difference_update(names)

    def is_cut_off(self, container: Container) -> bool:
        return any(container.number in self.nodes[name] for name in self.cut_off)

    def forget(self, container: Container, *, and_what_comes: bool = False) -> None:
        """What the service in a container remembers may be lost: that of an owner, also a held one.

        A twin that remembers nothing yet loses nothing.
        """
        for vi in self.listed(container.service):
            is_it = vi["instance"] == container.instance
            serves = self.serving(container) is not None
            if is_it and (container.state or serves or and_what_comes):
                self.forgotten.add((container.service, int(vi["slot"])))  # type: ignore[call-overload]

    def call(self, container: Container) -> None:
        if self.is_cut_off(container):
            self.later(0.2, lambda: self.call(container))
        elif container.is_running and container.link != self.life:
            container.link = self.life
            self.tell(saw.LinkUp(container.number, container.is_launched), self.life)
            self.beat(container, self.life, container.boots)

    def beat(self, container: Container, life: int, boot: int) -> None:
        if life != self.life or not container.is_running or container.boots != boot:
            return
        if container.is_launched and not self.is_cut_off(container):
            is_attached = container.is_attached or container.in_hand > 0
            status = {"attachment": "attached" if is_attached else "waiting"}
            self.tell(saw.ViStatus(container.number, status), life)
        self.later(BEAT_S, lambda: self.beat(container, life, boot))

    def launch(self, number: int, life: int) -> None:
        container = self.container(number)
        if container is None or self.is_cut_off(container):
            return
        if container.is_running and life == self.life:
            if container.is_launched:
                self.wrong.append(f"VI {number} was launched twice")
            container.is_launched = True
            self.tell(saw.ViReady(number), life)
            self.attach(container, container.boots)

    def stop(self, number: int) -> None:
        container = self.container(number)
        if container is not None and container.is_running and not self.is_cut_off(container):
            self.end(container)

    def export(self, number: int, life: int) -> None:
        container = self.container(number)
        if container is None or not container.is_launched or self.is_cut_off(container):
            self.tell(saw.StateExported(number, False, "it is gone"), life)
        elif life == self.life:
            self.work_off(container)
            self.exported[number] = container.state
            self.tell(saw.StateExported(number, True), life)

    def import_(self, source: int, number: int, life: int) -> None:
        container = self.container(number)
        if life != self.life or source not in self.exported:
            return
        if container is None or not container.is_launched or self.is_cut_off(container):
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
                saw.ContainerSeen(
                    one.number,
                    one.instance,
                    one.is_running,
                    one.violations,
                    self.differences_of(one),
                )
                for one in self.nodes[name].values()
            )
            asked_at = self.now
            free = self.capacity - self.used_by_others
            event = saw.NodeSeen(name, asked_at, self.capacity, free, containers)
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
            self.send_away()
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
        serves = self.state_of(container) in ("serving", "restricted")
        return self.slot_of(container) if serves else None

    def slot_of(self, container: Container) -> int | None:
        for vi in self.listed(container.service):
            if vi["instance"] == container.instance:
                return int(vi["slot"])  # type: ignore[call-overload]
        return None

    def state_of(self, container: Container) -> str | None:
        for vi in self.listed(container.service):
            if vi["instance"] == container.instance:
                return str(vi["state"])
        return None

    def tasks(self) -> None:
        """Let each attached VI answer what it has, and give each that serves another task."""
        for containers in self.nodes.values():
            for container in containers.values():
                if not container.is_attached:
                    continue
                self.work_off(container)
                if self.serving(container) is not None:
                    container.in_hand = 1
        self.later(0.1, self.tasks)

    def work_off(self, container: Container) -> None:
        """A service does what it has; without a session the router hears nothing of it."""
        container.state += container.in_hand
        slot = self.slot_of(container)
        if container.is_attached and slot is not None:
            key = (container.service, slot)
            self.processed[key] = self.processed.get(key, 0) + container.in_hand
        container.in_hand = 0

    def attach(self, container: Container, boot: int) -> None:
        """A VI calls the router until it is taken; what it has of a session before, it gives up."""
        if not container.is_running or container.boots != boot or container.is_attached:
            return
        if self.is_listed(container):
            container.is_attached = True
            container.in_hand = 0
        else:
            self.later(0.2, lambda: self.attach(container, boot))

    def send_away(self) -> None:
        """VIs that the table does not list lose their sessions."""
        for containers in self.nodes.values():
            for container in containers.values():
                if container.is_attached and not self.is_listed(container):
                    self.detach(container)

    def detach(self, container: Container, away_s: float | None = None) -> None:
        """A session ends: the router has its tasks in line again, the VI hears of it later."""
        if container.is_attached:
            container.is_attached = False
            boot = container.boots
            away_s = self.random.uniform(0.3, 2.0) if away_s is None else away_s
            self.later(away_s, lambda: self.attach(container, boot))

    def await_idle(self, number: int, until: float, life: int) -> None:
        container = self.container(number)
        state = None if container is None else self.state_of(container)
        answer = None
        if container is not None and state is not None:
            is_idle = state in ("held", "draining") and not (
                container.is_attached and container.in_hand
            )
            if not is_idle and state == "held" and self.now < until and life == self.life:
                self.later(0.02, lambda: self.await_idle(number, until, life))
                return
            version = self.router_version
            answer = saw.IdleAnswer(
                is_idle, container.is_attached, self.router_boot, self.router_epoch, version
            )
        self.tell(saw.ViIdle(number, answer), life)

    def ask_router(self, life: int) -> None:
        if life != self.life:
            return
        here = {
            container.instance: container
            for containers in self.nodes.values()
            for container in containers.values()
            if container.is_attached
        }
        services = {
            sid: saw.ServiceAtRouter(
                0,
                5.0 if any(SID[name] == sid for name in self.late) else 0.0,
                None,
                {
                    int(vi["instance"]): self.at_router(
                        int(vi["instance"]), here.get(vi["instance"])
                    )
                    for vi in entry["vis"]  # type: ignore[attr-defined]
                },
            )
            for sid, entry in self.table.items()
        }
        event = saw.RouterSeen(self.router_boot, self.router_epoch, self.router_version, services)
        self.tell(event, life)
        self.later(ASK_ROUTER_S, lambda: self.ask_router(life))

    def at_router(self, instance: int, container: Container | None) -> saw.ViAtRouter:
        """Return what the router says of a VI; None: it has no session there."""
        count = self.violations.get(instance, 0)
        evidence = (Evidence("output", "c" * 40, count, "too much"),) if count else ()
        in_hand = container.in_hand if container is not None else 0
        chunks = self.chunks.get(instance, 0)
        return saw.ViAtRouter(
            container is not None,
            in_hand,
            {"output": count},
            evidence,
            chunks,
            chunks * (CHUNK_BYTES - 1),
            chunks,
        )

    def restart_router(self) -> None:
        """The router starts again; it kept its table and its chunks, and lost every session and
        what it had counted."""
        self.router_boot = f"boot-{self.random.random()}"
        self.violations.clear()
        self.chunks.clear()
        for containers in self.nodes.values():
            for container in containers.values():
                self.detach(container)

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

    def waiting(self, service: str) -> list[Container]:
        """Return the containers in which a standby waits."""
        return [
            container
            for containers in self.nodes.values()
            for container in containers.values()
            if container.service == service
            and container.is_running
            and not container.is_launched
            and container.link == self.life
            and not self.is_listed(container)
        ]

    def check(self) -> None:
        """Note what must never be so."""
        for service in SID:
            slots = [vi["slot"] for vi in self.listed(service) if vi["state"] == "serving"]
            if len(slots) != len(set(slots)):
                self.wrong.append(f"{self.now:.2f}: two serve in one slot of {service}")
        for name in self.nodes:
            self.check_room(name)
            borrowed = self.borrowed_cpus(name)
            if borrowed > self.core.inventory.boosted_cpus(name) + 0.001:
                self.wrong.append(f"{self.now:.2f}: nobody knows of {borrowed:g} cpus of {name}")

    def borrowed_cpus(self, node: str) -> float:
        """Return what the containers of a node that run may use beyond what is reserved."""
        vis = self.core.saved.vis
        return sum(
            max(0.0, one.limits.cpus - standing_of(vis[one.number], self.settings).cpus)
            for one in self.nodes[node].values()
            if one.is_running and one.number in vis
        )

    def differences_of(self, container: Container) -> tuple[str, ...]:
        """Return where a container is not what its VI was given."""
        vi = self.core.saved.vis.get(container.number)
        if vi is None or container.limits == vi.allotted:
            return container.differences
        return (*container.differences, f"its limits are {container.limits}")

    def check_room(self, node: str) -> None:
        """Note when VIs have more than a node has, or third parties of the ISP's share.

        Counted are the containers that there are, and those that were decided on; a standby with
        what it waits with, one that goes with nothing.
        """
        vis = self.core.saved.vis
        standbys = {vi.number: vi for vi in vis.values() if vi.role is Role.STANDBY}
        sizes = {
            number: self.settings.vi_types[container.vi_type]
            for number, container in self.nodes[node].items()
            if number not in standbys
        }
        owned = {number: one.service for number, one in self.nodes[node].items()}
        for vi in vis.values():
            if vi.node != node:
                continue
            owned[vi.number] = vi.service
            if vi.number in standbys:
                if not vi.is_draining and not vi.is_leaving:
                    size = self.settings.vi_types[vi.vi_type]
                    sizes[vi.number] = size.least(WAITING_SIZE)
                continue
            wanted = self.settings.vi_types[vi.vi_type]
            coming = self.settings.vi_types[vi.resize_to or vi.vi_type]
            for size in (wanted, coming):
                known = sizes.get(vi.number, size)
                sizes[vi.number] = size if size.cpus > known.cpus else known
        for what, share, numbers in (
            ("all", 1.0, list(sizes)),
            (
                "third parties",
                1 - self.settings.isp_share,
                [number for number in sizes if self.settings.services[owned[number]].owner],
            ),
        ):
            total = Resources()
            for number in numbers:
                total += sizes[number]
            if (lacking := self.capacity.times(share).lacking_for(total)) and total.cpus:
                self.wrong.append(f"{self.now:.2f}: {what} have too much {lacking} of {node}")

    def end_wrongs(self) -> list[str]:
        """Return what is not as it should be after a time without faults."""
        wrong = list(self.wrong)
        vis = {vi.number: vi for vi in self.core.saved.vis.values()}
        for name, containers in self.nodes.items():
            for number in containers:
                if number not in vis or vis[number].node != name:
                    wrong.append(f"orphan: container {number} on {name}")
                elif containers[number].vi_type != vis[number].vi_type:
                    wrong.append(
                        f"container {number} is {containers[number].vi_type}, "
                        f"its VI {vis[number].vi_type}"
                    )
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
            waiting = self.waiting(service)
            if len(waiting) != wished.standbys:
                wrong.append(f"{service}: {len(waiting)} wait, {wished.standbys} should")
        for vi in vis.values():
            found = self.container(vi.number)
            size = self.settings.vi_types[vi.vi_type]
            if vi.role is Role.STANDBY:
                size = size.least(WAITING_SIZE)
                if found is not None and found.is_launched:
                    wrong.append(f"standby {vi.number} was launched")
            own = Allotment(size.cpus, size.memory_bytes, self.settings.reads_mib_s[vi.vi_type])
            if found is not None and not found.limits.is_about(own):
                wrong.append(f"VI {vi.number} has {found.limits}, should have {own}")
        for name in self.nodes:
            if (room := self.core.inventory.room(name)).for_all.is_overdrawn:
                wrong.append(f"{name} has more reserved than it has: {room}")
        if self.core.saved.migrations:
            wrong.append(f"migrations without an end: {self.core.saved.migrations}")
        return wrong


def _kept(saved: Saved) -> Saved:
    """Return what a database gives back: the fields that are kept, nothing else."""
    return from_rows(copy.deepcopy(to_rows(saved) | to_domain_rows(saved)))
