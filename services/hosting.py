"""Runs one service in this process until a signal ends it: the reactor, the key, the hop node.

Used by `child` and `vi` inside a VI, and by `service run --isolation none` in the command's own
process.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from packetcloud.chunk.errors import IdentityError, LocalMisuseError
from packetcloud.chunk.header import DEFAULT_MAX_PAYLOAD_BYTES
from packetcloud.chunk.hop.api import HopConfig, HopReceiver, Role
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.event_loop import install_reactor, run_reactor
from packetcloud.services.launch import EXIT_CONFIG, EXIT_CRASH, EXIT_FINE, LaunchSpec
from packetcloud.services.state_dir import StatusFile

if TYPE_CHECKING:
    from packetcloud.chunk.identity import Identity
    from packetcloud.services.runtime import ServiceRuntime

BEAT_INTERVAL_S = 1.0
"""The supervisor hears from a service so often; silence means that it hangs."""

Report = Callable[[dict[str, Any]], None]


class HostedService(Protocol):
    """A service that runs in this process, for who looks after it."""

    reactor: Any
    runtime: ServiceRuntime

    def stop(self) -> None:
        """Begin an orderly end; a second call changes nothing."""


def host_service(
    spec: LaunchSpec,
    report: Report,
    identity: Identity | None = None,
    attend: Callable[[HostedService], None] | None = None,
) -> int:
    """Run the service of `spec` and return an exit code.

    Args:
        report: gets `{"event": "ready" | "status" | "stopped" | "error", ...}`; must not block.
        identity: the service's key; None: it is in the file that `spec` names.
        attend: called on the running reactor, before the service starts.
    """
    try:
        return _Host(spec, report, identity, attend).run()
    except (ServiceConfigError, IdentityError, LocalMisuseError) as error:
        report({"event": "error", "text": str(error)})
        return EXIT_CONFIG


def host_with_status(
    spec: LaunchSpec, status_file: StatusFile, facts: dict[str, Any]
) -> tuple[int, str]:
    """Run the service in this process, unsupervised, with a status file like a supervised one.

    Returns: the exit code, and what the operator should know when it is not 0.
    """
    replica: dict[str, Any] = {"replica": 0, "state": "starting", "pid": os.getpid()}
    texts = [""]

    def report(message: dict[str, Any]) -> None:
        match message:
            case {"event": "status", "status": dict(status)}:
                replica.update(status)
            case {"event": "ready"}:
                replica["state"] = "running"
            case {"event": "error", "text": str(text)}:
                texts[0] = text
        status_file.write(facts | {"isolation": "none", "replicas": [replica]})

    logging.getLogger("packetcloud.service").warning(
        "isolation 'none': no limits, no restart, no boundary; for debugging"
    )
    try:
        return host_service(spec, report), texts[0]
    finally:
        status_file.remove()


def _hop_config(spec: LaunchSpec) -> HopConfig:
    """Return the hop's settings: room for the largest payload, what services add to it, headers."""
    default = HopConfig()
    body_bytes = spec.max_payload_bytes + default.max_body_bytes - DEFAULT_MAX_PAYLOAD_BYTES
    return HopConfig(
        max_body_bytes=body_bytes,
        credit_bytes=max(default.credit_bytes, 4 * body_bytes),
        private_links=spec.private_links,
        instance=spec.instance,
    )


class _Host:
    """The reactor around one ServiceRuntime."""

    def __init__(
        self,
        spec: LaunchSpec,
        report: Report,
        identity: Identity | None,
        attend: Callable[[HostedService], None] | None,
    ) -> None:
        self._loop, self.reactor = install_reactor()
        from packetcloud.chunk.hop.udp import HopNode
        from packetcloud.chunk.identity import load_identity_file
        from packetcloud.services.loading import load_service
        from packetcloud.services.runtime import HopNodeLike, ServiceRuntime

        self._report = report
        self._failure: BaseException | None = None
        self._is_stopping = False
        self._attend = attend
        key = identity or load_identity_file(Path(spec.key_file))

        def make_node(receiver: HopReceiver) -> HopNodeLike:
            node: HopNodeLike = HopNode(
                self.reactor,
                key,
                Role.SERVICE,
                _hop_config(spec),
                receiver,
                lambda guid, role, instance: "a service takes no inbound neighbours",
                lanes=Path(spec.lanes) if spec.lanes is not None else None,
            )
            return node

        self.runtime = ServiceRuntime(
            self.reactor,
            spec,
            load_service(spec.entry_point, spec.search_path),
            key.sid,
            make_node,
            on_change=self._beat,
        )

    def run(self) -> int:
        # SIGPWR is how a container's init is asked to end.
        ends = (signal.SIGTERM, signal.SIGINT, signal.SIGPWR)
        on_signal = dict.fromkeys(ends, self.stop)
        run_reactor(self._loop, self.reactor, self._start, on_signal)
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
        if self._attend is not None:
            self._attend(self)
        try:
            self.runtime.start()
        except Exception as error:  # an author's `start` may raise anything
            self._failure = error
            self.reactor.stop()
            return
        # What is loaded by now stays: the collector need not look at it again. A full collection
        # took 39 ms, as long as thirty chunks of 1 MiB through AES; afterwards it takes none.
        gc.collect()
        gc.freeze()
        self._report({"event": "ready"})
        self._beat_again()

    async def _stop(self) -> None:
        try:
            await self.runtime.stop()
        except Exception as error:  # an author's `stop` or `export_state` may raise anything
            self._failure = error
        self.reactor.stop()

    def _beat_again(self) -> None:
        self._beat()
        self.reactor.callLater(BEAT_INTERVAL_S, self._beat_again)

    def _beat(self) -> None:
        self._report({"event": "status", "status": self.runtime.status()})
