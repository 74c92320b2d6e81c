"""The router as a process: hop node, core and management API on one loop, as a service tree.

A `RouterDaemon` has two parts: `HopService` (the UDP port, calls to neighbour routers) and
`ManagementService` (HTTP).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.log import PythonLoggingObserver

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.flow_labels import KEY_BYTES
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.runtime_folder import runtime_folder
from packetcloud.router.config import RouterConfig
from packetcloud.router.core import RouterCore
from packetcloud.router.disk_jobs import Result
from packetcloud.router.disk_service import DiskService, wall_ms
from packetcloud.router.hop_service import HopService
from packetcloud.router.inspection_service import InspectionService
from packetcloud.router.management import ManagementService
from packetcloud.router.redial import Redial
from packetcloud.router.rule_service import RuleService
from packetcloud.router.schemas import Reload
from packetcloud.router.settings import ServiceSettings
from packetcloud.router.shell import RouterShell
from packetcloud.router.state import LiveState
from packetcloud.router.table_service import TableService
from packetcloud.router.tap import Tap

DRAIN_CHECK_S = 0.05
REPORT_LIMIT_S = 1.0
"""After a drain: how long the last reports may take to leave."""
GC_THRESHOLDS = (100_000, 20, 100)
"""Small chunks cost the process an eighth less CPU than with Python's own (700, 10, 10)."""
SWITCH_INTERVAL_S = 0.001
"""How long a thread beside the loop may keep the interpreter while the loop waits for it.
Making ten thousand rules ready held it up for 5 to 10 ms with Python's own 5 ms, now for 2."""
_log = logging.getLogger("packetcloud.router")


class RouterDaemon(MultiService):
    """One router.

    Args:
        reactor: Twisted's asyncio reactor; its clock is made monotonic.
    """

    def __init__(self, reactor: Any, config: RouterConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        install_monotonic_clock(reactor)
        self._reactor = reactor
        self._configuring: asyncio.Task[None] | None = None
        settings = config.settings
        # Chunk ids of one run must not meet those of an earlier one: milliseconds since 1970 leave
        # room for 2^20 ids a millisecond.
        first_chunk_id = (time.time_ns() // 1_000_000) << 20
        self.disk = DiskService(reactor, config, self._disk_done)
        self.core = RouterCore(
            settings,
            reactor.seconds(),
            first_chunk_id,
            label_key=os.urandom(KEY_BYTES),
            spool=self.disk.spool,
            tap=Tap(time.time_ns),
            wall_s=time.time,
        )
        self.shell = RouterShell(reactor, self.core)
        lanes = config.lanes
        if lanes is None and config.file.router.share_memory:
            _log.warning(
                "no memory is shared with services: %s is open to others", runtime_folder()
            )
        node = HopNode(
            reactor,
            config.identity,
            Role.ROUTER,
            config.hop,
            self.shell,
            self.core.admit,
            config.stamp_file,
            lanes,
            shows_lanes=config.file.cloudlet is not None,
        )
        self.rules = RuleService(
            reactor.seconds, config, self.core.install_rules, self.core.rule_counts
        )
        self.table = TableService(
            config.cloudlet_folder,
            self.core,
            reactor.seconds,
            self.shell.changed,
            self._services_listed,
            config.table_token,
            boot_id=os.urandom(16).hex(),
        )
        self.state = LiveState(
            self.core, node, config, reactor.seconds, self.rules, time.time, self.table
        )
        self.inspection = InspectionService(
            self.core.cloudlet.inspection if self.core.cloudlet is not None else None,
            config.cloudlet_folder,
            config.inspection_bytes,
            config.file.router.name,
            lambda: self.state.address,
            self.table.figures,
        )
        redial = Redial(settings.guid, settings.neighbours, reactor.seconds())
        self.hop = HopService(reactor, node, config.file.router.listen, redial)
        self.management = ManagementService(config.file.router.control_listen, self.state)
        self.hop.setServiceParent(self)  # type: ignore[no-untyped-call]  # Twisted's
        self.management.setServiceParent(self)  # type: ignore[no-untyped-call]  # Twisted's

    def startService(self) -> None:
        """Open both ports.

        Raises:
            RouterConfigError: one of them cannot be bound, or the rules of before cannot be had.
        """
        self.table.open()
        self.rules.list_services(self.table.services)
        self.rules.open()
        self.core.restore(self.disk.open(), wall_ms(), self._reactor.seconds())
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        self.inspection.start()
        self.shell.changed()
        self.state.address = self.hop.address

    def stopService(self) -> Deferred[Any]:
        self.state.address = None
        self.core.tap.end_all()
        stopped: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        return stopped.addBoth(self._ports_closed)

    def _ports_closed(self, result: Any) -> Any:
        # What the hop settles while it ends is noted on disk too, so that closes last.
        self.shell.stop()
        self.disk.close()
        self.table.close()
        stopping = asyncio.get_event_loop().create_task(self._stop_writers())
        return Deferred.fromFuture(stopping).addCallback(lambda _: result)

    async def _stop_writers(self) -> None:
        await self.inspection.stop()
        await self.rules.stop()

    def _services_listed(self, services: tuple[ServiceSettings, ...]) -> None:
        """The cloudlet's table is another one."""
        if self.rules.list_services(services):
            self._configure_rules(self.state.configuration)

    def _configure_rules(self, config: RouterConfig) -> None:
        self._configuring = asyncio.get_event_loop().create_task(self.rules.configure(config))

    def _disk_done(self, results: list[Result]) -> None:
        self.shell.disk_done(results)

    async def drain(self) -> None:
        """Take nothing more, let what is held leave, tell the sources of the rest."""
        self.core.start_draining()
        limit_s = self.state.configuration.file.router.drain_limit_s
        await self._until_empty(self._reactor.seconds() + limit_s)
        self.core.give_up_all()
        self.shell.changed()
        await self._until_empty(self._reactor.seconds() + REPORT_LIMIT_S)

    def reload(self) -> None:
        """Read the config again; take services, names, neighbours and hosts from it.

        A mistake in it is logged and changes nothing.
        """
        old = self.state.configuration
        try:
            new = RouterConfig.load(old.path)
        except PacketCloudError as error:
            self._not_reloaded(str(error))
            return
        conflict = self.table.conflict(new.settings)
        if conflict is not None:
            self._not_reloaded(f"{old.path}: {conflict}")
            return
        detail = "services, rules, names, neighbours and hosts taken over"
        if new.file.router != old.file.router or new.identity.guid != old.identity.guid:
            detail += "; changes in [router] need a restart"
        if new.file.spool != old.file.spool:
            detail += "; changes in [spool] need a restart"
        if new.file.cloudlet != old.file.cloudlet:
            detail += "; changes in [cloudlet] need a restart"
        kept: dict[str, Any] = {
            "router": old.file.router,
            "spool": old.file.spool,
            "cloudlet": old.file.cloudlet,
        }
        if new.rules_folder != old.rules_folder:
            detail += "; a change of [rules] path needs a restart"
            kept["rules"] = old.file.rules
        file = new.file.model_copy(update=kept)
        self.table.token = new.table_token
        config = RouterConfig(old.path, file, old.identity, new.table_token)
        self.state.configuration = config
        now = self._reactor.seconds()
        self.core.configure(config.settings, now)
        self.hop.redial.configure(config.settings.neighbours, now)
        self._configure_rules(config)
        self.shell.changed()
        self.state.last_reload = Reload(succeeded=True, detail=detail)
        _log.info("config read again: %s", detail)

    def _not_reloaded(self, why: str) -> None:
        _log.error("config not read again, the old one stays: %s", why)
        self.state.last_reload = Reload(succeeded=False, detail=why)

    async def _until_empty(self, limit: float) -> None:
        core = self.core
        while core.book.held_count or not core.reports.is_idle:
            if self._reactor.seconds() >= limit:
                return
            tick: Deferred[None] = Deferred()
            self._reactor.callLater(DRAIN_CHECK_S, tick.callback, None)
            await tick


def run_router(config: RouterConfig, started: Callable[[RouterDaemon], None]) -> None:
    """Run a router in this process until a signal ends it.

    SIGTERM and SIGINT drain and stop, a second one stops at once; SIGHUP reads the config again.

    Args:
        started: called once when both ports are open.

    Raises:
        RouterConfigError: a port cannot be bound.
    """
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)  # type: ignore[no-untyped-call]  # Twisted's
    from twisted.internet import reactor as installed_reactor

    reactor: Any = installed_reactor
    observer = PythonLoggingObserver("packetcloud.twisted")  # type: ignore[no-untyped-call]  # Twisted's
    observer.start()
    daemon = RouterDaemon(reactor, config)
    failures: list[PacketCloudError] = []
    stops = _Stops(reactor, daemon)

    def start() -> None:
        try:
            daemon.startService()
            started(daemon)
        except PacketCloudError as error:
            failures.append(error)
            reactor.stop()

    _spare_the_collector()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stops.asked)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    if failures:
        raise failures[0]


def _spare_the_collector() -> None:
    """Let cyclic garbage collection look at new objects only, and seldom.

    Chunks leave no cycles behind, but tens of thousands of them in custody were walked again and
    again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class _Stops:
    """Counts the signals: the first drains, the second does not wait for that."""

    def __init__(self, reactor: Any, daemon: RouterDaemon) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._count = 0

    def asked(self) -> None:
        self._count += 1
        if self._count == 1:
            _log.info("draining; a second signal stops at once")
            ensureDeferred(self._drain())
        elif self._count == 2:
            self._stop()

    async def _drain(self) -> None:
        await self._daemon.drain()
        if self._count == 1:
            self._stop()

    def _stop(self) -> None:
        self._daemon.stopService().addBoth(lambda _: self._reactor.stop())
