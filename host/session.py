"""Running a host command: one coroutine on a reactor in this thread, stopped cleanly by Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import provider

from packetcloud.host.errors import HostError
from packetcloud.host.reactor import Reactor, new_reactor

T = TypeVar("T")
_LEVELS = (LogLevel.warn, LogLevel.error, LogLevel.critical)
FORCE_COUNT = 2
"""The second Ctrl-C does not wait for a clean end."""


class InterruptedSessionError(HostError):
    """Ctrl-C or SIGTERM; what had been started was put away before this was raised."""


def warnings_to(tell: Callable[[str], None]) -> None:
    """Pass what the reactor's code logs as warning or worse to `tell`, one line each."""

    def observe(event: LogEvent) -> None:
        if event.get("log_level") in _LEVELS:
            failure = event.get("log_failure")
            text = formatEvent(event)
            tell(f"{text}: {failure.getErrorMessage()}" if failure is not None else text)

    observers: Any = [provider(ILogObserver)(observe)]
    globalLogBeginner.beginLoggingTo(observers, discardBuffer=True, redirectStandardIO=False)


def run_session(main: Callable[[Reactor], Coroutine[Deferred[Any], Any, T]]) -> T:
    """Run `main(reactor)` until it returns, and return its value; call it on the main thread.

    A signal cancels the coroutine, which cleans up in its `finally` blocks.

    Raises:
        InterruptedSessionError: a signal came. Else whatever `main` raises.
    """
    reactor = new_reactor()
    ended: list[T | Failure] = []
    tasks: list[Deferred[T]] = []
    signals_count = 0

    def start() -> None:
        task = Deferred.fromCoroutine(main(reactor))
        tasks.append(task)
        task.addBoth(ended.append)
        task.addBoth(lambda _: reactor.stop())

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        nonlocal signals_count
        signals_count += 1
        if signals_count >= FORCE_COUNT:
            reactor.callFromThread(reactor.stop)
        else:
            reactor.callFromThread(cancel)

    before = {
        number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        reactor.callFromThread(start)
        reactor.run(installSignalHandlers=False)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        reactor.close()
    if signals_count:
        raise InterruptedSessionError("stopped")
    (value,) = ended
    if isinstance(value, Failure):
        if isinstance(value.value, CancelledError):
            raise InterruptedSessionError("stopped")
        value.raiseException()
    return value
