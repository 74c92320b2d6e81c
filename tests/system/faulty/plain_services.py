"""Services that do as they should, for the tests of faults around them."""

from __future__ import annotations

import time

from packetcloud.services.sdk import ChunkContext, NetworkService, ServiceChunk, Verdict
from packetcloud.services.sdk import ServiceContext as Context


class Tally(NetworkService):
    """Writes before each chunk how many there were; the count goes along with its state."""

    def start(self, context: Context) -> None:
        self.seen = 0

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        self.seen += 1
        return Verdict.update(b"%d " % self.seen + bytes(chunk.payload))

    def export_state(self) -> bytes:
        return b"%d" % self.seen

    def import_state(self, state: bytes) -> None:
        self.seen = int(state)


class Slow(Tally):
    """Takes 50 ms for each chunk, and next to no processor."""

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        time.sleep(0.05)
        return super().process(chunk, context)
