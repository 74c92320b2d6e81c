"""What decompress tells compress: which blocks of a history it keeps.

    "WF", version 1, status (0 restored, 1 lacking), key id (4), history (8), instance (16),
    number (4), frame (4), newest frame (4), ranges (2), and as often: first block (4), count (4);
    digest (16)

It says all that is kept, not what changed: one that is lost, doubled or late does no harm.
Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from packetcloud.services.wan_optimizer.framing import DIGEST_BYTES, DamagedFrameError
from packetcloud.services.wan_optimizer.sealing import Seals

_HEAD = struct.Struct(">2sBBI8s16sIIIH")
_RANGE = struct.Struct(">II")
INSTANCE_BYTES = 16
_MAGIC = b"WF"
_VERSION = 1
MAX_RANGES = 32
"""The newest; blocks of older ones are not referred to. Keeps a feedback below 330 bytes, so that
it fits behind a largest payload in one verdict."""
MAX_FEEDBACK_BYTES = _HEAD.size + MAX_RANGES * _RANGE.size + DIGEST_BYTES
MAX_NUMBER = (1 << 32) - 1
"""Of an instance; behind it another one begins."""
_KEY_ID_OFFSET = 4


@dataclass(frozen=True, slots=True)
class Feedback:
    """The state of one cache for one history."""

    history: bytes
    instance: bytes
    """16 bytes: chosen at random whenever decompress starts."""
    number: int
    """Counts the feedback of the instance: an older one is ignored."""
    frame: int
    """What it is the answer to."""
    newest_frame: int
    """The newest that was restored, by its number."""
    is_lacking: bool = False
    """`frame` refers to what is not kept."""
    kept: tuple[range, ...] = ()
    """Blocks, in ascending order."""

    def to_bytes(self, seals: Seals, key_id: int) -> bytes:
        """Encode it, sealed with a key that this side has."""
        pieces = [
            _HEAD.pack(
                _MAGIC,
                _VERSION,
                self.is_lacking,
                key_id,
                self.history,
                self.instance,
                self.number,
                self.frame,
                self.newest_frame,
                len(self.kept),
            )
        ]
        pieces += [_RANGE.pack(kept.start, len(kept)) for kept in self.kept]
        digest = seals.digest(key_id, pieces)
        assert digest is not None, "the key is that of a frame that was right"
        return b"".join((*pieces, digest))


def decode_feedback(payload: memoryview, seals: Seals) -> Feedback:
    """Return what `to_bytes` encoded.

    Raises:
        DamagedFrameError: it is none, or not sealed with a key of ours.
    """
    if not _HEAD.size + DIGEST_BYTES <= len(payload) <= MAX_FEEDBACK_BYTES:
        raise DamagedFrameError("feedback of a wrong length")
    magic, version, status, key_id, history, instance, *numbers, count = _HEAD.unpack_from(payload)
    if magic != _MAGIC or version != _VERSION or status > 1:
        raise DamagedFrameError("no feedback")
    end = _HEAD.size + count * _RANGE.size
    if end + DIGEST_BYTES != len(payload):
        raise DamagedFrameError("feedback of a wrong length")
    if not seals.is_right(key_id, (payload[:end],), bytes(payload[end:])):
        raise DamagedFrameError("feedback with a wrong digest")
    pairs = (_RANGE.unpack_from(payload, _HEAD.size + n * _RANGE.size) for n in range(count))
    kept = tuple(range(first, first + length) for first, length in pairs)
    number, frame, newest_frame = numbers
    return Feedback(history, instance, number, frame, newest_frame, bool(status), kept)
