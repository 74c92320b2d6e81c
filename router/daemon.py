"""The router as a process: hop node, core and management API on one loop, as a service tree.

RouterDaemon
  ├─ HopService         the UDP port, and calls to neighbour routers
  └─ ManagementService  HTTP
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, ProcessCollector
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python import log as twisted_log

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.hop.clock import install_monotonic_clock
from packetcloud.chunk.hop.udp import HopConnectError, HopNode
from packetcloud.router import view
from packetcloud.router.api import make_app
from packetcloud.router.config import ConfigFile, RouterConfig, split_address
from packetcloud.router.core import RouterCore
from packetcloud.router.errors import RouterConfigError
from packetcloud.router.metrics import RouterCollector
from packetcloud.router.redial import Redial
from packetcloud.router.schemas import Health, HeldChunks, Info, NeighbourInfo, Reload, ServiceInfo
from packetcloud.router.shell import RouterShell

REDIAL_CHECK_S = 0.2
DRAIN_CHECK_S = 0.05
REPORT_LIMIT_S = 1.0
"""After a drain: how long the last reports may take to leave."""
_log = logging.getLogger("packetcloud.router")


class HopService(Service):
    """The hop node: listens, and keeps calling the neighbours that have an address."""

    def __init__(self, reactor: Any, node: HopNode, listen: str, redial: Redial) -> None:
        self.node = node
        self.address: tuple[str, int] | None = None
        self.redial = redial
        self._reactor = reactor
        self._listen = listen
        self._call: Any = None

    def startService(self) -> None:
        """Bind the port.

        Raises:
            RouterConfigError: it cannot be bound.
        """
        try:
            self.address = self.node.listen(*split_address(self._listen))
        except OSError as error:
            raise RouterConfigError(
                f"[router] listen = {self._listen!r}: {error.strerror or error}; "
                "allowed: a free UDP port of this machine"
            ) from None
        super().startService()
        self._check()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._call is not None and self._call.active():
            self._call.cancel()
        return ensureDeferred(self.node.close())

    def _check(self) -> None:
        up = {neighbour.guid for neighbour in self.node.neighbours if neighbour.is_up}
        for target in self.redial.due(up, self._reactor.seconds()):
            ensureDeferred(self._dial(target.guid, target.address))
        self._call = self._reactor.callLater(REDIAL_CHECK_S, self._check)

    async def _dial(self, guid: Any, address: tuple[str, int]) -> None:
        try:
            await self.node.connect(address, guid)
        except HopConnectError as error:
            if self.redial.failed(guid, self._reactor.seconds()):
                _log.warning("neighbour %s: %s; trying on", guid.short, error)
        else:
            _log.info("neighbour %s at %s:%d is up", guid.short, *address)
            self.redial.succeeded(guid)


class ManagementService(Service):
    """The HTTP server of the management API."""

    def __init__(self, listen: str, state: Any) -> None:
        self.address: tuple[str, int] | None = None
        self._listen = listen
        self._state = state
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    def startService(self) -> None:
        """Bind the port and serve.

        Raises:
            RouterConfigError: it cannot be bound.
        """
        host, port = split_address(self._listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise RouterConfigError(
                f"[router] control_listen = {self._listen!r}: {error.strerror or error}; "
                "allowed: a free TCP port of this machine"
            ) from None
        self.address = listener.getsockname()[:2]
        config = uvicorn.Config(
            make_app(self._state), loop="none", lifespan="off", log_config=None, access_log=False
        )
        self._server = _Server(config)
        self._task = asyncio.get_event_loop().create_task(self._server.serve([listener]))
        super().startService()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if self._server is None or self._task is None:
            return None
        self._server.should_exit = True
        self._server.force_exit = True  # open connections are scrapers and status commands
        return Deferred.fromFuture(self._task)


class RouterDaemon(MultiService):
    """One router; a `RouterState` for the API.

    Args:
        reactor: Twisted's asyncio reactor; its clock is made monotonic.
    """

    def __init__(self, reactor: Any, config: RouterConfig) -> None:
        super().__init__()
        install_monotonic_clock(reactor)
        self._reactor = reactor
        self._config = config
        self._started_at = reactor.seconds()
        self._reload: Reload | None = None
        settings = config.settings
        # Chunk ids of one run must not meet those of an earlier one: milliseconds since 1970 leave
        # room for 2^20 ids a millisecond.
        first_chunk_id = (time.time_ns() // 1_000_000) << 20
        self.core = RouterCore(settings, reactor.seconds(), first_chunk_id)
        self.shell = RouterShell(reactor, self.core)
        self.node = HopNode(
            reactor, config.identity, Role.ROUTER, config.hop, self.shell, self.core.admit
        )
        redial = Redial(settings.guid, settings.neighbours, reactor.seconds())
        self.hop = HopService(reactor, self.node, config.file.router.listen, redial)
        self.management = ManagementService(config.file.router.control_listen, self)
        self.hop.setServiceParent(self)
        self.management.setServiceParent(self)
        self.registry = CollectorRegistry()
        self.registry.register(
            RouterCollector(
                self.core,
                lambda: self.node.stats() if self.is_listening else {},
                lambda: self.node.dropped if self.is_listening else {},
            )
        )
        ProcessCollector(registry=self.registry)

    @property
    def is_listening(self) -> bool:
        return bool(self.hop.running)

    def stopService(self) -> Deferred[Any]:
        stopped: Deferred[Any] = super().stopService()
        self.shell.stop()
        return stopped

    async def drain(self) -> None:
        """Take nothing more, let what is held leave, tell the sources of the rest."""
        self.core.start_draining()
        limit = self._reactor.seconds() + self._config.file.router.drain_limit_s
        await self._until_empty(limit)
        self.core.give_up_all()
        self.shell.changed()
        await self._until_empty(self._reactor.seconds() + REPORT_LIMIT_S)

    def reload(self) -> None:
        """Read the config again; take services, names, neighbours and hosts from it.

        A mistake in it is logged and changes nothing.
        """
        try:
            new = RouterConfig.load(self._config.path)
        except PacketCloudError as error:
            _log.error("config not read again, the old one stays: %s", error)
            self._reload = Reload(succeeded=False, detail=str(error))
            return
        old = self._config
        detail = "services, names, neighbours and hosts taken over"
        if new.file.router != old.file.router or new.identity.guid != old.identity.guid:
            detail += "; changes in [router] need a restart"
        file = new.file.model_copy(update={"router": old.file.router})
        self._config = RouterConfig(old.path, file, old.identity)
        settings = self._config.settings
        self.core.configure(settings, self._reactor.seconds())
        self.hop.redial.configure(settings.neighbours, self._reactor.seconds())
        self.shell.changed()
        self._reload = Reload(succeeded=True, detail=detail)
        _log.info("config read again: %s", detail)

    # --- api.RouterState ------------------------------------------------------------------------

    def health(self) -> Health:
        balance = self.core.book.conservation()["balance"]
        if balance:
            return Health(status="failing", detail=f"conservation sum is off by {balance} chunks")
        return Health(status="ok")

    def readiness(self) -> Health:
        if self.core.is_draining:
            return Health(status="failing", detail="draining")
        if not self.is_listening:
            return Health(status="failing", detail="not listening")
        return Health(status="ok")

    def info(self) -> Info:
        return view.info(
            self.core,
            version=_installed_version(),
            listen=format_address(self.hop.address),
            uptime_s=self._reactor.seconds() - self._started_at,
            hop=self.node.stats() if self.is_listening else {},
            reload=self._reload,
        )

    def neighbours(self) -> list[NeighbourInfo]:
        return view.neighbours(self.core)

    def services(self) -> list[ServiceInfo]:
        return view.services(self.core)

    def held_chunks(self, limit: int) -> HeldChunks:
        return view.held_chunks(self.core, self._reactor.seconds(), limit)

    def config(self) -> ConfigFile:
        return self._config.file

    # --- inside ---------------------------------------------------------------------------------

    async def _until_empty(self, limit: float) -> None:
        core = self.core
        while (core.book.held_count or core.reports) and self._reactor.seconds() < limit:
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
    asyncioreactor.install(loop)
    from twisted.internet import reactor as installed_reactor

    reactor: Any = installed_reactor
    observer = twisted_log.PythonLoggingObserver("packetcloud.twisted")
    observer.start()
    daemon = RouterDaemon(reactor, config)
    failures: list[PacketCloudError] = []
    signals_seen = 0

    def start() -> None:
        try:
            daemon.startService()
            started(daemon)
        except PacketCloudError as error:
            failures.append(error)
            reactor.stop()

    async def drain_and_stop() -> None:
        await daemon.drain()
        await stop()

    async def stop() -> None:
        await daemon.stopService()
        if reactor.running:
            reactor.stop()

    def terminate() -> None:
        nonlocal signals_seen
        signals_seen += 1
        if signals_seen == 1:
            _log.info("draining; once more to stop at once")
            ensureDeferred(drain_and_stop())
        elif signals_seen == 2:
            ensureDeferred(stop())

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminate)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    if failures:
        raise failures[0]


def format_address(address: tuple[str, int] | None) -> str:
    """Return HOST:PORT, an IPv6 host in brackets."""
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _installed_version() -> str:
    try:
        return version("packetcloud")
    except PackageNotFoundError:
        return "source tree"
