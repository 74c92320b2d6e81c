"""Runs one service in this process until a signal ends it: the reactor, the key, the hop node.

Used by `child` inside a VI, and by `service run --isolation none` in the command's own process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packetcloud.chunk.errors import IdentityError, LocalMisuseError
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.launch import LaunchSpec

BEAT_INTERVAL_S = 1.0
"""The supervisor hears from a service so often; silence means that it hangs."""
EXIT_FINE = 0
EXIT_CRASH = 1
EXIT_CONFIG = 2
"""The same configuration would fail again: the supervisor does not restart."""

Report = Callable[[dict[str, Any]], None]


def host_service(spec: LaunchSpec, report: Report) -> int:
    """Run the service of `spec` and return an exit code.

    Args:
        report: gets `{"event": "ready" | "status" | "stopped" | "error", ...}`; must not block.
    """
    try:
        return _Host(spec, report).run()
    except (ServiceConfigError, IdentityError, LocalMisuseError) as error:
        report({"event": "error", "text": str(error)})
        return EXIT_CONFIG


class _Host:
    """The reactor around one ServiceRuntime."""

    def __init__(self, spec: LaunchSpec, report: Report) -> None:
        from twisted.internet import asyncioreactor

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        asyncioreactor.install(self._loop)
        # The reactor must be installed before anything imports it.
        from twisted.internet import reactor

        from packetcloud.chunk.hop.api import HopConfig, HopReceiver, Role
        from packetcloud.chunk.hop.clock import install_monotonic_clock
        from packetcloud.chunk.hop.udp import HopNode
        from packetcloud.chunk.identity import load_identity_file
        from packetcloud.services.loading import load_service
        from packetcloud.services.runtime import HopNodeLike, ServiceRuntime

        install_monotonic_clock(reactor)
        self._reactor: Any = reactor
        self._report = report
        self._failure: BaseException | None = None
        self._is_stopping = False
        identity = load_identity_file(Path(spec.key_file))

        def make_node(receiver: HopReceiver) -> HopNodeLike:
            return HopNode(
                reactor,
                identity,
                Role.SERVICE,
                HopConfig(),
                receiver,
                lambda guid, role: "a service takes no inbound neighbours",
            )

        self._runtime = ServiceRuntime(
            reactor,
            spec,
            load_service(spec.entry_point, spec.search_path),
            identity.sid,
            make_node,
            on_change=self._beat,
        )

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop)
        self._reactor.callWhenRunning(self._start)
        self._reactor.run(installSignalHandlers=False)
        if isinstance(self._failure, ServiceConfigError):
            raise self._failure
        if self._failure is not None:
            logging.getLogger("packetcloud.service").error("failed", exc_info=self._failure)
            self._report({"event": "error", "text": f"{self._failure!r}"})
            return EXIT_CRASH
        self._report({"event": "stopped"})
        return EXIT_FINE

    def stop(self) -> None:
        """Begin an orderly end; a second call changes nothing."""
        from twisted.internet.defer import ensureDeferred

        if not self._is_stopping:
            self._is_stopping = True
            ensureDeferred(self._stop())

    def _start(self) -> None:
        try:
            self._runtime.start()
        except Exception as error:  # an author's `start` may raise anything
            self._failure = error
            self._reactor.stop()
            return
        self._report({"event": "ready"})
        self._beat_again()

    async def _stop(self) -> None:
        try:
            await self._runtime.stop()
        except Exception as error:  # an author's `stop` or `export_state` may raise anything
            self._failure = error
        self._reactor.stop()

    def _beat_again(self) -> None:
        self._beat()
        self._reactor.callLater(BEAT_INTERVAL_S, self._beat_again)

    def _beat(self) -> None:
        self._report({"event": "status", "status": self._runtime.status()})
