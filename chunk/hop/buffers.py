"""Buffers that bodies live in while they are held: allocated once, reused, never zeroed.

A received body of many segments lies as it came off the wire: one row per segment, the segment's
32-byte header first. So it can land in its place straight from the kernel and go out again on the
next hop with only its headers rewritten. Whoever wants the bytes in one piece pays one copy.

Measured: a fresh 1 MiB buffer for every chunk costs a quarter of the rate (page faults).
Source: design, section 5; docs/decisions/0005.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.hop.wire import DATA_DTYPE, DATA_HEADER_BYTES

ByteArray = npt.NDArray[np.uint8]

READY_BYTES = 64 << 20
"""Of all buffers that are kept ready for the next body of a neighbour: 42 of the largest. Who has
none lands in a scratch and is copied."""
KEPT_FREE_BYTES = 32 << 20
"""Free buffers kept for reuse per node; beyond it those longest in no use go to the system."""
MIN_CLASS_ROWS = 2


class RowBuffer:
    """Rows of `stride` bytes: a segment header and its share of the body in each.

    `array`: (capacity, stride) uint8. `bytes`, `memory`: the same, flat, as an array and as a
    memoryview. `headers`: (capacity,) view as segment headers. `payload`: (capacity, stride - 32)
    view of the rest.
    """

    __slots__ = ("array", "bytes", "capacity", "headers", "memory", "payload", "stride")

    def __init__(self, capacity: int, stride: int) -> None:
        self.capacity = capacity
        self.stride = stride
        self.array: ByteArray = np.empty((capacity, stride), np.uint8)
        self.bytes: ByteArray = self.array.reshape(-1)
        self.memory = self.bytes.data
        self.headers: npt.NDArray[Any] = np.ndarray(
            (capacity,), DATA_DTYPE, self.array.data, 0, (stride,)
        )
        self.payload: ByteArray = self.array[:, DATA_HEADER_BYTES:]

    def landing(self, row: int) -> list[memoryview]:
        """Return where a train lands whose first segment belongs in `row`."""
        return [self.memory[row * self.stride :]]

    def put(self, row: int, segments: memoryview) -> None:
        """Copy consecutive segments, headers included, to where they belong from `row` on."""
        start = row * self.stride
        self.memory[start : start + len(segments)] = segments

    def fits(self, segments: int) -> bool:
        """Tell whether this is the size class that `segments` get."""
        return self.capacity == rows_class(segments)


class FlatBuffer:
    """The body in one piece, for datagrams so large that each is received by a call of its own.

    The kernel splits the datagram: its header lands in a row of `headers`, its share in place.

    `headers`: (capacity, 32) uint8; `header_rows`: each of its rows as a memoryview.
    """

    __slots__ = (
        "array", "capacity", "header_rows", "headers", "memory", "share", "stride",
    )  # fmt: skip

    def __init__(self, array: ByteArray, stride: int) -> None:
        self.array = array
        self.memory = array.data
        self.stride = stride
        self.share = stride - DATA_HEADER_BYTES
        self.capacity = len(array) // self.share
        self.headers: ByteArray = np.empty((self.capacity, DATA_HEADER_BYTES), np.uint8)
        flat = self.headers.reshape(-1).data
        self.header_rows = [
            flat[start : start + DATA_HEADER_BYTES]
            for start in range(0, len(flat), DATA_HEADER_BYTES)
        ]

    def landing(self, row: int) -> list[memoryview]:
        """Return where a datagram lands whose share belongs in `row`."""
        start = row * self.share
        return [self.header_rows[row], self.memory[start : start + self.share]]

    def put(self, row: int, segments: memoryview) -> None:
        """Copy the shares of consecutive segments to where they belong from `row` on."""
        start = row * self.share
        for header in range(0, len(segments), self.stride):
            share = segments[header + DATA_HEADER_BYTES : header + self.stride]
            self.memory[start : start + len(share)] = share
            start += self.share

    def fits(self, segments: int) -> bool:
        """Tell whether this is the size class that `segments` get."""
        return len(self.array) == flat_class(segments * self.share)


Store = RowBuffer | FlatBuffer
JUMBO_BYTES = 16_384
"""From this datagram size on a body is received in one piece and sent a datagram a call."""


class BufferPool:
    """Hands out row buffers and flat buffers by size class, and takes them back.

    Neighbours choose the datagram size, so there may be any number of classes: the one that was
    longest in no use gives way first.
    """

    def __init__(
        self, max_held_bytes: int = sys.maxsize, kept_free_bytes: int = KEPT_FREE_BYTES
    ) -> None:
        self._free: OrderedDict[tuple[int, int], list[RowBuffer | ByteArray]] = OrderedDict()
        """By rows and bytes of each; a flat buffer is one row. Only classes that have some."""
        self._kept_free_bytes = kept_free_bytes
        self.free_bytes = 0
        self.freed_count = 0
        """Buffers that went back to the system."""
        self.ready_bytes = 0
        """Of the buffers that wait for the next body of a neighbour."""
        self.unready_count = 0
        """Bodies that were whole without a buffer being made ready for the next one."""
        self.copied_bytes = 0
        """Of bodies that were copied out of lanes, ever."""
        self.held_bytes = 0
        """Bodies of all neighbours that began here and are not released."""
        self._max_held_bytes = max_held_bytes

    def has_room(self, size: int) -> bool:
        """Tell whether one more body of `size` bytes may be held."""
        return self.held_bytes + size <= self._max_held_bytes

    def take_store(self, segments: int, stride: int) -> Store:
        """Return a buffer for a transfer of `segments` datagrams of `stride` bytes."""
        if stride < JUMBO_BYTES:
            return self.take_rows(segments, stride)
        return FlatBuffer(self.take_flat(segments * (stride - DATA_HEADER_BYTES)), stride)

    def take_ready(self, segments: int, stride: int) -> Store | None:
        """Return a buffer to keep ready for a transfer; None when too many are kept ready."""
        store = self.take_store(segments, stride)
        size = store.capacity * store.stride
        if self.ready_bytes + size > READY_BYTES:
            self.unready_count += 1
            self.give_store(store)
            return None
        self.ready_bytes += size
        return store

    def use_ready(self, store: Store) -> None:
        """A buffer that was kept ready is in use."""
        self.ready_bytes -= store.capacity * store.stride

    def give_store(self, store: Store) -> None:
        if isinstance(store, RowBuffer):
            self.give_rows(store)
        else:
            self.give_flat(store.array)

    def take_rows(self, segments: int, stride: int) -> RowBuffer:
        """Return a buffer of at least `segments` rows; its content is whatever it was."""
        capacity = rows_class(segments)
        free = self._take((capacity, stride))
        return free if isinstance(free, RowBuffer) else RowBuffer(capacity, stride)

    def give_rows(self, buffer: RowBuffer) -> None:
        self._give((buffer.capacity, buffer.stride), buffer)

    def take_flat(self, size: int) -> ByteArray:
        """Return a uint8 array of at least `size` bytes."""
        capacity = flat_class(size)
        free = self._take((1, capacity))
        return free if isinstance(free, np.ndarray) else np.empty(capacity, np.uint8)

    def give_flat(self, array: ByteArray) -> None:
        self._give((1, len(array)), array)

    def _take(self, kind: tuple[int, int]) -> RowBuffer | ByteArray | None:
        free = self._free.get(kind)
        if free is None:
            return None
        self.free_bytes -= kind[0] * kind[1]
        buffer = free.pop()
        if free:
            self._free.move_to_end(kind)
        else:
            del self._free[kind]
        return buffer

    def _give(self, kind: tuple[int, int], buffer: RowBuffer | ByteArray) -> None:
        size = kind[0] * kind[1]
        while self._free and self.free_bytes + size > self._kept_free_bytes:
            self._take(next(iter(self._free)))
            self.freed_count += 1
        if size > self._kept_free_bytes:
            self.freed_count += 1
            return
        self.free_bytes += size
        self._free.setdefault(kind, []).append(buffer)
        self._free.move_to_end(kind)


def rows_class(segments: int) -> int:
    """Round up to 2, 3, 4, 6, 8, 12, 16, 24 ...: at most half as much again is wasted."""
    capacity = MIN_CLASS_ROWS
    while capacity < segments:
        step = capacity + (capacity >> 1)
        if segments <= step:
            return step
        capacity <<= 1
    return capacity


def flat_class(size: int) -> int:
    """Round up to a multiple of an eighth of the next lower power of two, 4 KiB at least."""
    step = max(4096, 1 << max(0, size.bit_length() - 4))
    return (size + step - 1) // step * step


FoundT = TypeVar("FoundT")


class StoredBody:
    """A received body of many segments, as rows or in one piece.

    Args:
        size: of the body.
        held_bytes: what it counts for where it was received, tag included.
        flow: the label that its sender gave it.
    """

    __slots__ = (
        "_flat", "_held_bytes", "_on_release", "_pool", "_released", "_size", "flow", "rows",
    )  # fmt: skip

    def __init__(
        self,
        store: Store | ByteArray,
        size: int,
        pool: BufferPool,
        on_release: Callable[[int, int], None],
        held_bytes: int,
        flow: int = 0,
    ) -> None:
        self.flow = flow
        self.rows: RowBuffer | None = None
        """The rows while the body lies in rows; None once it is in one piece."""
        self._size = size
        self._held_bytes = held_bytes
        self._pool = pool
        self._on_release = on_release
        self._flat: ByteArray | None = None
        self._released = False
        if isinstance(store, RowBuffer):
            self.rows = store
        else:
            self._flat = store.array if isinstance(store, FlatBuffer) else store

    def __len__(self) -> int:
        return self._size

    def head(self, count: int) -> bytes:
        count = min(count, self._size)
        rows = self.rows
        if rows is not None and count <= rows.stride - DATA_HEADER_BYTES:
            return bytes(rows.memory[DATA_HEADER_BYTES : DATA_HEADER_BYTES + count])
        return bytes(self.contiguous()[:count])

    def patch(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        rows = self.rows
        if rows is not None and end <= rows.stride - DATA_HEADER_BYTES:
            rows.memory[DATA_HEADER_BYTES + offset : DATA_HEADER_BYTES + end] = data
        else:
            self.contiguous()[offset:end] = data

    def contiguous(self) -> memoryview:
        if self._released:
            raise LocalMisuseError("a body was used after its release")
        if self._flat is None:
            assert self.rows is not None
            self._flat = self._pool.take_flat(self._size)
            gather(self.rows, self._size, self._flat)
            self._pool.give_rows(self.rows)
            self.rows = None
        return self._flat.data[: self._size]

    def look(self, at: Callable[[memoryview], FoundT]) -> FoundT:
        rows = self.rows
        if rows is None:
            return at(self.contiguous())
        # Each body takes the same piece of memory in turn, which the processor's cache still has,
        # and goes on from its rows.
        flat = self._pool.take_flat(self._size)
        try:
            gather(rows, self._size, flat)
            return at(flat.data[: self._size])
        finally:
            self._pool.give_flat(flat)

    def release(self) -> None:
        if self._released:
            return
        self._released = True
        if self.rows is not None:
            self._pool.give_rows(self.rows)
            self.rows = None
        if self._flat is not None:
            self._pool.give_flat(self._flat)
            self._flat = None
        self._on_release(self._held_bytes, self.flow)


class SmallBody:
    """A received body that came whole in one datagram; `held_bytes` as in `StoredBody`."""

    __slots__ = ("_data", "_held_bytes", "_on_release", "_released", "flow")

    rows = None

    def __init__(
        self,
        data: bytearray,
        on_release: Callable[[int, int], None],
        held_bytes: int,
        flow: int = 0,
    ) -> None:
        self._data = data
        self._held_bytes = held_bytes
        self.flow = flow
        self._on_release = on_release
        self._released = False

    def __len__(self) -> int:
        return len(self._data)

    def head(self, count: int) -> bytes:
        return bytes(self._data[:count])

    def patch(self, offset: int, data: bytes) -> None:
        self._data[offset : offset + len(data)] = data

    def contiguous(self) -> memoryview:
        return memoryview(self._data)

    def look(self, at: Callable[[memoryview], FoundT]) -> FoundT:
        return at(memoryview(self._data))

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._on_release(self._held_bytes, self.flow)


def gather(rows: RowBuffer, size: int, out: ByteArray, first: int = 0) -> None:
    """Copy the first `size` bytes of a body out of `rows` into `out`, but those before row `first`.

    They come to stand in `out` where they are in the body.
    """
    share = rows.stride - DATA_HEADER_BYTES
    whole, rest = divmod(size, share)
    if whole > first:
        part = out[first * share : whole * share].reshape(whole - first, share)
        part[:] = rows.payload[first:whole]
    if rest:
        out[whole * share : size] = rows.payload[whole, :rest]


def join_front(pieces: Iterable[memoryview], size: int) -> bytearray:
    """Copy the first `size` bytes of `pieces`, one behind the other, and nothing beyond them."""
    joined = bytearray()
    for piece in pieces:
        joined += piece[: size - len(joined)]
    return joined
