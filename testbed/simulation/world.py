"""Builds the network of a plan: machines, links, programs, and the faults that happen to them."""

from __future__ import annotations

import errno
import functools
import random
from collections import Counter
from dataclasses import replace

from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.names import GUID, NA
from packetcloud.host.endpoint_core import EndpointLimits
from packetcloud.host.outstanding import SendLimits
from packetcloud.router.settings import (
    RouterNeighbour,
    RouterSettings,
    ServiceSettings,
    SpoolSettings,
)
from packetcloud.testbed.simulation.application import Tempo
from packetcloud.testbed.simulation.host_program import HostProgram
from packetcloud.testbed.simulation.journal import Line
from packetcloud.testbed.simulation.machine import Machine
from packetcloud.testbed.simulation.network import Network, Path
from packetcloud.testbed.simulation.plan import LONGEST_AIM_S, Fault, Plan
from packetcloud.testbed.simulation.program import Program, Site, WriteLine, identity_of
from packetcloud.testbed.simulation.router_program import ROUTER_PORT, RouterProgram
from packetcloud.testbed.simulation.service_program import ServiceProgram
from packetcloud.testbed.simulation.trace import Trace
from packetcloud.testbed.simulation.virtual_time import VirtualTime

HOP = HopConfig(
    max_body_bytes=(1 << 19) + 2048,
    receive_buffer_bytes=256 << 10,
    credit_bytes=1 << 20,
    flow_credit_bytes=400 << 10,
    max_held_bytes=8 << 20,
)
"""Small caps, so that they are reached."""
HOSTS = SendLimits(max_outstanding_bytes=4 << 20, max_outstanding_count=256, max_waiting_count=512)
ROUTERS_OF = {"line": {"A": "R1", "B": "R2"}, "star": {"A": "R1", "B": "R1"}}
ROUTERS_OF["three"] = ROUTERS_OF["star"] | {"C": "R1"}
RESERVE_BYTES = 4096
NAS = {"R1": NA(1), "R2": NA(2)}


class World:
    """Everything that a run consists of."""

    def __init__(self, plan: Plan, trace: Trace, write: WriteLine) -> None:
        self.plan = plan
        self.time = VirtualTime()
        self.fired: Counter[Fault] = Counter()
        """How much of each fault was felt."""
        self._trace = trace
        self._write = write
        self._seed = f"{plan.scenario}/{plan.seed}"
        self.network = Network(self.time, self._seed, trace)
        self.machines: dict[str, Machine] = {}
        self.programs: dict[str, Program] = {}
        self._aimed: list[Fault] = []
        """Faults that wait for a line of their target's journal."""
        self._moves_count = 0
        self._build()

    @property
    def hosts(self) -> list[HostProgram]:
        return [p for p in self.programs.values() if isinstance(p, HostProgram)]

    @property
    def routers(self) -> list[RouterProgram]:
        return [p for p in self.programs.values() if isinstance(p, RouterProgram)]

    @property
    def faults_of_programs(self) -> list[str]:
        """What was raised and caught by nobody."""
        return [text for machine in self.machines.values() for text in machine.faults]

    def start(self) -> None:
        """Have every program start, and every fault happen in its time."""
        rng = random.Random(f"{self._seed}/starts")
        for program in self.programs.values():
            self.time.at(rng.random() * 0.2, program.start)
        for fault in self.plan.faults:
            self.time.at(fault.at_s, functools.partial(self._aim, fault))

    def noted(self, line: Line) -> None:
        """A line was written: a fault may wait for it."""
        for fault in self._aimed:
            if fault.target == line.node and fault.after is line.entry:
                self._aimed.remove(fault)
                # In the same turn of the process, or in one that follows soon.
                delay_s = random.Random(f"{self._seed}/{fault}").choice([0.0, 0.0002, 0.002])
                self.time.at(self.time.now_s + delay_s, functools.partial(self._begin, fault))
                return

    # --- building -------------------------------------------------------------------------------

    def _build(self) -> None:
        plan = self.plan
        hop = replace(HOP, rekey_after_s=plan.rekey_after_s)
        if plan.is_private:
            hop = replace(hop, private_links=("10.0.0.0/16",))
        places = ROUTERS_OF[plan.topology]
        routers = sorted(set(places.values()))
        names = [*routers, *places, *plan.services]
        for number, name in enumerate(names):
            rng = random.Random(f"{self._seed}/{name}")
            machine = Machine(self.time, rng, name, f"10.0.0.{number + 1}")
            self.machines[name] = machine
            self.network.add(machine)
        for name, (there, back) in plan.links.items():
            one, other = name.split("-")
            self.network.link(self.machines[one], self.machines[other], there, back)
        for name in routers:
            settings = self._router_settings(name, routers, places)
            self.programs[name] = RouterProgram(self._site(name, hop), settings)
        for name, router in places.items():
            self.programs[name] = HostProgram(
                self._site(name, hop),
                (self.machines[router].ip, ROUTER_PORT),
                [operation for operation in plan.operations if operation.source == name],
                plan.tempos.get(name, Tempo()),
                EndpointLimits(HOSTS, max_unanswered_count=plan.max_unanswered_count),
                self._seed,
            )
        routers_of_services = dict(link.split("-") for link in plan.links)
        for number, (name, service) in enumerate(plan.services.items()):
            self.programs[name] = ServiceProgram(
                self._site(name, replace(hop, instance=number)),
                (self.machines[routers_of_services[name]].ip, ROUTER_PORT),
                service,
            )
        for program in self.programs.values():
            program.joins_datagrams = plan.joins_datagrams
            program.has_fast_aes = plan.has_fast_aes

    def _site(self, name: str, config: HopConfig) -> Site:
        return Site(self.machines[name], self.network, config, self._write)

    def _router_settings(
        self, name: str, routers: list[str], places: dict[str, str]
    ) -> RouterSettings:
        services = tuple(
            ServiceSettings(identity_of(service).sid, service, deadline_ms=2000, grace_s=5.0)
            for service in sorted(set(self.plan.services.values()))
        )
        neighbours = tuple(
            RouterNeighbour(
                identity_of(other).guid,
                other,
                NAS[other],
                address=(self.machines[other].ip, ROUTER_PORT),
            )
            for other in routers
            if other != name
        )
        names: dict[GUID, NA] = {
            identity_of(host).guid: NAS[router] for host, router in places.items()
        }
        return RouterSettings(
            identity_of(name).guid,
            NAS[name],
            name,
            store_bytes=self.plan.store_bytes,
            detached_hold_s=self.plan.detached_hold_s,
            spool=_spool(self.plan),
            services=services,
            neighbours=neighbours,
            names=names,
        )

    # --- faults ---------------------------------------------------------------------------------

    def _aim(self, fault: Fault) -> None:
        if fault.after is None:
            self._begin(fault)
            return
        self._aimed.append(fault)

        def lose_patience() -> None:
            if fault in self._aimed:
                self._aimed.remove(fault)
                self._begin(fault)

        self.time.at(fault.at_s + LONGEST_AIM_S, lose_patience)

    def _begin(self, fault: Fault) -> None:
        self._trace.event(self.time.now_s, str(fault))
        match fault.kind:
            case "cut" | "cut_one_way" | "degrade":
                self._spoil(fault)
            case "narrow":
                self._narrow(fault)
            case "kill" | "power_cut":
                self._kill(fault)
            case "move":
                self._moves_count += 1
                self.network.move(self.machines[fault.target], f"10.0.1.{self._moves_count}")
                self.fired[fault] += 1
            case "disk_full" | "disk_error":
                self._spoil_disk(fault)
            case "pause":
                self._pause(fault)
            case "step_clock":
                self.machines[fault.target].step_wall_clock(fault.amount)
                self.fired[fault] += 1
            case _:
                raise ValueError(f"no fault is called {fault.kind!r}")

    def _spoil(self, fault: Fault) -> None:
        one, other = fault.target.replace(">", "-").split("-")
        ways = [self.network.paths[one, other]]
        if fault.kind != "cut_one_way":
            ways.append(self.network.paths[other, one])
        is_cut = fault.kind != "degrade"
        before = sum(_felt(path) for path in ways)
        for path in ways:
            path.cuts_count += is_cut
            path.degrades_count += not is_cut

        def heal() -> None:
            self._trace.event(self.time.now_s, f"end of {fault.kind} {fault.target}")
            for path in ways:
                path.cuts_count -= is_cut
                path.degrades_count -= not is_cut
            self.fired[fault] += sum(_felt(path) for path in ways) - before

        self.time.at(self.time.now_s + fault.for_s, heal)

    def _narrow(self, fault: Fault) -> None:
        """A link takes only smaller packets from here on, and says nothing."""
        one, other = fault.target.split("-")
        ways = [self.network.paths[one, other], self.network.paths[other, one]]
        for path in ways:
            path.options = replace(path.options, mtu_bytes=int(fault.amount))

        def count() -> None:
            self.fired[fault] = sum(path.counts["too_large"] for path in ways)

        self.time.at(self.plan.healed_at_s, count)

    def _spoil_disk(self, fault: Fault) -> None:
        disk = self.machines[fault.target].disk
        before = disk.errors_count
        disk.error = errno.ENOSPC if fault.kind == "disk_full" else errno.EIO

        def heal() -> None:
            self._trace.event(self.time.now_s, f"end of {fault.kind} {fault.target}")
            disk.error = 0
            self.fired[fault] += disk.errors_count - before

        self.time.at(self.time.now_s + fault.for_s, heal)

    def _kill(self, fault: Fault) -> None:
        machine, program = self.machines[fault.target], self.programs[fault.target]
        if machine.process is None:
            return
        self.fired[fault] += 1
        machine.kill(power_cut=fault.kind == "power_cut")
        program.killed()

        def restart() -> None:
            self._trace.event(self.time.now_s, f"{fault.target} starts again")
            program.start()

        self.time.at(self.time.now_s + fault.for_s, restart)

    def _pause(self, fault: Fault) -> None:
        process = self.machines[fault.target].process
        if process is None or process.backlog is not None:
            return
        process.pause()

        def resume() -> None:
            self._trace.event(self.time.now_s, f"{fault.target} goes on")
            self.fired[fault] += len(process.backlog or ())
            process.resume()

        self.time.at(self.time.now_s + fault.for_s, resume)


def _spool(plan: Plan) -> SpoolSettings | None:
    if not plan.spool:
        return None
    return SpoolSettings(
        max_bytes=plan.spool_bytes,
        memory_bytes=plan.waiting_bytes,
        reserve_bytes=RESERVE_BYTES,
        is_durable=plan.spool == "durable",
    )


def _felt(path: Path) -> int:
    return path.counts["cut"] + path.counts["degraded"]
