"""A tiny router for the host's tests: a real hop node on loopback, forwarding by GUID."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packetcloud.chunk.header import ChunkHeader, PayloadType, decode_header
from packetcloud.chunk.hop.api import HopConfig, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind, DeliveryReport, Outcome, encode_reports
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.reasons import Reason


class TinyRouter:
    """Takes custody, forwards to the attached host, reports what it cannot deliver."""

    def __init__(self, reactor: Any, identity: Identity | None = None) -> None:
        self.identity = identity or Identity.generate()
        self.address = ("127.0.0.1", 0)
        self.hosts: dict[GUID, Neighbour] = {}
        self.forwarded_count = 0
        self.change_payload: Callable[[ChunkHeader, bytes], bytes] | None = None
        self.drop: Callable[[ChunkHeader], bool] | None = None
        self._reactor = reactor
        self._next_id = 0
        self._node: HopNode | None = None

    def start(self, port: int = 0) -> None:
        self._node = HopNode(self._reactor, self.identity, Role.ROUTER, HopConfig(), self)
        self.address = self._node.listen("127.0.0.1", port)

    async def stop(self) -> None:
        node, self._node = self._node, None
        self.hosts.clear()
        if node is not None:
            await node.close()

    # HopReceiver

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.hosts[neighbour.guid] = neighbour

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        if self.hosts.get(neighbour.guid) is neighbour:
            del self.hosts[neighbour.guid]

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Any) -> Refusal | None:
        header = decode_header(body.head(1024))
        if header.source != neighbour.guid:
            return Refusal(Reason.NOT_AUTHORISED)
        if self.drop is not None and self.drop(header):
            body.release()
            return None
        host = self.hosts.get(header.destination)
        if host is None or not host.is_up:
            body.release()
            self._report(header, Outcome.REFUSED, Reason.UNRESOLVABLE_GUID)
            return None
        self.forwarded_count += 1
        if self.change_payload is not None and header.payload_type != PayloadType.REPORT:
            data = bytes(body.contiguous())
            body.release()
            header_bytes = int.from_bytes(data[2:4], "big")
            payload = self.change_payload(header, data[header_bytes:])
            prefix = data[:16] + len(payload).to_bytes(4, "big") + data[20:header_bytes]
            host.send(BodyKind.CHUNK, prefix, payload, (header, None))
        else:
            host.send_body(BodyKind.CHUNK, body, (header, body))
        return None

    def body_settled(
        self, neighbour: Neighbour, token: Any, settlement: Settlement, reason: int
    ) -> None:
        header, body = token
        if body is not None:
            body.release()
        if settlement is Settlement.REFUSED:
            self._report(header, Outcome.REFUSED, reason)
        elif settlement is Settlement.LOST:
            self._report(header, Outcome.REFUSED, Reason.NEIGHBOUR_LOST)

    def _report(self, header: ChunkHeader, outcome: Outcome, reason: int) -> None:
        host = self.hosts.get(header.source)
        if host is None or not host.is_up or not header.wants_report:
            return
        payload = encode_reports([DeliveryReport(header.chunk_id, outcome, reason)])
        self._next_id += 1
        report = ChunkHeader(
            source=self.identity.guid,
            destination=header.source,
            chunk_id=ChunkId(self._next_id),
            payload_bytes=len(payload),
            payload_type=PayloadType.REPORT,
        )
        host.send(BodyKind.CHUNK, report.to_bytes(), payload, (report, None))
