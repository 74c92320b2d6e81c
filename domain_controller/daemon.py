"""The domain controller as a process: state, API and what watches it, on one asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from packetcloud.chunk.http_api import KEEP_ALIVE_S
from packetcloud.domain_controller.api.app import DomainApp, make_app, make_watch_app
from packetcloud.domain_controller.api.kept import KeptDomain
from packetcloud.domain_controller.channel.endpoint import ChannelEndpoint
from packetcloud.domain_controller.channel.frames import MAX_FRAME_BYTES
from packetcloud.domain_controller.channel.hub import Hub
from packetcloud.domain_controller.channel.kept import KeptChannel
from packetcloud.domain_controller.config import DomainConfig
from packetcloud.domain_controller.enrolment import enrol
from packetcloud.domain_controller.errors import DomainConfigError
from packetcloud.domain_controller.housekeeping import Housekeeping
from packetcloud.domain_controller.metrics import ChannelCollector, DomainCollector
from packetcloud.domain_controller.state.database import Database, with_password
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.writer import Writer

THREADS_COUNT = 16
"""Threads that read, and check signatures by keys that are not known; the database has eight
connections for them."""
MAX_HEADER_BYTES = 16 << 10
"""Of a request: signatures have about 1 KiB."""
PING_EVERY_S = 20.0
"""A channel whose other end is gone without a word is noticed after twice as long."""
CLOSE_WITHIN_S = 5.0
"""So long open requests may take to their end when the controller stops."""
_log = logging.getLogger("packetcloud.domain")
_REFUSED_WEBSOCKET = "ASGI callable returned without completing handshake."
"""uvicorn takes a WebSocket that was refused with an answer for a fault of ours."""


class DomainDaemon:
    """One domain controller."""

    def __init__(self, config: DomainConfig) -> None:
        self.config = config
        self.url = ""
        self.watch_url = ""
        self._ended = asyncio.Event()

    async def run(self, started: Callable[[DomainDaemon], None]) -> None:
        """Run until a signal or `stop` ends it.

        Args:
            started: called once when both ports are open.

        Raises:
            DomainConfigError: a port or a file cannot be had.
            StateConfigError: the database cannot be used.
        """
        config = self.config
        threads = ThreadPoolExecutor(THREADS_COUNT, thread_name_prefix="read")
        asyncio.get_running_loop().set_default_executor(threads)
        async with contextlib.AsyncExitStack() as stack:
            # Before anything is kept: who finds a port taken leaves nothing behind.
            listener = stack.enter_context(_listener(*config.listen, "[api] listen"))
            watch_listener = stack.enter_context(
                _listener(*config.metrics_listen, "[api] metrics_listen")
            )
            database = await asyncio.to_thread(
                Database, with_password(config.database_url, config.password())
            )
            stack.callback(database.close)
            with database.reading() as connection:
                reports = Reports(connection)
            writer = Writer(database, clock_ms)
            stack.callback(writer.close)
            await enrol(config, writer)
            state = KeptDomain(database, writer, reports, lambda: secrets.token_hex(10), clock_ms)
            housekeeping = Housekeeping(database, writer, state, reports)
            keeping = asyncio.create_task(housekeeping.run())
            # Without it nothing that was promised would happen: by a fault of ours all ends.
            keeping.add_done_callback(lambda _: self._ended.set())
            stack.push_async_callback(_cancelled, keeping)
            channels = KeptChannel(housekeeping.name, database, writer, state, reports)
            hub = Hub(channels, config.file.channel.max_cloudlets)
            looking = asyncio.create_task(hub.run())
            looking.add_done_callback(lambda _: self._ended.set())  # as above
            stack.push_async_callback(_cancelled, looking)
            endpoint = ChannelEndpoint(
                channels,
                hub,
                config.file.domain.name,
                clock_ms,
                config.file.channel.report_every_ms,
            )
            host, port = listener.getsockname()[:2]
            made = make_app(
                state,
                domain=config.file.domain.name,
                version=_version(),
                authorities=config.authorities(port),
                clock_ms=clock_ms,
                max_requests=config.file.api.max_requests,
                max_streams=config.file.api.max_event_streams,
                channel=endpoint.open,
            )
            await stack.enter_async_context(
                _serving(made.gate, listener, **self._tls(), limit=2 * made.gate.most + hub.most)
            )
            stack.callback(made.feed.end)
            watch = make_watch_app(lambda: _wrong(database), _registry(made, writer, reports, hub))
            watch_at = watch_listener.getsockname()[:2]
            await stack.enter_async_context(_serving(watch, watch_listener, limit=64))
            self.url = _url("https" if config.has_tls else "http", host, port)
            self.watch_url = _url("http", *watch_at)
            self._await_signals()
            started(self)
            await self._ended.wait()

    def stop(self) -> None:
        """End in good order; what was answered is on disk."""
        self._ended.set()

    def _tls(self) -> dict[str, Any]:
        api = self.config.file.api
        if api.certificate is None or api.key is None:
            return {}
        return {
            "ssl_certfile": str(self.config.within(api.certificate)),
            "ssl_keyfile": str(self.config.within(api.key)),
        }

    def _await_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # in a test's thread; there `stop` ends it
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)


def run_domain(config: DomainConfig, started: Callable[[DomainDaemon], None]) -> None:
    """Run a domain controller in this process until a signal ends it.

    Raises:
        DomainConfigError: it cannot start.
        StateConfigError: the database cannot be used.
    """

    async def run() -> None:
        await DomainDaemon(config).run(started)

    asyncio.run(run())


def clock_ms() -> int:
    """Return milliseconds since 1970: slots and bills are about the time of people."""
    return time.time_ns() // 1_000_000


def _registry(made: DomainApp, writer: Writer, reports: Reports, hub: Hub) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(DomainCollector(made, writer.figures, reports, clock_ms))
    registry.register(ChannelCollector(hub))
    ProcessCollector(registry=registry)
    return registry


def _wrong(database: Database) -> str | None:
    health = database.health()
    return None if health.is_up else f"the database does not answer: {health.detail}"


@contextlib.contextmanager
def _listener(host: str, port: int, where: str) -> Iterator[socket.socket]:
    """Open a port; whoever serves on it closes it.

    Raises:
        DomainConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise DomainConfigError(
            f"{where} = '{host}:{port}': {error.strerror or error}; allowed: a free TCP port of "
            "this machine"
        ) from None
    try:
        yield listener
    except BaseException:  # also a cancelled start: nobody else closes it
        listener.close()
        raise


@contextlib.asynccontextmanager
async def _serving(
    app: ASGIApp, listener: socket.socket, *, limit: int, **tls: Any
) -> AsyncIterator[None]:
    """Serve an app on the running loop.

    Raises:
        DomainConfigError: the certificate or its key cannot be used.
    """
    config = uvicorn.Config(
        app,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        http="h11",
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        ws_ping_interval=PING_EVERY_S,
        ws_ping_timeout=PING_EVERY_S,
        ws_per_message_deflate=False,
        limit_concurrency=limit,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(CLOSE_WITHIN_S),
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        **tls,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise DomainConfigError(
            f"[api] certificate, key: {error.strerror or error}; allowed: a certificate in PEM and "
            "the key that belongs to it"
        ) from None
    logging.getLogger("uvicorn.error").addFilter(_is_no_refusal)
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_no_refusal(record: logging.LogRecord) -> bool:
    return record.msg != _REFUSED_WEBSOCKET


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _version() -> str:
    try:
        return version("packetcloud")
    except PackageNotFoundError:
        return "source tree"
