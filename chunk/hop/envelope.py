"""CONTROL and BUNDLE datagrams of one session: numbered, sealed, and opened once each.

In an open session nothing is sealed and counters are not looked at: on a private link nobody
replays.

Source: docs/protocol/hop.md, "CONTROL" and "Counters".
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.hop.datagrams import (
    BUNDLE_BYTE,
    BUNDLE_HEADER,
    BUNDLE_HEADER_BYTES,
    CONTROL_BYTE,
    CONTROL_HEADER,
    CONTROL_HEADER_BYTES,
    MAX_CONTROL_BYTES,
    MAX_FRAMES_BYTES,
    SEALED,
    TAG_BYTES,
)
from packetcloud.chunk.hop.frames import (
    FRAME_HEAD_BYTES,
    FrameType,
    PaddingFrame,
    StrideFrame,
    StrideStep,
)
from packetcloud.chunk.hop.greetings import REJECT_BYTES
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.replay import ReplayWindow
from packetcloud.chunk.hop.suites import NONCE_BYTES

MIN_CONTROL_BYTES = REJECT_BYTES + FRAME_HEAD_BYTES
"""Shorter ones are padded, so that a node that does not know the session may say so in no more."""


_STRIDE_TYPE = bytes([FrameType.STRIDE])


class Envelope:
    """Wraps what one session sends besides DATA, and unwraps what it gets.

    Args:
        remote_id: the session id that the neighbour chose.
        ring: the keys; None in an open session.
    """

    def __init__(self, remote_id: int, ring: KeyRing | None) -> None:
        self._remote_id = remote_id
        self._ring = ring
        self._counter = 0
        self._window = ReplayWindow()
        self.max_probe_bytes = MAX_CONTROL_BYTES
        """What a padded probe of the neighbour may have; other CONTROL datagrams have less."""
        self.is_newest = False
        """The datagram opened last had the largest counter so far."""

    @property
    def overhead_bytes(self) -> int:
        """What sealing adds to each datagram."""
        return TAG_BYTES if self._ring is not None else 0

    # --- sending --------------------------------------------------------------------------------

    def control(self, frames: Sequence[bytes]) -> bytes:
        """Return a CONTROL datagram with these encoded frames.

        Raises:
            LocalMisuseError: longer than 1200 bytes.
        """
        content = b"".join(frames)
        missing = MIN_CONTROL_BYTES - CONTROL_HEADER_BYTES - self.overhead_bytes - len(content)
        if missing > 0:
            content += PaddingFrame(max(0, missing - FRAME_HEAD_BYTES)).to_bytes()
        if len(content) > MAX_FRAMES_BYTES:
            raise LocalMisuseError(f"{len(content)} bytes of frames in one datagram")
        self._counter += 1
        header = CONTROL_HEADER.pack(
            CONTROL_BYTE, self._second_byte(), 0, self._remote_id, self._counter
        )
        if self._ring is None:
            return header + content
        keys = self._ring.send
        return header + keys.control.encrypt(_nonce(self._counter), content, header)

    def probe(self, size: int) -> bytes:
        """Return a sealed CONTROL datagram of `size` bytes that asks whether it arrives."""
        assert self._ring is not None
        frame = StrideFrame(StrideStep.PROBE, size).to_bytes()
        rest = size - CONTROL_HEADER_BYTES - TAG_BYTES - len(frame) - FRAME_HEAD_BYTES
        content = frame + PaddingFrame(rest).to_bytes()
        self._counter += 1
        header = CONTROL_HEADER.pack(
            CONTROL_BYTE, self._second_byte(), 0, self._remote_id, self._counter
        )
        return header + self._ring.send.control.encrypt(_nonce(self._counter), content, header)

    def bundle(self, burst: int, count: int, records: bytes) -> bytes:
        """Return a BUNDLE datagram with `count` encoded records and their padding."""
        self._counter += 1
        header = BUNDLE_HEADER.pack(
            BUNDLE_BYTE,
            self._second_byte(),
            0,
            self._remote_id,
            self._counter,
            burst & 0xFFFF_FFFF,
            count,
            0,
        )
        if self._ring is None:
            return header + records
        keys = self._ring.send
        return header + keys.control.encrypt(_nonce(self._counter), records, header)

    def _second_byte(self) -> int:
        return SEALED | self._ring.send.epoch % 16 << 4 if self._ring is not None else 0

    # --- receiving ------------------------------------------------------------------------------

    def open_control(self, datagram: bytes) -> bytes:
        """Return the frames of a CONTROL datagram of this session, proven and seen for the first
        time.

        Raises:
            ProtocolError: and nothing was changed by it.
        """
        most = self.max_probe_bytes
        if not CONTROL_HEADER_BYTES <= len(datagram) <= most:
            word = "short_control" if len(datagram) < CONTROL_HEADER_BYTES else "long_control"
            raise ProtocolError(word, f"{len(datagram)} bytes")
        _, second, reserved, _, counter = CONTROL_HEADER.unpack_from(datagram)
        if reserved:
            raise ProtocolError("reserved_bits")
        content = self._open(datagram, CONTROL_HEADER_BYTES, second, counter)
        if len(datagram) > MAX_CONTROL_BYTES and content[:1] != _STRIDE_TYPE:
            raise ProtocolError("long_control", f"{len(datagram)} bytes, and no probe")
        return content

    def open_bundle(self, datagram: memoryview) -> tuple[int, int, memoryview]:
        """Return burst (low 32 bits), record count and records of a BUNDLE datagram.

        Raises:
            ProtocolError: and nothing was changed by it.
        """
        if len(datagram) < BUNDLE_HEADER_BYTES:
            raise ProtocolError("short_bundle", f"{len(datagram)} bytes")
        _, second, reserved, _, counter, burst, count, zero = BUNDLE_HEADER.unpack_from(datagram)
        if reserved or zero:
            raise ProtocolError("reserved_bits")
        if self._ring is None and not second:
            return burst, count, datagram[BUNDLE_HEADER_BYTES:]
        records = self._open(datagram, BUNDLE_HEADER_BYTES, second, counter)
        return burst, count, memoryview(records)

    def _open(self, datagram: bytes | memoryview, head: int, second: int, counter: int) -> bytes:
        ring = self._ring
        if ring is None:
            if second:
                raise ProtocolError("reserved_bits")
            return bytes(datagram[head:])
        if second & 15 != SEALED:
            raise ProtocolError("not_sealed")
        keys = ring.receive_keys(second >> 4)
        self._window.check(counter)
        try:
            content = keys.control.decrypt(
                _nonce(counter), bytes(datagram[head:]), bytes(datagram[:head])
            )
        except InvalidTag:
            raise ProtocolError("bad_tag") from None
        self.is_newest = self._window.note(counter)
        ring.note_used(keys)
        return content


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(NONCE_BYTES, "big")
