"""The ids service at a whole router: what it drops is told, what it looks at nobody asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packetcloud.chunk.hop.api import HopConfig, HopReceiver, Role
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.reasons import Reason
from packetcloud.services.catalogue import find_service
from packetcloud.services.ids.service import Ids
from packetcloud.services.launch import LaunchSpec
from packetcloud.services.runtime import HopNodeLike, ServiceRuntime
from tests.functional.router_network import Network, run


def attached(
    reactor: Any, address: tuple[str, int], identity: Identity, settings: dict[str, str]
) -> ServiceRuntime:
    """Start the service for a router."""

    def make_node(receiver: HopReceiver) -> HopNodeLike:
        return HopNode(reactor, identity, Role.SERVICE, HopConfig(), receiver)

    parameters = dict(find_service("ids").manifest.resolve(settings))
    spec = LaunchSpec("ids", "1.0.0", "x:X", "/k", *address, parameters=parameters)
    return ServiceRuntime(reactor, spec, Ids(), identity.sid, make_node)


def test_a_dropped_chunk_is_told_with_its_rule(tmp_path: Path) -> None:
    """The source hears `dropped_by_service` and which rule; the collector hears of it, too."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        assert router.hop.address is not None
        a, b, collector = [await net.host(router) for _ in range(3)]
        ids = Identity.generate()
        rules = tmp_path / "site.rules"
        rules.write_text(
            f'drop chunk {a.guid} any -> any any (msg:"no evil"; content:"evil"; sid:7;)\n'
            'alert chunk any any -> any any (msg:"look"; content:"odd"; sid:8;)\n'
        )
        settings = {"rules": str(rules), "collector": collector.guid.hex, "stats_interval_s": "0"}
        served = attached(reactor, router.hop.address, ids, settings)
        served.start()
        await net.until(lambda: served.attachment.attached_count)
        evil = a.send(b.guid, b"some evil bytes", ids.sid)
        await net.until(lambda: a.told(evil))
        assert a.told(evil) is Reason.DROPPED_BY_SERVICE
        (report,) = [one for one in a.reports if one.chunk_id.value == evil]
        assert report.detail == "ids: sid 7: no evil"
        odd = a.send(b.guid, b"something odd", ids.sid)
        allowed = b.send(a.guid, b"evil of somebody else", ids.sid)
        await net.until(lambda: b.received and a.received and collector.received)
        assert [(header.chunk_id.value, data) for header, data in b.received] == [
            (odd, b"something odd")
        ]
        assert a.ids() == [allowed]
        lines = b"".join(data for _, data in collector.received)
        assert lines.count(b'"signature_id":7') == lines.count(b'"signature_id":8') == 1
        assert all(header.source.value == ids.sid.value for header, _ in collector.received)
        await served.stop()
        await net.close()

    run(test)
