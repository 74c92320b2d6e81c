"""A runtime on a real hop node over loopback, against a router that gives tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import ensureDeferred

from packetcloud.chunk.hop.api import HopConfig, HopReceiver, Role
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.reasons import Reason
from packetcloud.services.launch import LaunchSpec
from packetcloud.services.runtime import HopNodeLike, ServiceRuntime
from packetcloud.services.sdk import ChunkContext, NetworkService, ServiceChunk, Verdict
from tests.functional.service_router import TaskRouter

LIMIT_S = 30.0
MEBIBYTE = 1 << 20


class Reverser(NetworkService):
    """Answers with the payload's bytes inverted, from an output buffer."""

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        output = context.output_buffer(len(chunk.payload))
        output[:] = bytes(chunk.payload)[::-1]
        return Verdict.update(output)


class Pausing(NetworkService):
    """Forwards a turn of the event loop later, several chunks at once."""

    async def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        await asyncio.sleep(0)
        return Verdict.forward()


def run(test: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on a reactor of its own."""
    loop = asyncio.new_event_loop()
    try:
        reactor = AsyncioSelectorReactor(loop)
        deferred = ensureDeferred(test(reactor))
        loop.run_until_complete(asyncio.wait_for(deferred.asFuture(loop), LIMIT_S))
    finally:
        loop.close()


def runtime(reactor: Any, router: str, service: NetworkService, **spec: Any) -> ServiceRuntime:
    host, _, port = router.rpartition(":")
    identity = Identity.generate()

    def make_node(receiver: HopReceiver) -> HopNodeLike:
        return HopNode(reactor, identity, Role.SERVICE, HopConfig(), receiver)

    launch = LaunchSpec("tested", "1.0.0", "x:X", "/k", host, int(port), **spec)
    return ServiceRuntime(reactor, launch, service, identity.sid, make_node)


def test_chunks_of_all_sizes_are_processed() -> None:
    """From nothing to 1 MiB, each verdict carries exactly what `process` made of its chunk."""

    async def test(reactor: Any) -> None:
        router = TaskRouter(reactor)
        served = runtime(reactor, router.start(), Reverser())
        served.start()
        await router.until(lambda: router.services)
        payloads = [os.urandom(size) for size in (0, 1, 1000, 5000, 70_000, MEBIBYTE)]
        ids = [router.give(payload) for payload in payloads]
        await router.until(lambda: len(router.verdicts) == len(ids))
        for task_id, payload in zip(ids, payloads, strict=True):
            head, output = router.verdicts[task_id]
            assert head.code is VerdictCode.UPDATE
            assert output == payload[::-1]
            assert head.processing_ns > 0
        await served.stop()
        await router.stop()

    run(test)


def test_in_a_steady_state_no_output_buffer_is_allocated() -> None:
    """What 40 chunks of 1 MiB use was allocated for the first few in flight."""

    async def test(reactor: Any) -> None:
        router = TaskRouter(reactor)
        served = runtime(reactor, router.start(), Reverser())
        served.start()
        await router.until(lambda: router.services)
        payload = os.urandom(MEBIBYTE)
        for _ in range(40):
            await router.verdict(payload)
        assert served.status()["output_buffers"] <= 2
        assert served.status()["answered"] == {"update": 40}
        await served.stop()
        await router.stop()

    run(test)


def test_a_router_that_comes_back_has_its_service_again() -> None:
    """The runtime attaches by itself, and goes on."""

    async def test(reactor: Any) -> None:
        first = TaskRouter(reactor)
        address = first.start()
        served = runtime(reactor, address, Reverser())
        served.start()
        await first.until(lambda: first.services)
        await first.verdict(b"abc")
        await first.stop()
        second = TaskRouter(reactor)
        second.start(int(address.rpartition(":")[2]))
        await second.until(lambda: second.services)
        assert (await second.verdict(b"abc"))[1] == b"cba"
        assert served.status()["attached_count"] == 2
        await served.stop()
        await second.stop()

    run(test)


def test_a_router_with_another_key_is_not_served() -> None:
    """With --router-guid a service attaches to that router only."""

    async def test(reactor: Any) -> None:
        router = TaskRouter(reactor)
        expected = Identity.generate().guid.hex
        served = runtime(reactor, router.start(), Reverser(), router_guid=expected)
        served.start()
        await router.until(lambda: served.status()["connect_error"])
        assert router.attached_count == 0
        await served.stop()
        await router.stop()

    run(test)


def test_coroutines_are_served_on_the_same_loop() -> None:
    """`async def process` may use asyncio; nothing is lost at an orderly end."""

    async def test(reactor: Any) -> None:
        router = TaskRouter(reactor)
        served = runtime(reactor, router.start(), Pausing(), concurrency=4)
        served.start()
        await router.until(lambda: router.services)
        ids = [router.give(b"x") for _ in range(20)]
        await router.until(lambda: len(router.verdicts) >= 5)
        await served.stop()
        await router.until(lambda: len(router.verdicts) + len(router.refused) == len(ids))
        assert {head.code for head, _ in router.verdicts.values()} == {VerdictCode.FORWARD}
        assert set(router.refused.values()) <= {Reason.SHUTTING_DOWN}
        await router.stop()

    run(test)
