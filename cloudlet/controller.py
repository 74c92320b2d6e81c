"""Shell of the cloudlet controller: what is seen becomes events, commands become calls.

What the core keeps is in the database before any command is carried out. Every call runs as a task
of its own on the loop; nodes, router and VIs may be as slow as they like, the controller is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ParamSpec, Protocol

from packetcloud.cloudlet.alarm import Alarm
from packetcloud.cloudlet.container_checks import ContainerChecks
from packetcloud.cloudlet.containers import (
    ContainerWish,
    NodeAdapter,
    NodeFacts,
    Protection,
)
from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.core import CloudletCore
from packetcloud.cloudlet.core.instances import Vi, Work
from packetcloud.cloudlet.core.placement import Policy
from packetcloud.cloudlet.core.rows import from_rows, to_domain_rows, to_rows
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import Allotment, CloudletSettings, Resources
from packetcloud.cloudlet.egress import EgressPolicy
from packetcloud.cloudlet.egress_counts import EgressCount
from packetcloud.cloudlet.errors import (
    CloudletConfigError,
    CloudletError,
    ContainerMissingError,
    NodeError,
    NodeUnreachableError,
    NoRoomError,
    StoreError,
)
from packetcloud.cloudlet.lanes import RouterLanes
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.links import Caller, ControlServer
from packetcloud.cloudlet.policy import NodeSite
from packetcloud.cloudlet.router_client import RouterClient
from packetcloud.cloudlet.router_rules import RouterRules
from packetcloud.cloudlet.store import Store
from packetcloud.cloudlet.surroundings import Surroundings

OBSERVE_INTERVAL_S = 2.0
"""Each node is asked so often what runs there; one question costs LXD some 20 ms."""
ASK_ROUTER_INTERVAL_S = 1.0
DESCRIBE_INTERVAL_S = 10.0
"""What a node has in all changes seldom."""
MAX_KEPT_RESULTS_COUNT = 256
"""Operations whose end is remembered for who asks later."""
_MIB = 1 << 20
_log = logging.getLogger("packetcloud.cloudlet")
P = ParamSpec("P")


class Launches(Protocol):
    """What the controller must know to make a VI; the daemon reads it from files.

    Each method may raise a `CloudletError`: what the VI needs is no longer declared.
    """

    revision: int
    """Grows whenever `limits` or `wish` may give the same VI something else."""

    def share(self, lanes: str) -> None:
        """Let VIs of this machine that are made now see this folder of the router."""

    def limits(self, vi_type: str) -> Limits: ...

    def wish(self, vi: Vi, limits: Limits) -> ContainerWish:
        """Return the container for a VI."""

    def message(self, vi: Vi) -> dict[str, Any]:
        """Return the launch of its service, with the key."""

    def files(self, vi: Vi) -> dict[str, str]:
        """Return the files of its service as they are now, as a launch has them."""

    async def bring_image(self, vi: Vi, node: NodeAdapter) -> None:
        """See to it that the node has the image of a VI."""

    async def bring_images(self, node: NodeAdapter) -> None:
        """Give a node every image that a VI may be made of; those that it was given are known."""

    def control_address(self, vi: Vi) -> str: ...

    def egress_of(self, vi: Vi) -> EgressPolicy | None:
        """Return what the service of a VI is granted in the IP network; None: nothing."""

    def container_name(self, number: int) -> str: ...

    def number_of(self, container_name: str) -> int | None: ...


class DomainEnd(Protocol):
    """The cloudlet's end of the channel to the domain controller."""

    url: str
    text: str
    """Why it is not open; empty: it is."""
    name: str
    """Of the cloudlet at the domain."""
    dropped_count: int

    def say(self, command: do.ToDomain) -> None:
        """Carry out what is to be said; what cannot be said is repeated later."""


@dataclass(frozen=True, slots=True)
class OperationResult:
    """How something that was asked for came out."""

    is_done: bool
    text: str
    vi: int | None = None
    """Which VI it was about; of a launch and a migration the new one."""


class Controller:
    """One cloudlet's controller on a running asyncio loop.

    Args:
        nodes: by name, as the settings have them.
        sites: by the name of the node.
        stepped_down: called once when the controller ends by itself: another one is in charge, the
            database takes nothing more, or a fault of its own.
        epoch: of the controller before, if the database does not know it: this one's is greater.

    Raises:
        CloudletConfigError: what is kept does not fit to the settings, or to this version, or is
            another cloudlet's.
    """

    def __init__(
        self,
        settings: CloudletSettings,
        store: Store,
        nodes: Mapping[str, NodeAdapter],
        sites: Mapping[str, NodeSite],
        router: RouterClient,
        launches: Launches,
        random_bytes: Callable[[int], bytes],
        policy: Policy,
        stepped_down: Callable[[str], None],
        epoch: int = 0,
    ) -> None:
        self.facts: dict[str, NodeFacts] = {}
        self.network_protections: tuple[Protection, ...] = ()
        """Of the bridges and filters of this machine, as they were found last."""
        self.links = ControlServer(self._find, self.tell)
        self.egress: dict[int, EgressCount] = {}
        """What each VI tried and did in the IP network since this controller began."""
        self.listening: Mapping[int, tuple[int, int]] = {}
        """By port of this machine, the number of the address and the port that it leads to."""
        self.egress_totals: dict[str, EgressCount] = {}
        """The same by service, also of VIs that are gone."""
        self.results: dict[int, OperationResult] = {}
        """By operation; those under way are not in it."""
        self.domain: DomainEnd | None = None
        """The channel to the domain controller; None: this cloudlet has none."""
        self._is_domain_touched = False
        self._store = store
        self._nodes = dict(nodes)
        self.sites = dict(sites)
        self._router = router
        self._launches = launches
        self._stepped_down = stepped_down
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.alarm = Alarm(self._loop, lambda: self.tell(saw.Tick()))
        self._changed = asyncio.Event()
        self._stocking: set[str] = set()
        """Nodes to which images are being brought."""
        self._is_closed = False
        store.check_cloudlet(settings.name)
        rows = store.load()
        try:
            saved = from_rows(rows)
            for key, row in rows.get("result", {}).items():
                self.results[int(key)] = OperationResult(**row)
            self._next_operation: int = rows.get("operations", {}).get("", {}).get("next", 1)
        except (KeyError, ValueError, TypeError) as error:
            raise CloudletConfigError(
                f"{store.path} has rows that this version does not know ({error}); run the version "
                "that wrote it"
            ) from None
        saved.epoch = max(saved.epoch, epoch)
        check_types(settings, saved)
        self.core = CloudletCore(settings, saved, random_bytes, time.time, policy)
        self._rules = RouterRules(router, self.core, self.tell)
        self.surroundings = Surroundings(router)
        self._lanes = RouterLanes(router, launches.share)
        self._checks = ContainerChecks(settings.name, saved.vis, launches, self._wish_now)

    async def start(self) -> None:
        """Go on where the last run ended; the control port must be bound."""
        await self._lanes.ask()  # of what the first VIs are made
        self._do_or_end(lambda: self._carry_out(self.core.start(self._loop.time())))
        for node in self._nodes.values():
            self._spawn(self._watch_node, node)
        self._spawn(self._watch_router)
        self._spawn(self._rules.watch)
        self._spawn(self.surroundings.watch)
        self._spawn(self._lanes.watch)
        await self.links.serve()

    def configure(self, settings: CloudletSettings) -> None:
        """Take other services and VI types.

        Raises:
            CloudletConfigError: a VI that there is has a type that there would not be.
        """
        check_types(settings, self.core.saved)
        self.tell(saw.Configured(settings))

    async def close(self) -> None:
        """End the controller; VIs and router go on. What it was given is its maker's to close."""
        self._is_closed = True
        self.alarm.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.links.close()

    def tell(self, event: saw.Event) -> None:
        """Give the core an event, and do what it says."""
        if not self._is_closed:
            self._do_or_end(lambda: self._handle(event))

    def wish(self, make: Callable[[int], saw.Wish]) -> int:
        """Ask for something; returns the operation's number when it is written down.

        Raises:
            CloudletError: this controller is about to end.
        """
        if self._is_closed:
            raise CloudletError("this controller is about to end; ask the next one")
        number = self._next_operation
        self._next_operation += 1
        self.tell(make(number))
        if self._is_closed:
            raise CloudletError("this controller is about to end; ask the next one")
        return number

    def give_files(self, service: str) -> None:
        """Bring the files of a service, as they are now, to its VIs that run."""
        for vi in list(self.core.saved.vis.values()):
            if vi.service == service and not self._give_files(vi):
                _log.warning(
                    "VI %d keeps the files that it was launched with: its image is older; build it "
                    "again, then: packetcloud vi restart %d",
                    vi.number,
                    vi.number,
                )

    async def ended(self, operation: int, limit_s: float) -> OperationResult | None:
        """Wait for the end of an operation; None: it is still under way after `limit_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while operation in self.core.saved.operations:
                    await self._changed.wait()
        return self.results.get(operation)

    @property
    def change(self) -> asyncio.Event:
        """What is set when something changes; then there is another."""
        return self._changed

    def note_egress(self, vi: Vi, more: EgressCount) -> None:
        """Add what a VI tried and did in the IP network."""
        self.egress[vi.number] = self.egress.get(vi.number, EgressCount()) + more
        self.egress_totals[vi.service] = self.egress_totals.get(vi.service, EgressCount()) + more
        for number in self.egress.keys() - self.core.saved.vis.keys():
            del self.egress[number]

    def is_known(self, operation: int) -> bool:
        """Tell whether there is, or was not long ago, such an operation."""
        return operation in self.results or operation in self.core.saved.operations

    async def logs(self, vi: Vi) -> str:
        """Return the end of a VI's console. Raises: NodeError."""
        return await self._nodes[vi.node].logs(self._launches.container_name(vi.number))

    # Commands

    def _handle(self, event: saw.Event) -> None:
        if isinstance(event, saw.ViReady) or (isinstance(event, saw.LinkUp) and event.is_launched):
            vi = self.core.saved.vis.get(event.number)
            if vi is not None:  # files may have changed since its launch
                self._give_files(vi)
        self._is_domain_touched |= isinstance(event, saw.DomainEvent | saw.RulesEvent)
        commands = self.core.handle(event, self._loop.time())
        if commands or not isinstance(event, saw.ViStatus):
            self._carry_out(commands)
        # Of a status that nothing follows from, nothing is kept either: one VI sends one a second.

    def _do_or_end(self, work: Callable[[], None]) -> None:
        """End the controller at a fault: who goes on from what is not understood loses chunks."""
        try:
            work()
        except StoreError as error:
            self._end(str(error))
        except Exception as error:  # whatever the core raises is a fault of ours
            _log.exception("the controller fails")
            self._end(f"a fault of the controller: {error!r}")

    def _end(self, text: str) -> None:
        """Begin nothing more; VIs and router go on."""
        if self._is_closed:
            return
        self._is_closed = True
        _log.error("%s; the controller ends, VIs and router go on", text)
        self._stepped_down(text)

    def _carry_out(self, commands: list[do.Command]) -> None:
        for command in commands:
            if isinstance(command, do.OperationEnded):
                self._note_end(command)
        self._save()
        for command in commands:
            if not self._is_closed:
                self._do(command)
        if not self._is_closed:
            self.alarm.set(self.core.next_timeout())
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _save(self) -> None:
        rows: dict[str, dict[str, dict[str, Any]]] = dict(to_rows(self.core.saved))
        if self._is_domain_touched:
            rows |= to_domain_rows(self.core.saved)
            self._is_domain_touched = False
        rows["cloudlet"] = {"": {"name": self.core.settings.name}}
        rows["operations"] = {"": {"next": self._next_operation}}
        rows["result"] = {str(number): asdict(result) for number, result in self.results.items()}
        self._store.save(rows)

    def _note_end(self, command: do.OperationEnded) -> None:
        if command.operation == 0:  # nobody asked for it
            return
        self.results[command.operation] = OperationResult(command.is_done, command.text, command.vi)
        while len(self.results) > MAX_KEPT_RESULTS_COUNT:
            del self.results[min(self.results)]

    def _do(self, command: do.Command) -> None:
        match command:
            case do.DoWork():
                self._spawn(self._work, command)
            case do.RemoveStranger(node, number, why):
                self._spawn(self._remove, node, number, why)
            case do.SendLaunch(number):
                self._launch(number)
            case do.SendStop(number):
                self.links.say(number, {"do": "stop"})
            case do.ExportState(number):
                if text := self.links.ask_state(number):
                    self._later(saw.StateExported(number, False, text))
            case do.ImportState(source, number):
                if text := self.links.give_state(source, number):
                    self._later(saw.StateImported(number, False, text))
            case do.DropState(source):
                self.links.drop_state(source)
            case do.AwaitIdle(number, limit_s):
                self._spawn(self._await_idle, number, limit_s)
            case do.PushTable():
                self._spawn(self._push, command)
            case do.Note(text, is_warning):
                _log.log(logging.WARNING if is_warning else logging.INFO, "%s", text)
            case do.StepDown(text):
                self._end(text)
            case do.InstallRules():
                self._spawn(self._rules.install, command)
            case (
                do.SayAnswer() | do.SayUsage() | do.SayComplete() | do.SayRules() | do.DropDomain()
            ):
                if self.domain is not None:
                    self.domain.say(command)
            case do.OperationEnded():
                pass  # noted before the save

    def _launch(self, number: int) -> None:
        vi = self.core.saved.vis.get(number)
        if vi is None:
            return
        try:
            message = self._launches.message(vi)
        except CloudletError as error:
            self._later(saw.ViFailed(number, str(error), is_config=True))
            return
        self.links.say(number, message)

    def _give_files(self, vi: Vi) -> bool:
        try:
            files = self._launches.files(vi)
        except CloudletError:
            return True  # its service is no longer declared
        return not files or self.links.give_files(vi.number, files)

    def _later(self, event: saw.Event) -> None:
        self._loop.call_soon(self.tell, event)

    async def _work(self, command: do.DoWork) -> None:
        vi = self.core.saved.vis.get(command.number)
        node = self._nodes.get(command.node)
        if vi is None:
            return
        outcome, text = saw.Outcome.DONE, ""
        try:
            if node is None:  # nobody can ask it; what it still has is not ours any more
                raise ContainerMissingError(f"node {command.node} is not configured any more")
            await self._on_node(command, vi, node)
        except NodeUnreachableError as error:
            outcome, text = saw.Outcome.UNREACHABLE, str(error)
        except ContainerMissingError as error:
            outcome, text = saw.Outcome.MISSING, str(error)
        except NoRoomError as error:
            outcome, text = saw.Outcome.NO_ROOM, str(error)
        except CloudletError as error:
            outcome, text = saw.Outcome.REFUSED, str(error)
        self.tell(saw.WorkDone(command.number, command.work, outcome, text))

    async def _on_node(self, command: do.DoWork, vi: Vi, node: NodeAdapter) -> None:
        name = self._launches.container_name(command.number)
        match command.work:
            case Work.CREATE:
                limits = self._limits(command.vi_type, command.limits)
                await self._launches.bring_image(vi, node)
                await node.create(self._launches.wish(vi, limits))
            case Work.START:
                await node.start(name)
            case Work.STOP:
                await node.stop(name, command.limit_s)
            case Work.KILL:
                await node.kill(name)
            case Work.DELETE:
                await node.delete(name)
            case Work.RESIZE:
                await node.resize(name, self._limits(command.vi_type, command.limits))
            case Work.RESTORE:
                limits = self._limits(command.vi_type, command.limits)
                await node.restore(name, self._launches.wish(vi, limits))

    def _wish_now(self, vi: Vi) -> ContainerWish:
        """Return the container that a VI is to have, with the limits that it was given."""
        return self._launches.wish(vi, self._limits(vi.vi_type, vi.allotted))

    def _limits(self, vi_type: str, now: Allotment) -> Limits:
        """Return the limits of a VI's type, but for those that are others now."""
        return dataclasses.replace(
            self._launches.limits(vi_type),
            vcpu=now.cpus,
            memory_mib=now.memory_bytes // _MIB,
            disk_read_mib_s=now.read_mib_s,
        )

    async def _remove(self, node: str, number: int, why: str) -> None:
        name = self._launches.container_name(number)
        _log.warning("container %s on %s is removed: %s", name, node, why)
        try:
            await self._nodes[node].delete(name)
        except NodeError as error:
            _log.warning("container %s on %s: %s", name, node, error)

    async def _await_idle(self, number: int, limit_s: float) -> None:
        vi = self.core.saved.vis.get(number)
        service = self.core.settings.services.get(vi.service) if vi is not None else None
        if vi is not None and service is not None:
            answer = await self._router.await_idle(service.sid, vi.instance, limit_s)
            self.tell(saw.ViIdle(number, answer))

    async def _push(self, command: do.PushTable) -> None:
        self.tell(await self._router.push(command))

    # Watching

    async def _watch_node(self, node: NodeAdapter) -> None:
        described_at = -math.inf
        while True:
            asked_at = self._loop.time()
            try:
                if node.name not in self.facts or asked_at - described_at > DESCRIBE_INTERVAL_S:
                    self.facts[node.name] = await node.describe()
                    described_at = asked_at
                    if node.name not in self._stocking:
                        self._spawn(self._stock, node)
                containers = await node.containers()
            except NodeError as error:
                self.tell(saw.NodeSilent(node.name, str(error)))
            else:
                facts = self.facts[node.name]
                capacity, free = _resources(facts, self.sites[node.name].io_per_s)
                seen = self._checks.look(node.name, self.sites[node.name], containers)
                self.tell(saw.NodeSeen(node.name, asked_at, capacity, free, seen))
            await asyncio.sleep(OBSERVE_INTERVAL_S)

    async def _stock(self, node: NodeAdapter) -> None:
        """Bring images before a launch needs them; what fails is tried at the next description."""
        self._stocking.add(node.name)
        try:
            await self._launches.bring_images(node)
        except CloudletError as error:
            _log.warning("images for %s: %s", node.name, error)
        finally:
            self._stocking.discard(node.name)

    async def _watch_router(self) -> None:
        while True:
            self.tell(await self._router.look())
            await asyncio.sleep(ASK_ROUTER_INTERVAL_S)

    def _find(self, name: str) -> Caller | None:
        number = self._launches.number_of(name)
        vi = self.core.saved.vis.get(number) if number is not None else None
        if vi is None:
            return None
        return Caller(vi.number, vi.token, self._launches.control_address(vi))

    def _spawn(
        self, work: Callable[P, Coroutine[Any, Any, None]], *given: P.args, **named: P.kwargs
    ) -> None:
        task = self._loop.create_task(self._await_or_end(lambda: work(*given, **named)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await_or_end(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of ours: as in `_do_or_end`
            _log.exception("the controller fails")
            self._end(f"a fault of the controller: {error!r}")


def check_types(settings: CloudletSettings, saved: Saved) -> None:
    """See that every VI has a type that there is.

    Raises:
        CloudletConfigError: names the VIs, and the type that is gone.
    """
    gone = {vi.vi_type for vi in saved.vis.values()} - set(settings.vi_types)
    if gone:
        name = min(gone)
        numbers = sorted(vi.number for vi in saved.vis.values() if vi.vi_type == name)
        raise CloudletConfigError(
            f"VI {', '.join(map(str, numbers))} has the type {name!r}, and the catalogue has not: "
            f"put it there again until no VI has it; types: {', '.join(settings.vi_types)}"
        )


def _resources(facts: NodeFacts, io_per_s: int) -> tuple[Resources, Resources]:
    """Return what a node has, and what of it nobody uses now."""
    capacity = Resources(float(facts.cores_count), facts.memory_bytes, facts.disk_bytes, io_per_s)
    used = Resources(0.0, facts.memory_used_bytes, facts.disk_used_bytes)
    return capacity, capacity - used
