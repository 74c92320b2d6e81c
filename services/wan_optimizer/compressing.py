"""Core of the direction `compress`: a payload in, a framed payload out.

    small payload:  trained dictionary, if there is one
    otherwise:      refers to what its history has that looks like it, and is remembered itself
    without a peer: zstandard alone, each payload for itself

Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from packetcloud.chunk.header import ChunkHeader
from packetcloud.services.wan_optimizer.anchors import find_anchors
from packetcloud.services.wan_optimizer.dictionaries import TrainedDictionary
from packetcloud.services.wan_optimizer.feedback import decode_feedback
from packetcloud.services.wan_optimizer.framing import (
    DIGEST_BYTES,
    DIGEST_OFFSET,
    HEAD_BYTES,
    MAX_BLOCK_BYTES,
    MAX_HEAD_BYTES,
    Extent,
    Flag,
    Form,
    FrameHead,
    HistoryPart,
    SharedHead,
    padded_bytes,
)
from packetcloud.services.wan_optimizer.sealing import Seals, bound_of
from packetcloud.services.wan_optimizer.sent import SentBlocks
from packetcloud.services.wan_optimizer.zstd import Compressor, refer_into

LEAST_SAVING = 32
"""Compressed only if a 32nd is saved: below it restoring costs more than the bytes."""
MIN_BLOCK_BYTES = 4096
"""Smaller payloads are not remembered: their heads would weigh more than what they have in common;
a trained dictionary suits them."""
MAX_WITH_DICTIONARY_BYTES = 64 << 10
"""A larger payload has its own content to learn from."""
CLOSE_SHARE = 0.75
CLOSE_LEVEL = 12
"""Where most of a payload is in what it refers to, a thorough search has little left: 5 ms per MiB,
and two thirds of what level 1 makes. From level 13 on it takes 100 ms."""
SAME_AGAIN = 128
"""What shrinks to a 128th by referring to blocks is not remembered: they stand for it."""
MAX_SEEN = 4096
"""Chunks remembered to tell a second copy: more than a host has outstanding through one VI."""
ASK_FRAMES = 4
ASK_S = 0.02
"""Feedback is asked for with every fourth frame and at the latest after 20 ms."""

Lend = Callable[[int], memoryview]


@dataclass(frozen=True, slots=True)
class CompressSettings:
    """How much, and with whom."""

    level: int
    max_ratio: int
    has_peer: bool
    """Without one nothing is remembered."""
    partition: str
    """`service`, `source` or `pair`: whose payloads may refer to each other."""


class Compressing:
    """Frames payloads.

    Args:
        sent: what may be referred to.
        trained: for small payloads.
    """

    def __init__(
        self,
        settings: CompressSettings,
        sent: SentBlocks,
        seals: Seals,
        trained: TrainedDictionary | None,
    ) -> None:
        self._settings = settings
        self._sent = sent
        self._seals = seals
        self._trained = trained
        self._plain = Compressor(settings.level)
        self._with_trained = (
            None if trained is None else Compressor(settings.level, trained.content)
        )
        self._seen: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._unasked_count = 0
        self._asked_at = -math.inf

    def frame(self, payload: memoryview, header: ChunkHeader, now: float, lend: Lend) -> memoryview:
        """Return the framed payload, in a buffer from `lend`."""
        key_id = self._seals.key_id if self._settings.has_peer else None
        if key_id is not None and MIN_BLOCK_BYTES <= len(payload) <= MAX_BLOCK_BYTES:
            return self._frame_of_history(bytes(payload), header, key_id, now, lend)
        if self._with_trained is not None and len(payload) <= MAX_WITH_DICTIONARY_BYTES:
            return self._frame_with_dictionary(payload, lend)
        return self._frame_alone(payload, lend)

    def told(self, payload: memoryview, now: float) -> None:
        """Take in feedback of the peer.

        Raises:
            DamagedFrameError: it is none.
        """
        feedback = decode_feedback(payload, self._seals)
        history = self._sent.history_with(feedback.history)
        if history is not None:
            history.told(feedback, now)

    def _frame_alone(self, payload: memoryview, lend: Lend) -> memoryview:
        original = len(payload)
        output = lend(HEAD_BYTES + original)
        stored = self._plain.compress_into(payload, _room(output, HEAD_BYTES, original))
        if stored is None:
            output[:HEAD_BYTES] = FrameHead(Form.RAW, original, original).to_bytes()
            output[HEAD_BYTES:] = payload
            return output
        output[:HEAD_BYTES] = FrameHead(Form.ZSTANDARD, original, stored).to_bytes()
        return self._padded(output, original, HEAD_BYTES + stored)

    def _frame_with_dictionary(self, payload: memoryview, lend: Lend) -> memoryview:
        assert self._with_trained is not None and self._trained is not None
        original = len(payload)
        flags = Flag.ZSTANDARD | Flag.DICTIONARY
        head = SharedHead(flags, original, 0, self._trained.dictionary_id)
        start = head.encoded_bytes
        output = lend(start + original)
        stored = self._with_trained.compress_into(payload, _room(output, start, original))
        if stored is None:
            return self._frame_alone(payload, lend)
        output[:start] = replace(head, stored_bytes=stored).to_bytes()
        return self._padded(output, original, start + stored)

    def _frame_of_history(
        self, payload: bytes, header: ChunkHeader, key_id: int, now: float, lend: Lend
    ) -> memoryview:
        history = self._sent.history_of(self._partition_of(header))
        flow = header.source.value + header.destination.value
        # What may be dropped for now must be sent again, and only who asked for a report does.
        may_refer = header.wants_report and not self._is_second_copy(header)
        view = history.peers.view_of(flow, now) if may_refer else None
        anchors = find_anchors(payload)
        extents: list[Extent] = []
        share = 0.0
        if view is not None:
            extents, share = history.alike(len(payload), anchors, view.holds)
        original = len(payload)
        output = lend(MAX_HEAD_BYTES + original)
        start = SharedHead(Flag.HISTORY, 0, 0, 0, _part(0, b"", 0, 0, extents)).encoded_bytes
        room = _room(output, start, original)
        if extents:
            level = self._settings.level if share < CLOSE_SHARE else CLOSE_LEVEL
            stored = refer_into(payload, history.text(extents), level, room)
        else:
            stored = self._plain.compress_into(payload, room)
        flags = Flag.HISTORY
        if stored is None:
            extents, stored = [], original
            start = SharedHead(flags, 0, 0, 0, _part(0, b"", 0, 0, [])).encoded_bytes
            output[start : start + original] = payload
        else:
            flags |= Flag.ZSTANDARD
        self._sent.used(history, extents)
        block = 0
        if not extents or stored > original // SAME_AGAIN:
            flags |= Flag.REMEMBER
            block = self._sent.keep(history, payload, anchors)
        if self._asks(now):
            flags |= Flag.ASK
        history.peers.sent(history.next_frame, flow, view if extents else None)
        part = _part(key_id, history.history_id, history.next_frame, block, extents)
        history.next_frame += 1
        head = SharedHead(flags, original, stored, 0, part).to_bytes()
        digest = self._seals.digest(part.key_id, (head, bound_of(header), payload))
        assert digest is not None, "our own key"
        output[:start] = head
        output[DIGEST_OFFSET : DIGEST_OFFSET + DIGEST_BYTES] = digest
        if not flags & Flag.ZSTANDARD:
            return output[: start + original]
        return self._padded(output, original, start + stored)

    def _padded(self, output: memoryview, original: int, end: int) -> memoryview:
        length = padded_bytes(original, end, self._settings.max_ratio)
        output[end:length] = bytes(length - end)
        return output[:length]

    def _partition_of(self, header: ChunkHeader) -> bytes:
        match self._settings.partition:
            case "source":
                return header.source.value
            case "pair":
                return header.source.value + header.destination.value
            case _:
                return b""

    def _is_second_copy(self, header: ChunkHeader) -> bool:
        """Tell whether this chunk was seen before: then the first copy may have failed.

        The second refers to nothing, so that it needs nothing but itself.
        """
        key = (header.source.value, header.chunk_id.value)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return False

    def _asks(self, now: float) -> bool:
        self._unasked_count += 1
        if self._unasked_count < ASK_FRAMES and now - self._asked_at < ASK_S:
            return False
        self._unasked_count, self._asked_at = 0, now
        return True


def _part(
    key_id: int, history: bytes, frame: int, block: int, extents: list[Extent]
) -> HistoryPart:
    return HistoryPart(key_id, history, frame, block, bytes(DIGEST_BYTES), tuple(extents))


def _room(output: memoryview, start: int, original: int) -> memoryview:
    """Return where less than the original fits: what does not is not worth compressing."""
    return output[start : start + max(0, original - original // LEAST_SAVING - 1)]
