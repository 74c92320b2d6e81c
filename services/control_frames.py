"""Frames of the control link between a VI and its cloudlet's controller.

    length (4 bytes, of what follows)   kind (1 byte)   payload

A frame is a JSON object or a piece of a service's state. Pieces belong to the JSON object before
them, which says how many bytes come and their SHA-256.
Source: docs/protocol/control-link.md.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from packetcloud.chunk.errors import ProtocolError

PROTOCOL_VERSION = 1
MAX_JSON_BYTES = 1 << 20
"""A launch with its parameters; reports are under 1 KiB."""
PIECE_BYTES = 256 << 10
"""Short enough that a report between two pieces is not late."""
MAX_STATE_BYTES = 64 << 20
"""Largest state of a service that can move."""
_HEAD = struct.Struct("!IB")


class FrameKind(IntEnum):
    """What a frame holds."""

    JSON = 1
    STATE = 2


_LIMITS = {FrameKind.JSON: MAX_JSON_BYTES, FrameKind.STATE: PIECE_BYTES}


def encode_json(message: dict[str, Any]) -> bytes:
    """Return the frame of a message."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    return _HEAD.pack(len(payload) + 1, FrameKind.JSON) + payload


def encode_state(state: bytes) -> Iterator[bytes]:
    """Yield the frames of a state; none for an empty one."""
    for offset in range(0, len(state), PIECE_BYTES):
        piece = state[offset : offset + PIECE_BYTES]
        yield _HEAD.pack(len(piece) + 1, FrameKind.STATE) + piece


class FrameReader:
    """Takes bytes as they come, gives whole frames."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any] | bytes]:
        """Return the messages and pieces of state that are complete with `data`.

        Holds at most one incomplete frame.

        Raises:
            ProtocolError: what came is not of this protocol; the link is of no use any more.
        """
        self._unread += data
        frames: list[dict[str, Any] | bytes] = []
        offset = 0
        while len(self._unread) - offset >= _HEAD.size:
            length, number = _HEAD.unpack_from(self._unread, offset)
            kind = self._checked_kind(number, length)
            end = offset + 4 + length
            if len(self._unread) < end:
                break
            payload = bytes(self._unread[offset + _HEAD.size : end])
            frames.append(payload if kind is FrameKind.STATE else _parse(payload))
            offset = end
        del self._unread[:offset]
        return frames

    @staticmethod
    def _checked_kind(number: int, length: int) -> FrameKind:
        if number not in _LIMITS:
            raise ProtocolError(f"control link: kind of frame {number}; known: 1 and 2")
        kind = FrameKind(number)
        if not 1 <= length <= _LIMITS[kind] + 1:
            limit = _LIMITS[kind]
            raise ProtocolError(
                f"control link: a frame of {length} bytes; allowed: 1 to {limit + 1}"
            )
        return kind


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"control link: not JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("control link: a message is a JSON object")
    return message
