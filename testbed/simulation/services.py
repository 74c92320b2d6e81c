"""The services of the simulated network, and what the digest of a chunk says of them."""

from __future__ import annotations

from packetcloud.chunk.names import SID
from packetcloud.services.sdk import ChunkContext, NetworkService, ServiceChunk, Verdict
from packetcloud.testbed.simulation.application import Operation
from packetcloud.testbed.simulation.program import identity_of

PASSING = "passing"
"""The service that changes nothing but the header: it says FORWARD."""
TURNING = "turning"
"""The service that sends everything to `TURNED_TO` instead."""
TURNED_TO = "C"


def mark_of(name: str) -> bytes:
    """Return what the service of this name appends to each payload."""
    return b"" if name in (PASSING, TURNING) else f"+{name}".encode()


def expected_of(operation: Operation) -> bytes:
    """Return what a digest says of an operation beside what was sent: marks, and who takes it."""
    marks = b"".join(map(mark_of, operation.services))
    taker = TURNED_TO if TURNING in operation.services else operation.destination
    return marks + arrived_as(taker, None)


def arrived_as(taker: str, next_sid: SID | None) -> bytes:
    """Return what a digest says of who took it, and of a service that should have run before."""
    return f" at {taker}".encode() + (next_sid.value if next_sid is not None else b"")


class MarkingService(NetworkService):
    """Appends its mark to every payload."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        size = len(chunk.payload)
        output = context.output_buffer(size + len(self._mark))
        output[:size] = chunk.payload
        output[size:] = self._mark
        return Verdict.update(output)


class PassingService(NetworkService):
    """Lets everything pass."""

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        return Verdict.forward()


class TurningService(NetworkService):
    """Sends everything to another destination."""

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        return Verdict.redirect(identity_of(TURNED_TO).guid)


def service_of(name: str) -> NetworkService:
    """Return the service of this name."""
    if name == PASSING:
        return PassingService()
    return TurningService() if name == TURNING else MarkingService(mark_of(name))
