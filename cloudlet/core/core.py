"""The core of the cloudlet controller: the events' way to what decides on them.

`handle(event, now)` changes `saved` and returns commands. The shell writes `saved` down before it
carries out any of them, so that whatever was begun is known after a crash; every command may be
repeated. Source: design, section 8; docs/decisions/0013-cloudlet.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from packetcloud.cloudlet.core.commands import (
    Command,
    DropDomain,
    Note,
    OperationEnded,
    RemoveStranger,
)
from packetcloud.cloudlet.core.conduct import Conduct
from packetcloud.cloudlet.core.events import (
    CompleteTaken,
    Configured,
    Directed,
    DomainDown,
    DomainUp,
    EgressDenied,
    EvacuateWished,
    Event,
    LaunchWished,
    LinkDown,
    LinkUp,
    Metered,
    MigrateWished,
    NodeSeen,
    NodeSilent,
    OrphanSaid,
    Outcome,
    ResizeWished,
    RestartWished,
    RouterSeen,
    RouterSilent,
    RulesAnswered,
    RulesSaid,
    RulesSeen,
    RulesUnanswered,
    ServiceAtRouter,
    StateExported,
    StateImported,
    StopWished,
    TableAnswered,
    TableUnanswered,
    Tick,
    UsageTaken,
    ViEvent,
    ViFailed,
    ViIdle,
    ViReady,
    ViStatus,
    WorkDone,
)
from packetcloud.cloudlet.core.instances import Vi, ViState, Work
from packetcloud.cloudlet.core.inventory import Inventory
from packetcloud.cloudlet.core.life import Life
from packetcloud.cloudlet.core.metering import Metering
from packetcloud.cloudlet.core.migration import Migrations, Step
from packetcloud.cloudlet.core.placement import Policy, least_loaded
from packetcloud.cloudlet.core.places import Places
from packetcloud.cloudlet.core.reserved import Reservations
from packetcloud.cloudlet.core.rule_sets import RuleSets
from packetcloud.cloudlet.core.saved import Counts, Saved
from packetcloud.cloudlet.core.scaling import Scaling
from packetcloud.cloudlet.core.staffing import Staffing
from packetcloud.cloudlet.core.states import HAS_RUN
from packetcloud.cloudlet.core.table import Entry, RouterTable, entry_of
from packetcloud.cloudlet.core.traffic import Traffic
from packetcloud.cloudlet.core.values import CloudletSettings, ConductPolicy
from packetcloud.cloudlet.core.wishes import Wishes


class CloudletCore:
    """One cloudlet.

    Args:
        saved: what the last run left; its epoch grows by one here.
        random_bytes: the system's random source.
        wall_s: returns seconds since 1970: when something was found, and how much is left of a
            restriction, or of a delay, that an earlier run began.
    """

    def __init__(
        self,
        settings: CloudletSettings,
        saved: Saved,
        random_bytes: Callable[[int], bytes],
        wall_s: Callable[[], float],
        policy: Policy = least_loaded,
    ) -> None:
        saved.epoch += 1
        self.settings = settings
        self.saved = saved
        self.router: RouterSeen | None = None
        """What the router said last; None: it does not answer."""
        self.router_text = "not asked yet"
        self.table = RouterTable(saved.epoch, saved.version)
        self.inventory = Inventory(settings, saved.vis)
        self._life = Life(
            settings,
            lambda: int.from_bytes(random_bytes(4), "big") / (1 << 32),
            self.inventory.boot_cpus,
        )
        self.conduct = Conduct(self._life, wall_s)
        self._wall_s = wall_s
        self._migrations = Migrations(settings, saved.vis, saved.migrations, self._life, self.table)
        self._scaling = Scaling()
        self.staffing = Staffing(
            settings,
            saved,
            self.inventory,
            self._life,
            self._migrations,
            Places(settings, saved, self.inventory, policy, random_bytes),
        )
        self.metering = Metering(
            settings.name_at_domain, saved, lambda: f"vi-time-{random_bytes(12).hex()}"
        )
        self.traffic = Traffic(
            settings.name_at_domain, saved, lambda vi: f"traffic-{vi}-{random_bytes(12).hex()}"
        )
        self.reservations = Reservations(
            settings, saved, self.inventory, self.metering, self.traffic
        )
        self.rule_sets = RuleSets(saved)
        self._wishes = Wishes(
            settings, saved, self.inventory, self._life, self._migrations, self.staffing
        )

    def start(self, now: float) -> list[Command]:
        """Go on where the last run ended; call once, before any event.

        What runs is adopted when it calls; a migration that was not committed is undone.
        """
        commands: list[Command] = []
        for name in self.saved.evacuated & set(self.inventory.nodes):
            self.inventory.nodes[name].is_evacuated = True
        for migration in list(self.saved.migrations.values()):
            if migration.step is not Step.COMMITTED:
                commands += self._migrations.abort(migration, "the controller was restarted", now)
                self._wishes.ended(migration.operation)
        clock_s = self._wall_s() - now
        shift_s, self.saved.clock_s = self.saved.clock_s - clock_s, clock_s
        for vi in self.saved.vis.values():
            vi.touched_at = now
            service = self.settings.services.get(vi.service)
            policy = service.conduct if service is not None else ConductPolicy()
            self.conduct.resume(vi, policy, now)
            vi.change_clock(shift_s, now)
            self._life.resume(vi, now)
            if vi.is_leaving:
                commands += self._life.leave(vi, now)
            else:
                commands += self._life.advance(vi, now)
        return commands + self._settle(now)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take note of `event` and return what is to be done."""
        if isinstance(event, ViStatus) and not self._changes_something(event, now):
            return []
        commands = self._dispatch(event, now)
        for command in commands:
            if isinstance(command, OperationEnded):
                self._wishes.ended(command.operation)
        return commands + self._settle(now)

    def vi_of(self, operation: int) -> int | None:
        """Return which VI an operation under way is about; of a migration the new one."""
        return self._wishes.vi_of(operation)

    def next_timeout(self) -> float:
        """Return when `Tick` is due; infinite: never."""
        lost_after = self.settings.node_lost_s
        return min(
            min(
                (
                    min(vi.due_at, vi.retry_at, vi.restriction_ends_at)
                    for vi in self.saved.vis.values()
                ),
                default=math.inf,
            ),
            min(
                (
                    node.silent_since + lost_after
                    for node in self.inventory.nodes.values()
                    if node.silent_since is not None and not node.is_lost
                ),
                default=math.inf,
            ),
            self._migrations.next_timeout(),
            self.table.due_at,
        )

    def _dispatch(self, event: Event, now: float) -> list[Command]:
        match event:
            case NodeSeen():
                return self._node_seen(event, now)
            case NodeSilent(name, text):
                node = self.inventory.nodes.get(name)
                if node is not None and node.silent_since is None:
                    node.silent_since, node.silent_text = now, text
                return []
            case RouterSeen():
                return self._router_seen(event, now)
            case RouterSilent(text):
                self.router, self.router_text = None, text
                return []
            case TableAnswered():
                return self.table.answered(event, now)
            case TableUnanswered():
                return self.table.unanswered(event, now)
            case Configured(settings):
                self._configure(settings)
                return []
            case Tick():
                return self._tick(now)
            case RestartWished(_, number):
                charged = self.saved.vis.get(number)
                if charged is not None and not charged.is_leaving:
                    self.conduct.pardoned(charged)
                return self._wishes.begin(event, now)
            case DomainUp():
                commands = self.reservations.take(event)
                is_in_charge = not any(isinstance(one, DropDomain) for one in commands)
                return commands + self.rule_sets.up(event, is_in_charge=is_in_charge)
            case DomainDown():
                self.rule_sets.down()
                return self.reservations.take(event)
            case Metered():
                return self.reservations.take(event) + self.rule_sets.tick(event)
            case Directed() | UsageTaken() | CompleteTaken() | OrphanSaid():
                return self.reservations.take(event)
            case RulesSaid():
                return self.rule_sets.said(event)
            case RulesAnswered():
                return self.rule_sets.answered(event)
            case RulesUnanswered():
                return self.rule_sets.unanswered(event)
            case RulesSeen():
                return self.rule_sets.seen(event)
            case (
                LaunchWished() | StopWished() | ResizeWished() | MigrateWished() | EvacuateWished()
            ):
                return self._wishes.begin(event, now)
            case _:
                vi = self.saved.vis.get(event.number)
                return [] if vi is None else self._of_vi(event, vi, now)

    def _of_vi(self, event: ViEvent, vi: Vi, now: float) -> list[Command]:
        match event:
            case WorkDone(_, work, outcome, text):
                is_refused = outcome in (Outcome.REFUSED, Outcome.NO_ROOM)
                if work is Work.RESIZE and is_refused and vi.resize_to is not None:
                    vi.why = f"resize: {text}"
                return self._life.work_done(vi, work, outcome, text, now)
            case LinkUp(_, is_launched):
                return self._life.link_up(vi, is_launched, now)
            case LinkDown():
                self._life.link_down(vi, now)
                return []
            case ViReady():
                return self._life.ready(vi, now)
            case ViStatus(_, status):
                return self._status(vi, status, now)
            case ViFailed(_, text, is_config):
                return self._life.failed(vi, text, now, for_good=is_config)
            case StateExported(_, is_done, text):
                return self._migrations.exported(vi, is_done, text, now)
            case StateImported(_, is_done, text):
                return self._migrations.imported(vi, is_done, text, now)
            case ViIdle(_, answer):
                return self._migrations.idle(vi, answer, now)
            case EgressDenied(_, packets):
                service = self.settings.services.get(vi.service)
                if service is None:
                    return []
                per_violation = service.denied_per_violation
                return self.conduct.denied(vi, packets, per_violation, service.conduct, now)

    def _settle(self, now: float) -> list[Command]:
        """Do whatever follows from what is now the case."""
        for number in [n for n, vi in self.saved.vis.items() if vi.state is ViState.GONE]:
            del self.saved.vis[number]
        commands = self._migrations.go_on(now)
        for command in commands:
            if isinstance(command, OperationEnded):
                self._wishes.ended(command.operation)
        self.staffing.reserved = self.reservations.wanted()
        commands += self.staffing.settle(now)
        commands += self._drain(now)
        commands += self._wishes.go_on(now)
        commands += self.table.want(self._entries(), now)
        self.saved.version = self.table.version
        return commands

    def _entries(self) -> Mapping[str, Entry]:
        held = self._migrations.held()
        by_service: dict[str, list[Vi]] = {name: [] for name in self.settings.services}
        for vi in self.saved.vis.values():
            if vi.service in by_service:
                by_service[vi.service].append(vi)
        return {
            self.settings.services[name].sid: entry_of(self.settings.services[name], vis, held)
            for name, vis in by_service.items()
        }

    def _drain(self, now: float) -> list[Command]:
        """Let go of the VIs that finished their tasks, or never had any."""
        commands: list[Command] = []
        for vi in self.saved.vis.values():
            if not vi.is_draining or vi.is_leaving:
                continue
            if vi.state is not ViState.RUNNING or self._is_drained(vi):
                commands += self._life.leave(vi, now)
        return commands

    def _is_drained(self, vi: Vi) -> bool:
        """Tell whether router and VI agree that it has no task left.

        To the router a VI without a session has none. If the VI believes that it has one, it may
        be at work: what it says next, or that it says nothing, decides.
        """
        table, router = self.table, self.router
        if router is None or not table.is_in_force(self._sid(vi), vi.instance, "draining"):
            return False
        ours = (table.boot, table.epoch, table.version)
        if (router.boot, router.epoch, router.version) != ours:
            return False
        service = router.services.get(self._sid(vi))
        seen = service.vis.get(vi.instance) if service is not None else None
        if seen is None or not seen.is_attached:
            return not vi.is_attached
        return seen.tasks == 0

    def _sid(self, vi: Vi) -> str:
        service = self.settings.services.get(vi.service)
        return service.sid if service is not None else ""

    def _node_seen(self, event: NodeSeen, now: float) -> list[Command]:
        node = self.inventory.nodes.get(event.node)
        if node is None or event.asked_at < node.asked_at:
            return []
        commands: list[Command] = []
        if node.is_lost:
            commands.append(Note(f"node {node.name} answers again"))
        node.capacity, node.free, node.asked_at = event.capacity, event.free, event.asked_at
        node.silent_since, node.is_lost = None, False
        node.containers = event.containers
        seen = {container.number: container for container in event.containers}
        for number, container in seen.items():
            vi = self.saved.vis.get(number)
            is_ours = vi is not None and vi.node == node.name and vi.instance == container.instance
            # Who lost its database, or never had it, must not remove what another one runs.
            if not is_ours and self.table.is_in_charge:
                commands.append(RemoveStranger(node.name, number, "it belongs to no VI"))
        for vi in [vi for vi in self.saved.vis.values() if vi.node == node.name]:
            if vi.touched_at >= event.asked_at or vi.pending is not None:
                continue
            here = seen.get(vi.number)
            if here is None:
                commands += self._life.missing(vi, now)
            elif here.violations:
                commands += self.conduct.broken(vi, here.violations, now)
            elif not here.is_running and vi.state in HAS_RUN:
                commands += self._life.failed(vi, vi.why or "its container stopped", now)
            elif here.differences:
                commands += self.conduct.astray(vi, here.differences, now)
            elif vi.state in (ViState.WAITING, ViState.RUNNING):
                commands += self._life.advance(vi, now)  # its type may be another than it was
        return commands

    def _router_seen(self, event: RouterSeen, now: float) -> list[Command]:
        self.router, self.router_text = event, ""
        commands = self.table.seen(event, now)
        for name, service in self.settings.services.items():
            seen = event.services.get(service.sid)
            if seen is None:
                continue
            self._count_traffic(name, seen, event.boot)
            vis = [vi for vi in self.saved.vis.values() if vi.service == name]
            for vi in vis:
                at_router = seen.vis.get(vi.instance)
                if at_router is not None and vi.is_judged:
                    commands += self.conduct.judge(vi, at_router, event.boot, service.conduct, now)
            count = self.saved.counts.get(name, service.replicas_min)
            own = [vi for vi in vis if vi.counts and not vi.reservation]
            load = (_busy_share(own), max(seen.oldest_wait_s, _longest_wait_s(own)))
            change = self._scaling.step(service, count, *load, seen.penalty_p99_s, now)
            if change:
                self.saved.counts[name] = count + change
                why = "chunks wait too long" if change > 0 else "its VIs are mostly idle"
                commands.append(Note(f"service {name}: {count} -> {count + change} VIs, {why}"))
        return commands

    def _count_traffic(self, service: str, seen: ServiceAtRouter, boot: str) -> None:
        """Note what went to and from the VIs of reservations, those that are about to go too."""
        for vi in self.saved.vis.values():
            at_router = seen.vis.get(vi.instance)
            if vi.service == service and vi.reservation and at_router is not None:
                size_bytes = at_router.to_bytes + at_router.from_bytes
                self.traffic.look(vi, boot, Counts(at_router.to_chunks, size_bytes))

    def _changes_something(self, event: ViStatus, now: float) -> bool:
        """Take in a status that says only that a VI is alive; False if it was such a one."""
        vi = self.saved.vis.get(event.number)
        if vi is None:
            return False
        is_attached = event.status.get("attachment") == "attached"
        if vi.state is not ViState.RUNNING or is_attached != vi.is_attached:
            return True
        if _in_hand_s(event.status) > self._hang_s(vi):
            return True
        self._life.alive(vi, event.status, now)
        return False

    def _status(self, vi: Vi, status: Mapping[str, object], now: float) -> list[Command]:
        self._life.alive(vi, status, now)
        in_hand_s = _in_hand_s(status)
        if vi.state is ViState.RUNNING and in_hand_s > self._hang_s(vi):
            return self._life.failed(vi, f"one task for {in_hand_s:.0f} s", now)
        return []

    def _hang_s(self, vi: Vi) -> float:
        service = self.settings.services.get(vi.service)
        return service.hang_s if service is not None else 10.0

    def _tick(self, now: float) -> list[Command]:
        commands: list[Command] = []
        for node in self.inventory.nodes.values():
            if node.silent_since is None or node.is_lost:
                continue
            if now - node.silent_since < self.settings.node_lost_s:
                continue
            node.is_lost = True
            why = self.staffing.why_lost(node.name)
            commands.append(Note(f"{why}: {node.silent_text}", True))
        for vi in list(self.saved.vis.values()):
            if now >= vi.retry_at:
                commands += self._life.retry(vi, now)
            if now >= vi.due_at:
                commands += self._life.due(vi, now)
        commands += self._migrations.due(now)
        commands += self.conduct.due(self.saved.vis.values(), now)
        return commands + self.table.due(now)

    def _configure(self, settings: CloudletSettings) -> None:
        for name in set(self.settings.services) - set(settings.services):
            self._scaling.forget(name)
            self.saved.counts.pop(name, None)
        for name, service in settings.services.items():
            count = self.saved.counts.get(name, service.replicas_min)
            bounded = min(max(count, service.replicas_min), service.replicas_max)
            self.saved.counts[name] = bounded
        self.settings = self._life.settings = self._migrations.settings = settings
        self._wishes.settings = settings
        self.staffing.configure(settings)
        self.reservations.settings = settings
        self.inventory.configure(settings)


def _in_hand_s(status: Mapping[str, object]) -> float:
    return _seconds(status, "longest_in_hand_s")


def _longest_wait_s(vis: list[Vi]) -> float:
    """Return how long a chunk that the router gave to a VI has waited there for the service.

    The router sees none of it: a window of tasks that stands still looks like one that moves.
    """
    running = [vi for vi in vis if vi.state is ViState.RUNNING]
    return max((_seconds(vi.status, "longest_waiting_s") for vi in running), default=0.0)


def _seconds(status: Mapping[str, object], name: str) -> float:
    value = status.get(name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _busy_share(vis: list[Vi]) -> float | None:
    """Return the mean share of their time that VIs spent with chunks; None: not all say so."""
    shares = []
    for vi in vis:
        share = vi.status.get("busy_share")
        if not isinstance(share, int | float):
            return None
        shares.append(float(share))
    return sum(shares) / len(shares) if shares else None
