"""The WAN optimizer between two routers: chunks through compress at one and decompress at the
other, over real sockets, while one of the two is restarted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from packetcloud.chunk.hop.api import HopConfig, HopReceiver, Role
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.promise import Promise
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.router.daemon import RouterDaemon
from packetcloud.services.catalogue import find_service
from packetcloud.services.launch import LaunchSpec
from packetcloud.services.runtime import HopNodeLike, ServiceRuntime
from packetcloud.services.wan_optimizer.service import WanOptimizer
from tests.functional.router_network import Network, run
from tests.unit.services.wan_link import edited, text

MANIFEST = find_service("wan-optimizer").manifest
CHUNK_BYTES = 64 << 10


class Watched(WanOptimizer):
    """One that can be asked what it made."""

    made_bytes = 0
    lacking_count = 0

    def process(self, chunk: Any, context: Any) -> Any:
        verdict = super().process(chunk, context)
        self.made_bytes += len(verdict.payload)
        self.lacking_count += verdict.again
        return verdict


class Place:
    """Two routers, a host at each, compress at the first and decompress at the second."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.ahead_key, self.behind_key = Identity.generate(), Identity.generate()
        self.source, self.target = Identity.generate(), Identity.generate()
        first, second = net.key("r1"), net.key("r2")
        ahead, behind = (
            f'[[service]]\nsid = "{key.sid}"\nname = "{name}"\ngrace_s = 10\n'
            for name, key in (("ahead", self.ahead_key), ("behind", self.behind_key))
        )
        self.r2 = net.start(
            net.config(
                "r2",
                behind
                + f'[[neighbour]]\nguid = "{first.guid}"\nna = 1\n'
                + "".join(
                    f'[[name]]\nguid = "{guid}"\nna = 1\n'
                    for guid in (self.ahead_key.sid, self.source.guid)
                ),
                na=2,
            )
        )
        assert self.r2.hop.address is not None
        self.r1 = net.start(
            net.config(
                "r1",
                ahead + f'[[neighbour]]\nguid = "{second.guid}"\nna = 2\n'
                f'address = "127.0.0.1:{self.r2.hop.address[1]}"\n'
                + "".join(
                    f'[[name]]\nguid = "{guid}"\nna = 2\n'
                    for guid in (self.behind_key.sid, self.target.guid)
                ),
            )
        )
        self.ahead = self.start_ahead()
        self.behind = self.start_behind()

    def start_ahead(self) -> tuple[ServiceRuntime, Watched]:
        return self._start(
            self.r1, self.ahead_key, direction="compress", peer=self.behind_key.sid.hex
        )

    def start_behind(self) -> tuple[ServiceRuntime, Watched]:
        return self._start(
            self.r2, self.behind_key, direction="decompress", peer=self.ahead_key.sid.hex
        )

    async def close(self) -> None:
        for runtime, _ in (self.ahead, self.behind):
            await runtime.stop()
        await self.net.close()

    def _start(
        self, router: RouterDaemon, key: Identity, **settings: str
    ) -> tuple[ServiceRuntime, Watched]:
        assert router.hop.address is not None

        def make_node(receiver: HopReceiver) -> HopNodeLike:
            return HopNode(self.net.reactor, key, Role.SERVICE, HopConfig(instance=1), receiver)

        spec = LaunchSpec(
            "wan-optimizer",
            "2.0.0",
            MANIFEST.service.entry_point,
            "/key",
            *router.hop.address,
            parameters=MANIFEST.resolve(settings),
            max_expansion_ratio=MANIFEST.behaviour.max_expansion_ratio,
        )
        service = Watched()
        runtime = ServiceRuntime(self.net.reactor, spec, service, key.sid, make_node)
        runtime.start()
        return runtime, service


class Ends:
    """A host at each router. What one sends through both services, the other keeps."""

    def __init__(self, place: Place, source: Endpoint, target: Endpoint) -> None:
        self.came: list[bytes] = []
        self._place = place
        self._source = source
        self._target = target
        target.on_chunks(self._take)

    async def send(self, payload: bytes) -> None:
        """Send a chunk and wait for its report, which must be that of a delivery."""
        assert (result := await self._begin(payload)).ok, result.explain()

    async def send_unrestored(self, payload: bytes) -> SendResult:
        """Send a chunk by way of compress alone."""
        services = (self._place.ahead_key.sid,)
        return await self._source.send(self._target.guid, payload, services=services)

    @property
    def refused_count(self) -> int:
        """What the target refused as compressed."""
        return int(self._target.stats().get("compressed_total", 0))

    async def send_all(self, data: bytes, middle: Callable[[], object] = lambda: None) -> bytes:
        """Send many chunks at once; return what arrived, in the order in which it was sent.

        Args:
            middle: called when a third is out.
        """
        self.came.clear()
        promises = []
        for at in range(0, len(data), CHUNK_BYTES):
            await self._source.writable(self._target.guid, services=self._services)
            promises.append(self._begin(at.to_bytes(4, "big") + data[at : at + CHUNK_BYTES]))
            if len(promises) == len(data) // CHUNK_BYTES // 3:
                middle()
        for promise in promises:
            assert (result := await promise).ok, result.explain()
        return b"".join(piece[4:] for piece in sorted(self.came))

    async def close(self) -> None:
        await self._source.close()
        await self._target.close()
        await self._place.close()

    @property
    def _services(self) -> tuple[SID, SID]:
        return self._place.ahead_key.sid, self._place.behind_key.sid

    def _begin(self, payload: bytes) -> Promise[SendResult]:
        return self._source.send(self._target.guid, payload, services=self._services)

    def _take(self, batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            self.came.append(bytes(chunk.payload))
            chunk.release()


async def make_ends(reactor: Any, folder: Path) -> tuple[Place, Ends]:
    place = Place(Network(reactor, folder))
    assert place.r1.hop.address is not None and place.r2.hop.address is not None
    source = await Endpoint.open(reactor, place.r1.hop.address, place.source)
    target = await Endpoint.open(reactor, place.r2.hop.address, place.target)
    return place, Ends(place, source, target)


@pytest.mark.parametrize("restarted", ["", "behind", "ahead"])
def test_all_arrives_whatever_cache_is_lost(tmp_path: Path, restarted: str) -> None:
    """Two versions of a file, and one of the directions restarted in the middle of the second: both
    arrive right, nobody who sent them notices, and the second is small as long as caches last."""
    old = text(2 << 20, 1)
    new = edited(old, 2, 40)

    async def test(reactor: Any) -> None:
        place, ends = await make_ends(reactor, tmp_path)
        restarting: list[Any] = []

        async def restart() -> None:
            if restarted == "behind":
                await place.behind[0].stop()
                place.behind = place.start_behind()
            elif restarted == "ahead":
                await place.ahead[0].stop()
                place.ahead = place.start_ahead()

        assert await ends.send_all(old) == old
        first_bytes = place.ahead[1].made_bytes
        arrived = await ends.send_all(new, lambda: restarting.append(ensureDeferred(restart())))
        assert arrived == new
        await restarting[0]
        if not restarted:
            assert place.ahead[1].made_bytes - first_bytes < first_bytes / 5
        # Compress counts on a cache that was lost; a new compress counts on nothing yet.
        assert (place.behind[1].lacking_count > 0) == (restarted == "behind")
        await ends.close()

    run(test)


def test_an_application_gets_nothing_that_is_compressed(tmp_path: Path) -> None:
    """Without decompress on its way a chunk is refused by its host, and the source is told why;
    with it, payloads that begin as frames do arrive as they are."""

    async def test(reactor: Any) -> None:
        _, ends = await make_ends(reactor, tmp_path)
        result = await ends.send_unrestored(text(5000, 4))
        assert (result.ok, ends.came, ends.refused_count) == (False, [], 1)
        assert "no router restored it" in result.detail
        for payload in (b"WO\x02\x00" + bytes(30), b"\x03\x00" + bytes(30)):
            await ends.send(payload)
            assert ends.came.pop() == payload
        await ends.close()

    run(test)


def test_a_chunk_that_lost_its_cache_is_sent_again_by_its_host(tmp_path: Path) -> None:
    """The application only sees that it was delivered; the router counts one drop."""

    async def test(reactor: Any) -> None:
        place, ends = await make_ends(reactor, tmp_path)
        page = text(60_000, 3)
        for _ in range(20):  # until feedback came: the next is small
            before = place.ahead[1].made_bytes
            await ends.send(page)
            if place.ahead[1].made_bytes - before < 1000:
                break
        else:
            raise AssertionError("it never referred to anything")
        await place.behind[0].stop()
        place.behind = place.start_behind()
        await ends.send(page)
        assert place.behind[1].lacking_count == 1
        assert set(ends.came) == {page}
        assert place.r2.core.book.dropped == {"behind": 1}
        await ends.close()

    run(test)
