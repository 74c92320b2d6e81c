"""Both directions of the WAN optimizer without a network: frames and feedback wait for the test."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.services.wan_optimizer.compressing import Compressing, CompressSettings
from packetcloud.services.wan_optimizer.dictionaries import TrainedDictionary
from packetcloud.services.wan_optimizer.framing import FrameHead, decode_frame
from packetcloud.services.wan_optimizer.kept import KeptBlocks
from packetcloud.services.wan_optimizer.restoring import Restored, RestoreSettings, Restoring
from packetcloud.services.wan_optimizer.sealing import Seals, bound_of
from packetcloud.services.wan_optimizer.sent import SentBlocks

MIB = 1 << 20
BOUND = b"what frames of nobody are tied to"
FLOWS = tuple((GUID(bytes([n]) * 20), GUID(bytes([n + 100]) * 20)) for n in range(1, 5))


def lend(count: int) -> memoryview:
    """Return a buffer as the runtime lends it: with old content."""
    return memoryview(bytearray(b"\xa5" * count))


def text(count: int, seed: int = 0) -> bytes:
    """Return lines that compress like a program's source and repeat nothing at length."""
    source = random.Random(seed)
    words = [f"{source.randrange(16**6):06x}" for _ in range(400)]
    lines: list[str] = []
    length = 0
    while length < count:
        lines.append(" ".join(source.choices(words, k=8)) + "\n")
        length += len(lines[-1])
    return "".join(lines).encode()[:count]


def edited(data: bytes, seed: int = 1, edits: int = 3) -> bytes:
    """Return `data` with a few lines put in, so that what follows moves."""
    source = random.Random(seed)
    for _ in range(edits):
        at = source.randrange(len(data))
        data = data[:at] + b"edit %08x\n" % source.randrange(1 << 32) + data[at:]
    return data


class WanLink:
    """One compress, one or more decompress, and what is between them."""

    def __init__(
        self,
        *,
        replicas: int = 1,
        cache_bytes: int = 64 * MIB,
        kept_bytes: int | None = None,
        partition: str = "service",
        level: int = 1,
        seals: Seals | None = None,
        kept_seals: Seals | None = None,
        trained: TrainedDictionary | None = None,
        restoring: type[Restoring] = Restoring,
        histories: Iterator[bytes] | None = None,
    ) -> None:
        self.now = 0.0
        self._cache_bytes = cache_bytes
        self._kept_bytes = cache_bytes if kept_bytes is None else kept_bytes
        self._settings = CompressSettings(level, 8192, True, partition)
        self._seals = seals or Seals(None)
        self._kept_seals = kept_seals or self._seals
        self._trained = trained
        self._restoring = restoring
        self._numbers = itertools.count(1)
        self._histories = histories or (b"%8d" % number for number in self._numbers)
        self._chunk_id = 0
        self._bounds: dict[bytes, bytes] = {}
        """By frame: what it is tied to."""
        self.restart_compress()
        self.behind = [self._new_behind() for _ in range(replicas)]

    def restart_compress(self) -> None:
        """Forget everything that compress has."""
        self.sent = SentBlocks(self._cache_bytes, lambda: next(self._histories))
        self.ahead = Compressing(self._settings, self.sent, self._seals, self._trained)

    def restart(self, replica: int = 0) -> None:
        """Forget everything that a decompress has."""
        self.behind[replica] = self._new_behind()

    def header(
        self,
        payload: bytes,
        flow: int = 0,
        chunk_id: int | None = None,
        *,
        wants_report: bool = True,
    ) -> ChunkHeader:
        if chunk_id is None:
            self._chunk_id += 1
            chunk_id = self._chunk_id
        source, destination = FLOWS[flow]
        return ChunkHeader(
            source, destination, ChunkId(chunk_id), len(payload), wants_report=wants_report
        )

    def frame(
        self,
        payload: bytes,
        flow: int = 0,
        chunk_id: int | None = None,
        *,
        wants_report: bool = True,
    ) -> bytes:
        """Return what leaves compress."""
        header = self.header(payload, flow, chunk_id, wants_report=wants_report)
        self.now += 0.05  # so that it asks what is kept
        framed = self.ahead.frame(memoryview(payload), header, self.now, lend)
        assert framed is not None, "a key is in use"
        frame = bytes(framed)
        self._bounds[frame] = bound_of(header)
        return frame

    def restore(self, frame: bytes, replica: int = 0, bound: bytes | None = None) -> Restored:
        """Return what decompress makes of it, in its own chunk unless told another."""
        bound = self._bounds.get(frame, BOUND) if bound is None else bound
        return self.behind[replica].restore(memoryview(frame), bound, lend)

    def tell(self, restored: Restored) -> None:
        """Bring its feedback, if any, to compress."""
        if restored.feedback:
            self.ahead.told(memoryview(restored.feedback), self.now)

    def send(self, payload: bytes, flow: int = 0, replica: int = 0) -> int:
        """Send a payload that must arrive, and the feedback; return the bytes of its frame."""
        frame = self.frame(payload, flow)
        restored = self.restore(frame, replica)
        assert restored.payload is not None, restored.reason
        assert (restored.payload, restored.payload_type) == (payload, PayloadType.DATA)
        self.tell(restored)
        return len(frame)

    def _new_behind(self) -> Restoring:
        settings = RestoreSettings(8192, MIB + 1000, True)
        kept = KeptBlocks(self._kept_bytes)
        return self._restoring(
            settings, kept, self._kept_seals, lambda: b"%16d" % next(self._numbers), self._trained
        )


def head_of(frame: bytes) -> FrameHead:
    """Return the head of a frame."""
    return decode_frame(memoryview(frame)).head


def refers(frame: bytes) -> bool:
    """Tell whether it needs what was sent before."""
    return head_of(frame).refers
