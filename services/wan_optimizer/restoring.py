"""Core of the direction `decompress`: a framed payload in, the original out, or why not.

What comes out has the digest that stands in the frame, whatever the cache held. A frame that refers
to what is not kept, or is kept wrong, is dropped for now: compress is told, and the source sends
the chunk again.
Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.services.sdk import Buffer
from packetcloud.services.wan_optimizer.dictionaries import TrainedDictionary
from packetcloud.services.wan_optimizer.feedback import MAX_FEEDBACK_BYTES, Feedback
from packetcloud.services.wan_optimizer.framing import (
    DIGEST_BYTES,
    DIGEST_OFFSET,
    DamagedFrameError,
    Flag,
    FrameHead,
    HistoryPart,
    SharedHead,
    decode_frame,
)
from packetcloud.services.wan_optimizer.kept import KeptBlocks, LackingError
from packetcloud.services.wan_optimizer.sealing import Seals
from packetcloud.services.wan_optimizer.zstd import Decompressor

MAX_WITH_FEEDBACK_BYTES = (1 << 20) + 128
"""Behind a larger payload a verdict has no room for feedback; the next smaller one carries it."""

Lend = Callable[[int], memoryview]


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """What may be restored."""

    max_ratio: int
    max_original_bytes: int
    has_peer: bool
    """Without one nothing is kept, and nobody is told anything."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a frame."""

    payload: memoryview | None
    """The original; None: see `reason`. The payload itself if it is no frame."""
    reason: str = ""
    is_frame: bool = True
    is_lacking: bool = False
    """Another copy of the chunk, made by a compress that was told, may be restored."""
    feedback: bytes = b""
    """For the peer, if not empty."""


class Restoring:
    """Restores payloads.

    Args:
        kept: what frames may refer to.
        instance: 16 bytes that nobody used before: of this cache.
        trained: the dictionary of small payloads.
    """

    def __init__(
        self,
        settings: RestoreSettings,
        kept: KeptBlocks,
        seals: Seals,
        instance: bytes,
        trained: TrainedDictionary | None,
    ) -> None:
        self._settings = settings
        self._kept = kept
        self._seals = seals
        self._instance = instance
        self._trained = trained
        self._plain = Decompressor()
        self._with_trained = None if trained is None else Decompressor(trained.content)
        self._feedback_count = 0

    def restore(self, payload: memoryview, bound: bytes, lend: Lend) -> Restored:
        """Return the original of a framed payload, in a buffer from `lend` or in `payload`.

        Args:
            bound: what the frame is tied to; see `sealing.bound_of`.
        """
        part = None
        try:
            head = decode_frame(payload)
            if head is None:
                return Restored(payload, is_frame=False)
            self._check_size(head, len(payload))
            if isinstance(head, FrameHead):
                return Restored(self._content(payload, head, self._plain, b"", lend))
            if head.flags & Flag.DICTIONARY:
                decompressor = self._trained_decompressor(head.dictionary_id)
                return Restored(self._content(payload, head, decompressor, b"", lend))
            part = head.part
            if part is None:
                raise DamagedFrameError("flags that contradict each other")
            return self._restore_of_history(payload, head, part, bound, lend)
        except DamagedFrameError as error:
            return Restored(None, f"cannot decompress: {error}")
        except LackingError as error:
            assert part is not None, "only a frame of a history refers to anything"
            feedback = self._feedback(part, is_lacking=True)
            return Restored(None, f"{error}", is_lacking=True, feedback=feedback)

    def _check_size(self, head: FrameHead | SharedHead, payload_bytes: int) -> None:
        original, settings = head.original_bytes, self._settings
        if not head.is_raw and original > settings.max_original_bytes:
            raise DamagedFrameError(
                f"decompression bomb: {original} bytes, allowed {settings.max_original_bytes}"
            )
        if original > settings.max_ratio * payload_bytes:
            raise DamagedFrameError(
                f"decompression bomb: ratio {original / payload_bytes:.0f}, "
                f"allowed {settings.max_ratio}"
            )

    def _trained_decompressor(self, dictionary_id: int) -> Decompressor:
        if self._trained is None or self._with_trained is None:
            raise DamagedFrameError(f"dictionary {dictionary_id:08x} is not here, nor any other")
        if self._trained.dictionary_id != dictionary_id:
            raise DamagedFrameError(
                f"dictionary {dictionary_id:08x} is not here, only "
                f"{self._trained.dictionary_id:08x}"
            )
        return self._with_trained

    def _content(
        self,
        payload: memoryview,
        head: FrameHead | SharedHead,
        decompressor: Decompressor,
        history: bytes,
        lend: Lend,
    ) -> memoryview:
        start = head.encoded_bytes
        if head.is_raw:
            return payload[start:]
        # One byte more than declared, so that a frame that holds more is noticed.
        output = lend(head.original_bytes + 1)
        stored = payload[start : start + head.stored_bytes]
        decompressor.restore_into(stored, output, history)
        return output[: head.original_bytes]

    def _restore_of_history(
        self, payload: memoryview, head: SharedHead, part: HistoryPart, bound: bytes, lend: Lend
    ) -> Restored:
        if not self._seals.has_key(part.key_id):
            raise DamagedFrameError(f"unknown key {part.key_id:08x}")
        history = self._kept.text(part.history, part.extents)
        try:
            original = self._content(payload, head, self._plain, history, lend)
            after = payload[DIGEST_OFFSET + DIGEST_BYTES : head.encoded_bytes]
            empty = bytes(DIGEST_BYTES)
            self._check_digest(part, (payload[:DIGEST_OFFSET], empty, after, bound, original))
        except DamagedFrameError:
            if not part.extents:
                raise
            if part.key_id == 0:
                # Somebody may have planted them. With a key file nobody can: the frame is wrong.
                self._kept.forget(part.history, part.extents)
            raise LackingError("refers to what this cache holds otherwise") from None
        if not self._settings.has_peer:
            return Restored(original)
        self._kept.restored(part.history, part.frame)
        if head.flags & Flag.REMEMBER:
            self._kept.keep(part.history, part.block, bytes(original))
        feedback = b""
        if head.flags & Flag.ASK and len(original) <= MAX_WITH_FEEDBACK_BYTES:
            feedback = self._feedback(part, is_lacking=False)
        return Restored(original, feedback=feedback)

    def _check_digest(self, part: HistoryPart, pieces: tuple[Buffer, ...]) -> None:
        if not self._seals.is_right(part.key_id, pieces, part.digest):
            raise DamagedFrameError("wrong digest")

    def _feedback(self, part: HistoryPart, *, is_lacking: bool) -> bytes:
        """Return what is kept of the history; nothing if there is nobody to tell."""
        if not self._settings.has_peer or not self._seals.has_key(part.key_id):
            return b""
        history = self._kept.history(part.history)
        self._feedback_count += 1
        encoded = Feedback(
            part.history,
            self._instance,
            self._feedback_count,
            part.frame,
            0 if history is None else history.newest_frame,
            is_lacking,
            () if history is None else history.ranges(),
        ).to_bytes(self._seals, part.key_id)
        assert len(encoded) <= MAX_FEEDBACK_BYTES
        return encoded
