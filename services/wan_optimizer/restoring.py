"""Core of the direction `decompress`: a framed payload in, the original out, or why not.

What comes out has the digest that stands in the frame, whatever the cache held. A frame that refers
to what is not kept, or is kept wrong, is dropped for now: compress is told, and the source sends
the chunk again. With a key file nothing is looked up, kept or told for a frame that its key did not
make.
Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.chunk.header import PayloadType
from packetcloud.services.wan_optimizer.dictionaries import TrainedDictionary
from packetcloud.services.wan_optimizer.feedback import MAX_FEEDBACK_BYTES, MAX_NUMBER, Feedback
from packetcloud.services.wan_optimizer.framing import (
    DamagedFrameError,
    Flag,
    Frame,
    FrameHead,
    HistoryPart,
    decode_frame,
)
from packetcloud.services.wan_optimizer.kept import KeptBlocks, LackingError
from packetcloud.services.wan_optimizer.sealing import Seals, UnknownKeyError
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
    """The original; None: see `reason`."""
    payload_type: int = PayloadType.DATA
    """Of the original."""
    reason: str = ""
    is_lacking: bool = False
    """Another copy may be restored: made by a compress that was told, or once its key is here."""
    feedback: bytes = b""
    """For the peer, if not empty."""


class Restoring:
    """Restores payloads.

    Args:
        kept: what frames may refer to.
        new_instance: returns 16 bytes that nobody used before, to name this cache.
        trained: the dictionary of small payloads.
    """

    def __init__(
        self,
        settings: RestoreSettings,
        kept: KeptBlocks,
        seals: Seals,
        new_instance: Callable[[], bytes],
        trained: TrainedDictionary | None,
    ) -> None:
        self._settings = settings
        self._kept = kept
        self._seals = seals
        self._new_instance = new_instance
        self._instance = new_instance()
        self._trained = trained
        self._plain = Decompressor()
        self._with_trained = None if trained is None else Decompressor(trained.content)
        self._feedback_count = 0

    def restore(self, payload: memoryview, bound: bytes, lend: Lend) -> Restored:
        """Return the original of a framed payload, in a buffer from `lend` or in `payload`.

        Args:
            bound: what the frame is tied to; see `sealing.bound_of`.
        """
        try:
            frame = decode_frame(payload)
            self._check_size(frame.head, len(payload))
            self._seals.check_head(frame, bound)
            part = frame.head.part
            if part is not None:
                return self._restore_of_history(frame, part, bound, lend)
            decompressor = self._plain
            if frame.head.flags & Flag.DICTIONARY:
                decompressor = self._trained_decompressor(frame.head.dictionary_id)
            original = self._content(frame, decompressor, b"", lend)
            self._seals.check_original(frame, bound, original)
            return Restored(original, frame.head.payload_type)
        except UnknownKeyError as error:
            return Restored(None, reason=f"cannot decompress: {error}", is_lacking=True)
        except DamagedFrameError as error:
            return Restored(None, reason=f"cannot decompress: {error}")

    def _check_size(self, head: FrameHead, payload_bytes: int) -> None:
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
        self, frame: Frame, decompressor: Decompressor, history: bytes, lend: Lend
    ) -> memoryview:
        if frame.head.is_raw:
            return frame.stored
        # One byte more than declared, so that a frame that holds more is noticed.
        output = lend(frame.head.original_bytes + 1)
        decompressor.restore_into(frame.stored, output, history)
        return output[: frame.head.original_bytes]

    def _restore_of_history(
        self, frame: Frame, part: HistoryPart, bound: bytes, lend: Lend
    ) -> Restored:
        head = frame.head
        try:
            history = self._kept.text(part.history, part.extents)
            original = self._content(frame, self._plain, history, lend)
            self._check_original(frame, bound, original)
        except LackingError as error:
            return self._lacking(head, part, str(error))
        except DamagedFrameError:
            if not part.extents:
                raise
            if not head.flags & Flag.KEYED:
                # Somebody may have planted them. With a key file nobody can: what is stored is
                # altered, or memory is.
                self._kept.forget(part.history, part.extents)
            return self._lacking(head, part, "refers to what this cache holds otherwise")
        if not self._settings.has_peer:
            return Restored(original, head.payload_type)
        self._kept.restored(part.history, part.frame)
        if head.flags & Flag.REMEMBER:
            self._kept.keep(part.history, part.block, bytes(original))
        feedback = b""
        if head.flags & Flag.ASK and len(original) <= MAX_WITH_FEEDBACK_BYTES:
            feedback = self._feedback(head, part, is_lacking=False)
        return Restored(original, head.payload_type, feedback=feedback)

    def _check_original(self, frame: Frame, bound: bytes, original: memoryview) -> None:
        self._seals.check_original(frame, bound, original)

    def _lacking(self, head: FrameHead, part: HistoryPart, reason: str) -> Restored:
        feedback = self._feedback(head, part, is_lacking=True)
        return Restored(None, reason=reason, is_lacking=True, feedback=feedback)

    def _feedback(self, head: FrameHead, part: HistoryPart, *, is_lacking: bool) -> bytes:
        """Return what is kept of the history; nothing if there is nobody to tell."""
        if not self._settings.has_peer:
            return b""
        history = self._kept.history(part.history)
        if self._feedback_count == MAX_NUMBER:
            self._instance, self._feedback_count = self._new_instance(), 0
        self._feedback_count += 1
        encoded = Feedback(
            part.history,
            self._instance,
            self._feedback_count,
            part.frame,
            0 if history is None else history.newest_frame,
            is_lacking,
            () if history is None else history.ranges(),
        ).to_bytes(self._seals, head.key_id)
        assert len(encoded) <= MAX_FEEDBACK_BYTES
        return encoded
