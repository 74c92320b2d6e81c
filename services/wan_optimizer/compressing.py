"""Core of the direction `compress`: a payload in, a framed payload out.

    small payload:  trained dictionary, if there is one
    otherwise:      refers to what its history has that looks like it, and is remembered itself
    without a peer: zstandard alone, each payload for itself

With a key file every frame is keyed, and there are none before the time of its first key.
Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from packetcloud.chunk.header import ChunkHeader
from packetcloud.services.sdk import Buffer
from packetcloud.services.wan_optimizer.anchors import find_anchors
from packetcloud.services.wan_optimizer.dictionaries import TrainedDictionary
from packetcloud.services.wan_optimizer.feedback import decode_feedback
from packetcloud.services.wan_optimizer.framing import (
    MAX_BLOCK_BYTES,
    MAX_HEAD_BYTES,
    Extent,
    Flag,
    FrameHead,
    HistoryPart,
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

    def frame(
        self, payload: memoryview, header: ChunkHeader, now: float, lend: Lend
    ) -> memoryview | None:
        """Return the framed payload, in a buffer from `lend`; None: the time of no key has come."""
        key_id = self._seals.key_id
        if key_id is None:
            return None
        flags = Flag.KEYED if self._seals.has_key_file else Flag(0)
        if self._settings.has_peer and MIN_BLOCK_BYTES <= len(payload) <= MAX_BLOCK_BYTES:
            return self._frame_of_history(bytes(payload), header, flags, key_id, now, lend)
        head = FrameHead(flags, header.payload_type, len(payload), 0, key_id=key_id)
        if self._with_trained is not None and len(payload) <= MAX_WITH_DICTIONARY_BYTES:
            framed = self._frame_with_dictionary(payload, header, head, lend)
            if framed is not None:
                return framed
        return self._frame_alone(payload, header, head, lend)

    def told(self, payload: memoryview, now: float) -> None:
        """Take in feedback of the peer.

        Raises:
            DamagedFrameError: it is none.
        """
        feedback = decode_feedback(payload, self._seals)
        history = self._sent.history_with(feedback.history)
        if history is not None:
            history.told(feedback, now)

    def _frame_alone(
        self, payload: memoryview, header: ChunkHeader, head: FrameHead, lend: Lend
    ) -> memoryview:
        original, start = len(payload), head.sealed_bytes
        output = lend(start + original)
        stored = self._plain.compress_into(payload, _room(output, start, original))
        if stored is None:
            output[start:] = payload
        return self._finished(output, head, stored, payload, header)

    def _frame_with_dictionary(
        self, payload: memoryview, header: ChunkHeader, head: FrameHead, lend: Lend
    ) -> memoryview | None:
        assert self._with_trained is not None and self._trained is not None
        flags, original = head.flags | Flag.DICTIONARY, len(payload)
        head = replace(head, flags=flags, dictionary_id=self._trained.dictionary_id)
        start = head.sealed_bytes
        output = lend(start + original)
        stored = self._with_trained.compress_into(payload, _room(output, start, original))
        if stored is None:
            return None
        return self._finished(output, head, stored, payload, header)

    def _frame_of_history(
        self,
        payload: bytes,
        header: ChunkHeader,
        flags: Flag,
        key_id: int,
        now: float,
        lend: Lend,
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
        part = HistoryPart(history.history_id, history.next_frame, 0, tuple(extents))
        history.next_frame += 1
        flags |= Flag.HISTORY
        head = FrameHead(flags, header.payload_type, original, 0, 0, key_id, part)
        output = lend(MAX_HEAD_BYTES + original)
        room = _room(output, head.sealed_bytes, original)
        if extents:
            level = self._settings.level if share < CLOSE_SHARE else CLOSE_LEVEL
            stored = refer_into(payload, history.text(extents), level, room)
        else:
            stored = self._plain.compress_into(payload, room)
        if stored is None:
            extents, part = [], replace(part, extents=())
            start = replace(head, part=part).sealed_bytes
            output[start : start + original] = payload
        self._sent.used(history, extents)
        if not extents or stored is None or stored > original // SAME_AGAIN:
            flags |= Flag.REMEMBER
            part = replace(part, block=self._sent.keep(history, payload, anchors))
        if self._asks(now):
            flags |= Flag.ASK
        history.peers.sent(part.frame, flow, view if extents else None)
        return self._finished(
            output, replace(head, flags=flags, part=part), stored, payload, header
        )

    def _finished(
        self,
        output: memoryview,
        head: FrameHead,
        stored: int | None,
        payload: Buffer,
        header: ChunkHeader,
    ) -> memoryview:
        """Write the head before what is stored, and zeros behind it; return all of it.

        Args:
            stored: bytes of the compressed payload; None: it is there as it was.
        """
        if stored is None:
            head = replace(head, stored_bytes=len(payload))
        else:
            head = replace(head, flags=head.flags | Flag.ZSTANDARD, stored_bytes=stored)
        start = head.sealed_bytes
        output[:start] = self._seals.sealed_head(head, bound_of(header), payload)
        end = length = start + head.stored_bytes
        if stored is not None:
            length = padded_bytes(len(payload), end, self._settings.max_ratio)
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


def _room(output: memoryview, start: int, original: int) -> memoryview:
    """Return where less than the original fits: what does not is not worth compressing."""
    return output[start : start + max(0, original - original // LEAST_SAVING - 1)]
