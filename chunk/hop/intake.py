"""What a hop node's socket has received, handed to the core in the largest pieces there are.

Trains that continue the body in hand land in their place, one behind the other, and are looked at
together. Where nothing joins datagrams on the way (no GRO), many are received in one system call.

Source: docs/decisions/0006.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from packetcloud.chunk.hop.batch import BatchReceiver, load_recvmmsg
from packetcloud.chunk.hop.buffers import JUMBO_BYTES, FlatBuffer, RowBuffer, join_front
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.offload import disable_coalescing, enable_coalescing
from packetcloud.chunk.hop.wire import DATA_BYTE, DATA_HEADER_BYTES

RECEIVES_PER_TURN = 16
BYTES_PER_TURN = 1 << 20
"""Taken in before answers and what is to be passed on go out: reading and sending take turns often
enough that neither side of a router waits for the other."""
SINGLES_BEFORE_BATCH = 64
"""So many full datagrams that came alone, one after the other: nothing joins them on this path."""
BATCHES_IN_A_ROW = 4096
"""Then coalescing is tried again."""
_FULL_BYTES = 1200
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)

_log = logging.getLogger(__name__)


class Intake:
    """Receives from one socket for one core.

    Args:
        read_errors: called when the socket has an error to report instead of data.
    """

    def __init__(self, core: HopCore, sock: socket.socket, read_errors: Callable[[], None]) -> None:
        self._core = core
        self._place = core.landing_place
        self._socket = sock
        self._read_errors = read_errors
        recvmmsg = load_recvmmsg()
        self._batch = BatchReceiver(recvmmsg) if recvmmsg is not None else None
        self._batches_left = 0
        self._singles = 0
        self.is_open = True

    def close(self) -> None:
        """Take nothing in any more."""
        self.is_open = False

    def take_turn(self, limit_bytes: int = BYTES_PER_TURN) -> bool:
        """Take in what has arrived, a train beyond a limit at most; tell whether anything had."""
        left, pool = limit_bytes, self._core.pool
        for _ in range(RECEIVES_PER_TURN):
            if left <= 0 or not self.is_open:
                break
            copied = pool.copied_bytes
            try:
                received = self._receive_batch() if self._batches_left else 0
                left -= received or self._receive_run(left) or self._receive_train()
            except BlockingIOError:
                break
            except OSError:
                self._read_errors()
            except Exception:  # a fault of ours in one chunk must not close the port for all
                self._core.dropped["internal_error"] += 1
                _log.exception("hop: fault while taking in a train")
            left -= pool.copied_bytes - copied
        return left < limit_bytes

    def _receive_run(self, limit_bytes: int) -> int:
        """Receive trains that follow each other into the body in hand, and look at them at once.

        Returns the bytes taken in, 0 when there is no body in hand. The run ends with the body,
        with the limit, with whatever does not fit in, and when nothing more is there.

        Raises:
            BlockingIOError: there is nothing.
        """
        place = self._place.landing_run()
        if place is None:
            return 0
        store, first, end, expected = place
        if isinstance(store, FlatBuffer):
            return self._receive_split(store, first, end, expected, limit_bytes)
        return self._receive_rows(store, first, end, expected, limit_bytes)

    def _receive_rows(
        self, rows: RowBuffer, first: int, end: int, expected: Any, limit_bytes: int
    ) -> int:
        """Receive full trains of `expected` into rows [first, end)."""
        core = self._core
        stride, memory, scratch = rows.stride, rows.memory, self._place.scratch
        receive = self._socket.recvmsg_into
        row, length = first, 0
        other: tuple[bytearray, int, Any] | None = None
        while row < end:
            region = memory[row * stride :]
            try:
                size, ancillary, _, address = receive((region, scratch), _ANCILLARY_BYTES)
            except OSError as error:
                if not length:
                    raise
                if not isinstance(error, BlockingIOError):
                    self._read_errors()
                break
            row_bytes = _row_bytes(ancillary, size)
            if address != expected or row_bytes != stride or size > len(region):
                other = (join_front((region, scratch), size), row_bytes, address)
                break
            if ancillary:
                self._singles = 0
            else:
                self._note_single()
            length += size
            row += size // stride
            if size % stride or self._batches_left or length >= limit_bytes:
                break
        now = time.monotonic()
        if length:
            core.receive_run(rows, first, length, expected, now)
        if other is not None:
            length += self._take_other(*other, now)
        return length or 1

    def _receive_split(
        self, store: FlatBuffer, first: int, end: int, expected: Any, limit_bytes: int
    ) -> int:
        """Receive jumbo datagrams of `expected`, their headers apart and their shares in place."""
        core = self._core
        stride, scratch = store.stride, self._place.scratch
        receive = self._socket.recvmsg_into
        row, length, last_bytes = first, 0, 0
        other: tuple[bytearray, int, Any] | None = None
        while row < end and length < limit_bytes:
            pieces = [*store.landing(row), scratch]
            try:
                size, ancillary, _, address = receive(pieces, _ANCILLARY_BYTES)
            except OSError as error:
                if not length:
                    raise
                if not isinstance(error, BlockingIOError):
                    self._read_errors()
                break
            is_data = DATA_HEADER_BYTES < size <= stride and pieces[0][0] == DATA_BYTE
            if address != expected or ancillary or not is_data:
                other = (join_front(pieces, size), _row_bytes(ancillary, size), address)
                break
            length += size
            last_bytes = size
            row += 1
            if size < stride:
                break
        now = time.monotonic()
        if length:
            core.receive_split(store, first, row - first, last_bytes, expected, now)
        if other is not None:
            length += self._take_other(*other, now)
        return length or 1

    def _take_other(self, data: bytearray, row_bytes: int, address: Any, now: float) -> int:
        """Take in what ended a run; return its bytes."""
        if data:
            array = np.frombuffer(data, np.uint8)
            self._core.receive_elsewhere(array, len(data), row_bytes, address, now)
        return len(data)

    def _receive_train(self) -> int:
        """Receive what the kernel has in one piece, and return its bytes.

        Raises:
            BlockingIOError: there is nothing.
        """
        buffers = self._place.landing()
        length, ancillary, _, address = self._socket.recvmsg_into(buffers, _ANCILLARY_BYTES)
        row_bytes = _row_bytes(ancillary, length)
        if not length:
            return 1
        if row_bytes == length and len(buffers) == 2 and length >= _FULL_BYTES:
            self._note_single()
        elif row_bytes < length:
            self._singles = 0
        self._core.receive_train(length, row_bytes, address, time.monotonic())
        return length

    def _receive_batch(self) -> int:
        """Receive many single datagrams; returns their bytes, 0 when there is no place for them."""
        core = self._core
        place = self._place.landing_rows()
        if place is None or self._batch is None or place[1] > JUMBO_BYTES:
            return 0
        self._batches_left -= 1
        if not self._batches_left:
            enable_coalescing(self._socket)
            self._singles = 0
        received = self._batch.receive(self._socket.fileno(), *place)
        if received is None:
            raise BlockingIOError
        now = time.monotonic()
        in_place, groups = received
        total = 0
        for array, start, length, row_bytes, address in groups:
            total += length
            if in_place:
                core.receive_train(length, row_bytes, address, now)
            else:
                core.receive_elsewhere(array[start:], length, row_bytes, address, now)
        return total

    def _note_single(self) -> None:
        """Count full datagrams that came alone; after many, take them by batches."""
        self._singles += 1
        if self._singles >= SINGLES_BEFORE_BATCH and self._batch is not None:
            disable_coalescing(self._socket)
            self._batches_left = BATCHES_IN_A_ROW


def _row_bytes(ancillary: list[tuple[int, int, bytes]], size: int) -> int:
    """Return the bytes of each datagram of a train; the kernel tells of nothing but UDP_GRO."""
    return int.from_bytes(ancillary[0][2][:2], sys.byteorder) if ancillary else size
