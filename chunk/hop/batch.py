"""Many datagrams in one system call where the kernel does not join them (no GRO on the path).

`recvmmsg` through ctypes: every datagram lands in its own row, so a batch looks just like a train.
The message headers are one numpy array; nothing is done per datagram in Python.

Source: recvmmsg(2); struct mmsghdr of 64-bit Linux. Decision 0006.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from packetcloud.chunk.hop.buffers import ByteArray

BATCH_COUNT = 44
"""Datagrams per call: as many as one segmentation-offload train has."""
OVERFLOW_BYTES = 65_536
_ADDRESS_BYTES = 28
_MMSGHDR = np.dtype(
    [
        ("name", "u8"), ("name_bytes", "u4"), ("pad1", "u4"),
        ("iov", "u8"), ("iov_count", "u8"),
        ("control", "u8"), ("control_bytes", "u8"),
        ("flags", "i4"), ("pad2", "i4"),
        ("length", "u4"), ("pad3", "u4"),
    ]
)  # fmt: skip
_IOVEC = np.dtype([("base", "u8"), ("length", "u8")])
_MSG_DONTWAIT = 0x40
ADDRESSES_KEPT_COUNT = 1024
"""Decoded addresses of senders: as many as neighbours."""

Group = tuple[ByteArray, int, int, int, Any]
"""Array, first byte, length, bytes of each datagram, address."""


def load_recvmmsg() -> Callable[..., int] | None:
    """Return libc's recvmmsg, or None where the structures below do not fit the machine."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "recvmmsg", None)
    if function is None:
        return None
    function.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p,
    ]  # fmt: skip
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]  # ctypes makes functions by name


class BatchReceiver:
    """Receives up to 44 datagrams at once into consecutive rows."""

    def __init__(self, recvmmsg: Callable[..., int]) -> None:
        self._recvmmsg = recvmmsg
        self._names = np.zeros((BATCH_COUNT, _ADDRESS_BYTES), np.uint8)
        self._overflow: ByteArray = np.empty((BATCH_COUNT, OVERFLOW_BYTES), np.uint8)
        self._vectors = np.zeros((BATCH_COUNT, 2), _IOVEC)
        self._vectors["base"][:, 1] = self._overflow.ctypes.data + OVERFLOW_BYTES * np.arange(
            BATCH_COUNT, dtype=np.uint64
        )
        self._vectors["length"][:, 1] = OVERFLOW_BYTES
        self._headers = np.zeros(BATCH_COUNT, _MMSGHDR)
        count = np.arange(BATCH_COUNT, dtype=np.uint64)
        self._headers["name"] = self._names.ctypes.data + _ADDRESS_BYTES * count
        self._headers["iov"] = self._vectors.ctypes.data + 2 * _IOVEC.itemsize * count
        self._headers["iov_count"] = 2
        self._count = count
        self._addresses: dict[bytes, Any] = {}
        self.forgotten_count = 0
        """Decoded addresses that made room for others."""

    def receive(
        self, fileno: int, array: ByteArray, row_bytes: int
    ) -> tuple[bool, Iterator[Group]] | None:
        """Receive into the rows of `array`, each `row_bytes` long; None when nothing is there.

        Returns:
            Whether the batch is one train in its place, and its groups: datagrams in a row that
            have one source and one size.

        Raises:
            OSError: the socket has an error to report.
        """
        rows = min(BATCH_COUNT, len(array) // row_bytes)
        vectors, headers = self._vectors, self._headers
        vectors["base"][:rows, 0] = array.ctypes.data + row_bytes * self._count[:rows]
        vectors["length"][:rows, 0] = row_bytes
        headers["name_bytes"][:rows] = _ADDRESS_BYTES
        got = self._recvmmsg(fileno, headers.ctypes.data, rows, _MSG_DONTWAIT, None)
        if got < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return None
            raise OSError(number, os.strerror(number))
        lengths = headers["length"][:got]
        names = self._names[:got]
        last = int(lengths[-1])
        if (
            last <= row_bytes
            and (lengths[:-1] == row_bytes).all()
            and (names[1:] == names[0]).all()
        ):
            length = (got - 1) * row_bytes + last
            size = row_bytes if got > 1 else last
            return True, iter([(array, 0, length, size, self._address(names[0]))])
        return False, self._groups(array[: got * row_bytes].copy(), row_bytes, lengths.tolist())

    def _groups(self, rows: ByteArray, row_bytes: int, lengths: list[int]) -> Iterator[Group]:
        """Split a mixed batch; `rows` is a copy, as its place may be written to meanwhile."""
        first = 0
        count = len(lengths)
        while first < count:
            size = lengths[first]
            address = self._address(self._names[first])
            if size > row_bytes:
                start = first * row_bytes
                rest = self._overflow[first, : size - row_bytes]
                whole = np.concatenate((rows[start : start + row_bytes], rest))
                yield whole, 0, size, size, address
                first += 1
                continue
            end = first + 1
            while (
                end < count
                and lengths[end - 1] == row_bytes
                and lengths[end] <= row_bytes
                and self._address(self._names[end]) is address
            ):
                end += 1
            length = (end - first - 1) * row_bytes + lengths[end - 1]
            yield rows, first * row_bytes, length, row_bytes if end - first > 1 else size, address
            first = end

    def _address(self, name: ByteArray) -> Any:
        key = name.tobytes()
        address = self._addresses.get(key)
        if address is None:
            if len(self._addresses) >= ADDRESSES_KEPT_COUNT:
                self.forgotten_count += len(self._addresses)
                self._addresses.clear()
            address = self._addresses[key] = _decode_address(key)
        return address


def _decode_address(raw: bytes) -> Any:
    """Turn a sockaddr into the tuple that the socket module uses."""
    family = int.from_bytes(raw[:2], sys.byteorder)
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    flow = int.from_bytes(raw[4:8], "big")
    scope = int.from_bytes(raw[24:28], sys.byteorder)
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port, flow, scope
