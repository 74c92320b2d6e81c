"""How a burst is laid: headers and shares of many segments at once, by strided copies.

Source: docs/protocol/hop.md, "DATA" and "BUNDLE"; design, section 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Buffer
from packetcloud.chunk.hop.buffers import JUMBO_BYTES, ByteArray
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.outgoing import Outgoing

_INDICES = np.arange(1 << 16, dtype=">u4")
"""Segment indices as they travel; a body beyond 65 536 segments counts on from them."""


class BurstLayout:
    """Lays the bursts of one session into a scratch that each new burst overwrites."""

    def __init__(self, session: int, stride: int, rows: int, envelope: Envelope) -> None:
        self._session = session
        self._envelope = envelope
        self._stride = stride
        self._share = stride - wire.DATA_HEADER_BYTES
        self._scratch: ByteArray = np.empty((rows, stride), np.uint8)
        self._flat = self._scratch.reshape(-1).data
        self._shares = self._scratch[:, wire.DATA_HEADER_BYTES :]
        self._headers: npt.NDArray[Any] = np.ndarray(
            (rows,), wire.DATA_DTYPE, self._scratch.data, 0, (stride,)
        )
        self._transfer = -1
        """The transfer whose constant header fields the scratch holds."""

    def rows(
        self, outgoing: Outgoing, index: int, count: int, burst: int
    ) -> tuple[list[Buffer], int]:
        """Return the buffers of segments [index, index + count), and their bytes in all."""
        stride = self._stride
        size = count * stride
        end = index + count
        if end == outgoing.segments:
            size -= outgoing.segments * self._share - outgoing.body_bytes
        body = outgoing.body
        if body is not None and body.rows is not None:
            headers = body.rows.headers
            if outgoing.first_burst == burst:
                self._fill(headers[: outgoing.segments], outgoing)
                headers["index"][: outgoing.segments] = indices(0, outgoing.segments)
            headers["burst"][index:end] = burst & 0xFFFF_FFFF
            start = index * stride
            return [body.rows.memory[start : start + size]], size
        if outgoing.seal is not None:
            outgoing.seal.seal_to(min(end * self._share, outgoing.body_bytes))
        if stride >= JUMBO_BYTES:
            return self._jumbo(outgoing, index, end, burst), size
        headers = self._headers
        if self._transfer != outgoing.transfer:
            self._transfer = outgoing.transfer
            self._fill(headers, outgoing)
        headers["index"][:count] = indices(index, end)
        headers["burst"][:count] = burst & 0xFFFF_FFFF
        if outgoing.keys is not None:
            headers["check"][:count] = _checks(outgoing, index, end, burst)
        self._copy(outgoing, index, count)
        return [self._flat[:size]], size

    def _fill(self, headers: npt.NDArray[Any], outgoing: Outgoing) -> None:
        headers["type"] = wire.DATA_BYTE
        headers["kind"] = outgoing.second
        headers["flow"] = outgoing.flow
        headers["session"] = self._session
        headers["transfer"] = outgoing.transfer & 0xFFFF_FFFF
        headers["body_bytes"] = outgoing.body_bytes
        headers["check"] = 0

    def _copy(self, outgoing: Outgoing, index: int, count: int) -> None:
        """Copy segments [index, index + count) of a flat body into the rows of the scratch."""
        share, prefix = self._share, outgoing.prefix
        rows = self._shares
        payload = np.frombuffer(outgoing.payload, np.uint8)
        row = 0
        if index == 0 and prefix:
            taken = min(share - len(prefix), len(payload))
            rows[0, : len(prefix)] = np.frombuffer(prefix, np.uint8)
            rows[0, len(prefix) : len(prefix) + taken] = payload[:taken]
            row = 1
        start = (index + row) * share - len(prefix)
        whole = min(count - row, (len(payload) - start) // share)
        if whole > 0:
            rows[row : row + whole] = payload[start : start + whole * share].reshape(whole, share)
            row += whole
            start += whole * share
        if row < count:
            rest = len(payload) - start
            rows[row, :rest] = payload[start:]

    def _jumbo(self, outgoing: Outgoing, index: int, end: int, burst: int) -> list[Buffer]:
        """Return header and share of each datagram, one after the other; nothing is copied."""
        pack = wire.DATA_HEADER.pack
        share, skip, payload = self._share, len(outgoing.prefix), outgoing.payload
        low, second, size = outgoing.transfer & 0xFFFF_FFFF, outgoing.second, outgoing.body_bytes
        burst &= 0xFFFF_FFFF
        checks = [0] * (end - index)
        if outgoing.keys is not None:
            checks = _checks(outgoing, index, end, burst).tolist()
        flow, session = outgoing.flow, self._session
        pieces: list[Buffer] = []
        for number, check in zip(range(index, end), checks, strict=True):
            header = pack(wire.DATA_BYTE, second, flow, session, low, size, number, burst, check)
            start = number * share - skip
            if number:
                pieces += (header, payload[start : start + share])
            else:
                pieces += (header + outgoing.prefix, payload[: share - skip])
        return pieces

    def bundles(
        self, datagrams: list[list[Outgoing]], sizes: list[int], burst: int
    ) -> tuple[bytes, int]:
        """Return a burst of BUNDLE datagrams, zero padded to one size, and that size.

        Args:
            datagrams: the small bodies of each datagram.
            sizes: bytes of each datagram, its header included and its tag not.
        """
        longest = max(sizes)
        laid: list[bytes] = []
        for bodies, size in zip(datagrams, sizes, strict=True):
            records = _records(bodies) + bytes(longest - size)
            laid.append(self._envelope.bundle(burst, len(bodies), records))
        return b"".join(laid), longest + self._envelope.overhead_bytes


def _records(bodies: list[Outgoing]) -> bytes:
    """Return small bodies as they travel in one BUNDLE."""
    pack = wire.RECORD.pack
    pieces: list[Buffer] = []
    for body in bodies:
        low, size, loan = body.transfer & 0xFFFF_FFFF, body.record_bytes, body.loan
        if loan is not None:
            pieces.append(pack(low, size, body.kind, wire.FORM_LENT, body.flow))
            pieces.append(wire.REFERENCE.pack(loan.start, loan.size))
            continue
        pieces.append(pack(low, size, body.kind, wire.FORM_WHOLE, body.flow))
        if body.prefix:
            pieces.append(body.prefix)
        pieces.append(body.payload)
    return b"".join(pieces)


def _checks(outgoing: Outgoing, index: int, end: int, burst: int) -> npt.NDArray[Any]:
    """Return the header checks of segments [index, end) of a sealed body."""
    assert outgoing.keys is not None
    return outgoing.keys.check.make(
        outgoing.kind,
        outgoing.flow,
        outgoing.transfer & 0xFFFF_FFFF,
        outgoing.body_bytes,
        indices(index, end),
        burst & 0xFFFF_FFFF,
        end - index,
    )


def indices(first: int, end: int) -> npt.NDArray[Any]:
    """Return the indices [first, end) in network order."""
    if end <= len(_INDICES):
        return _INDICES[first:end]
    return np.arange(first, end, dtype=">u4")
