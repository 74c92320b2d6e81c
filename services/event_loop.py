"""The event loop of a process: asyncio, with Twisted's reactor on it and a monotonic clock."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Any


def install_reactor() -> tuple[asyncio.AbstractEventLoop, Any]:
    """Make a loop, install Twisted's reactor on it, and return both; once per process."""
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    install: Callable[[asyncio.AbstractEventLoop], None] = asyncioreactor.install
    install(loop)
    # Only now may anything import the reactor.
    from twisted.internet import reactor
    from twisted.python.log import PythonLoggingObserver

    from packetcloud.chunk.hop.clock import install_monotonic_clock

    install_monotonic_clock(reactor)
    # What Twisted and the hop have to say goes where our own log goes, unhandled errors included.
    observe: Callable[[str], Any] = PythonLoggingObserver
    observe("packetcloud.twisted").start()
    return loop, reactor


def run_reactor(
    loop: asyncio.AbstractEventLoop,
    reactor: Any,
    start: Callable[[], None],
    on_signal: Mapping[signal.Signals, Callable[[], None]],
) -> None:
    """Run until the reactor is stopped; `start` is called first, on the running loop."""
    for number, call in on_signal.items():
        loop.add_signal_handler(number, call)
    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
