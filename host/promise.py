"""An awaitable for both worlds: a Twisted Deferred that asyncio tasks can await too.

A plain Deferred fails in a task ("Task got bad yield"), a plain future in a Twisted coroutine. What
is yielded here is a `_Bridge`: a Deferred to Twisted, a future to asyncio by the duck type that
asyncio documents (`asyncio.isfuture`). `asyncio.gather` and `wait_for` take a promise as well.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Promise(Deferred[T]):
    """A result that comes later; may be awaited more than once, by either kind of coroutine."""

    def __init__(self, canceller: Callable[[Deferred[Any]], None] | None = None) -> None:
        super().__init__(canceller)
        self._value: T | None = None
        self._failure: Failure | None = None
        self._is_kept = False
        self._bridges: list[_Bridge] = []
        self.addCallbacks(self._keep_value, self._keep_failure)

    @classmethod
    def from_coroutine(cls, coroutine: Coroutine[Deferred[Any], Any, T]) -> Promise[T]:
        """Run a Twisted coroutine; the promise is its result, cancelling goes on to it."""
        inner: Deferred[T] = Deferred.fromCoroutine(coroutine)
        promise: Promise[T] = Promise(lambda _: inner.cancel())
        inner.addCallbacks(promise.callback, promise.errback)
        return promise

    @classmethod
    def of(cls, value: T) -> Promise[T]:
        """Return a promise that is kept already."""
        promise: Promise[T] = Promise()
        promise.callback(value)
        return promise

    @property
    def is_kept(self) -> bool:
        """Whether it has its value or failure."""
        return self._is_kept

    def value_now(self) -> T:
        """Return the value, or raise what the promise failed with; only once it is kept."""
        assert self._is_kept, "ask is_kept first"
        if self._failure is not None:
            self.addErrback(_seen)
            self._failure.raiseException()
        return self._value  # type: ignore[return-value]  # set whenever there is no failure

    def __await__(self) -> Generator[Deferred[Any], Any, T]:
        if not self._is_kept:
            bridge = _Bridge(self)
            self._bridges.append(bridge)
            yield bridge
        return self.value_now()

    def _keep_value(self, value: T) -> T:
        self._value = value
        self._wake()
        return value

    def _keep_failure(self, failure: Failure) -> Failure | None:
        self._failure = failure
        return None if self._wake() else failure  # who awaits it gets it; else Twisted logs it

    def _wake(self) -> bool:
        self._is_kept = True
        bridges, self._bridges = self._bridges, []
        for bridge in bridges:
            bridge.fire()
        return bool(bridges)


class _Bridge(Deferred[Callable[[], None]]):
    """Wakes one awaiting coroutine. Its value is a function that does nothing: asyncio calls
    `future.result()`, and Deferred keeps its value in the attribute `result`."""

    def __init__(self, promise: Promise[Any]) -> None:
        super().__init__()
        self._promise = promise
        self._asyncio_future_blocking = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup: tuple[Callable[[Any], object], contextvars.Context | None] | None = None

    def fire(self) -> None:
        self.callback(_nothing)
        if self._wakeup is not None:
            callback, context = self._wakeup
            self.get_loop().call_soon(callback, self, context=context)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        self._wakeup = (callback, context)

    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]  # asyncio's signature
        """Cancel the promise. False tells a task to raise `CancelledError` when it wakes up."""
        self._promise.cancel()
        return False


def _nothing() -> None:
    return None


def _seen(_: Failure) -> None:
    """Keep Twisted from logging a failure that was raised to whoever awaited it."""
