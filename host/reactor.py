"""What the host room needs of a Twisted reactor, and a private one for scripts and commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet.asyncioreactor import AsyncioSelectorReactor


class DelayedCall(Protocol):
    """A call that `callLater` scheduled."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """The part of a reactor that tests replace by `twisted.internet.task.Clock`."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any) -> DelayedCall: ...


class Reactor(Clock, Protocol):
    """A whole reactor: clock, threads and its main loop."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None: ...

    def getThreadPool(self) -> Any: ...

    def addSystemEventTrigger(
        self, phase: str, event: str, function: Callable[..., Any], *args: Any
    ) -> Any: ...

    def run(self, installSignalHandlers: bool = True) -> None: ...  # noqa: N803

    def stop(self) -> None: ...

    def close(self) -> None: ...


class _PrivateReactor(AsyncioSelectorReactor):
    """A reactor that owns its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._loop = loop

    def close(self) -> None:
        """Give back what the loop holds; nothing may call the reactor any more.

        Left to the collector, the loop may find its own sockets closed, and prints a traceback.
        """
        self._loop.close()


def new_reactor() -> Reactor:
    """Make an asyncio reactor of its own, with a monotonic clock and a loop nobody else uses.

    Not the global one: a program may run several, each in its own thread, and no import decides
    which kind is installed. Whoever makes one closes it when it no longer runs.
    """
    from packetcloud.chunk.hop.clock import install_monotonic_clock

    loop = asyncio.new_event_loop()
    reactor = _PrivateReactor(loop)
    install_monotonic_clock(reactor)
    return cast(Reactor, reactor)
