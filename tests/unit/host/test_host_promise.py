"""A promise is the same thing to Twisted code and to asyncio code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks

from packetcloud.host.promise import Promise


def test_twisted_coroutine_gets_the_value() -> None:
    """`await` in a Twisted coroutine returns the value, with no asyncio loop anywhere."""
    promise: Promise[int] = Promise()

    async def wait() -> int:
        return await promise

    got: list[int] = []
    Deferred.fromCoroutine(wait()).addCallback(got.append)
    assert got == []
    promise.callback(7)
    assert got == [7]


def test_inline_callbacks_and_add_callback_get_the_value() -> None:
    """The Deferred interface works as ever."""
    promise: Promise[int] = Promise()
    got: list[int] = []

    @inlineCallbacks
    def wait() -> Any:
        got.append((yield promise))

    wait()
    promise.addCallback(lambda _: got.append(8))
    promise.callback(7)
    assert got == [7, 8]


def test_asyncio_task_gets_the_value() -> None:
    """`await` in an asyncio task returns the value; a second `await` returns it again."""

    async def main() -> list[int]:
        promise: Promise[int] = Promise()
        asyncio.get_running_loop().call_soon(promise.callback, 7)
        return [await promise, await promise]

    assert asyncio.run(main()) == [7, 7]


def test_asyncio_gather_and_wait_for_take_promises() -> None:
    """The usual combinators accept promises."""

    async def main() -> list[int]:
        one: Promise[int] = Promise()
        two: Promise[int] = Promise()
        loop = asyncio.get_running_loop()
        loop.call_soon(one.callback, 1)
        loop.call_later(0.001, two.callback, 2)
        return await asyncio.wait_for(asyncio.gather(one, two), 5)

    assert asyncio.run(main()) == [1, 2]


def test_failure_is_raised_on_both_sides() -> None:
    """What the promise fails with is raised where it is awaited."""
    promise: Promise[int] = Promise()

    async def wait() -> int:
        return await promise

    failures: list[type[BaseException]] = []
    Deferred.fromCoroutine(wait()).addErrback(lambda f: failures.append(f.type))
    promise.errback(ValueError("no"))
    assert failures == [ValueError]

    async def main() -> None:
        broken: Promise[int] = Promise()
        asyncio.get_running_loop().call_soon(broken.errback, ValueError("no"))
        await broken

    with pytest.raises(ValueError, match="no"):
        asyncio.run(main())


def test_cancelling_an_asyncio_task_cancels_the_promise() -> None:
    """The canceller runs, and the task ends with asyncio's own CancelledError."""
    cancelled: list[Deferred[int]] = []

    async def main() -> bool:
        promise: Promise[int] = Promise(cancelled.append)

        async def wait() -> int:
            return await promise

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False

    assert asyncio.run(main())
    assert len(cancelled) == 1


def test_cancelling_a_twisted_coroutine_cancels_the_promise() -> None:
    """The canceller runs, and the coroutine sees Twisted's CancelledError."""
    cancelled: list[Deferred[int]] = []
    promise: Promise[int] = Promise(cancelled.append)
    inner: Promise[int] = Promise.from_coroutine(_awaiting(promise))
    errors: list[type[BaseException]] = []
    inner.addErrback(lambda f: errors.append(f.type))
    inner.cancel()
    assert len(cancelled) == 1
    assert errors == [CancelledError]


async def _awaiting(promise: Promise[int]) -> int:
    return await promise


def test_twisted_coroutine_started_inside_an_asyncio_task() -> None:
    """Which kind of coroutine awaits is found out by who drives it, not by what happens to run."""

    async def main() -> int:
        promise: Promise[int] = Promise()
        outer: Promise[int] = Promise.from_coroutine(_awaiting(promise))
        asyncio.get_running_loop().call_soon(promise.callback, 9)
        return await outer

    assert asyncio.run(main()) == 9
