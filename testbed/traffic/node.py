"""What sender and receiver processes share: the reactor, a clean end, errors as events."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.log import PythonLoggingObserver

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.identity import Identity, load_identity_file
from packetcloud.chunk.names import GUID
from packetcloud.testbed.processes import emit_event

CONNECT_ATTEMPTS = 3

ANYWHERE = ("0.0.0.0/0", "::/0")
"""Where links are private, for nodes that need not seal."""

Address = tuple[str, int]


def install_reactor() -> Any:
    """Install the reactor that our daemons use, so that both are measured alike."""
    asyncioreactor.install()  # type: ignore[no-untyped-call]  # Twisted's
    from twisted.internet import reactor

    # What the hop logs, unhandled errors above all, is a child's last words.
    observe: Callable[[str], Any] = PythonLoggingObserver
    observe("packetcloud.twisted").start()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    return reactor


def hop_config(payload_bytes: int, *, is_open: bool) -> HopConfig:
    """The defaults, or with room for larger bodies where the payload asks for it.

    Args:
        is_open: every link is private, so that nothing is sealed if the neighbour says so, too.
    """
    default = HopConfig()
    return replace(
        default,
        max_body_bytes=max(default.max_body_bytes, payload_bytes + 2048),
        private_links=ANYWHERE if is_open else default.private_links,
    )


def run_node(reactor: Any, main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run `main` until it returns; an error becomes an event. Returns the exit code."""
    code = 0

    def finished(result: object) -> None:
        nonlocal code
        reactor.stop()
        error = getattr(result, "value", None)
        if error is None:
            return
        code = 2
        if isinstance(error, PacketCloudError | OSError):
            emit_event("error", text=str(error))
        else:
            result.printTraceback(sys.stderr)  # type: ignore[attr-defined]  # a Failure
            emit_event("error", text=f"{type(error).__name__}: {error}")

    reactor.callWhenRunning(lambda: ensureDeferred(main()).addBoth(finished))
    reactor.run(installSignalHandlers=False)
    return code


def terminated(reactor: Any) -> Deferred[None]:
    """Return a Deferred that fires at SIGTERM or SIGINT. Call once the reactor runs."""
    result: Deferred[None] = Deferred()

    for number in (signal.SIGTERM, signal.SIGINT):
        on_signal(reactor, number, lambda: fire(result))
    return result


def on_signal(reactor: Any, number: signal.Signals, function: Callable[[], None]) -> None:
    """Call `function` on the reactor's thread at every such signal."""
    signal.signal(number, lambda *_: reactor.callFromThread(function))


def fire(waited: Deferred[None]) -> None:
    """Fire a Deferred that may have been fired before."""
    if not waited.called:
        waited.callback(None)


def own_address(towards: Address) -> Address:
    """Where to bind a node that only calls out: on loopback, nobody outside can reach it."""
    return ("127.0.0.1" if towards[0].startswith("127.") else "0.0.0.0"), 0


def own_identity(key_file: Path | None) -> Identity:
    """Return the identity in a key file, or a new one."""
    return load_identity_file(key_file) if key_file is not None else Identity.generate()


def parse_address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def parse_guid(text: str) -> GUID:
    return GUID.from_hex(text)


def now_s() -> float:
    """CLOCK_MONOTONIC, the clock of every event."""
    return time.monotonic()
