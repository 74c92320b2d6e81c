"""What decompress keeps of each history, so that frames can refer to it.

Blocks are kept in two parts. The larger one is told to compress. What was not used for longest
goes to the smaller one, which is not told any more but still there: a frame that was on its way
when its block moved finds it, unless a quarter of the whole cache came in between.
Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from packetcloud.services.wan_optimizer.feedback import MAX_RANGES
from packetcloud.services.wan_optimizer.framing import Extent

MAX_BLOCKS = 8192
"""Of all histories: 64 MiB of blocks of 8 KiB."""
MAX_HISTORIES = 1024
"""More than one for each partition of compress, and for those before its restart."""
_FADING_SHARE = 4

_Key = tuple[bytes, int]


class LackingError(Exception):
    """A frame refers to what is not kept; the text is the reason that its source is told."""


class KeptHistory:
    """What is told about one history."""

    __slots__ = ("newest_frame", "told")

    def __init__(self) -> None:
        self.newest_frame = 0
        self.told: set[int] = set()

    def ranges(self) -> tuple[range, ...]:
        """Return the blocks as ranges, the newest ones if there are too many."""
        found: list[range] = []
        for number in sorted(self.told, reverse=True):
            if found and found[-1].start == number + 1:
                found[-1] = range(number, found[-1].stop)
            elif len(found) == MAX_RANGES:
                break
            else:
                found.append(range(number, number + 1))
        return tuple(reversed(found))


class KeptBlocks:
    """The blocks of all histories.

    Args:
        max_bytes: of all payloads together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self.forgotten_count = 0
        """Blocks that had to go for others."""
        self._max_bytes = max_bytes
        self._told: OrderedDict[_Key, bytes] = OrderedDict()
        self._told_bytes = 0
        self._fading: OrderedDict[_Key, bytes] = OrderedDict()
        self._histories: OrderedDict[bytes, KeptHistory] = OrderedDict()

    def __len__(self) -> int:
        return len(self._told) + len(self._fading)

    def history(self, history_id: bytes) -> KeptHistory | None:
        """Return what is told about a history; None: nothing of it has come."""
        return self._histories.get(history_id)

    def restored(self, history_id: bytes, frame: int) -> KeptHistory:
        """Note that a frame of the history was restored."""
        history = self._histories.get(history_id)
        if history is None:
            history = self._histories[history_id] = KeptHistory()
            if len(self._histories) > MAX_HISTORIES:
                self._end(next(iter(self._histories)))
        self._histories.move_to_end(history_id)
        history.newest_frame = max(history.newest_frame, frame)
        return history

    def text(self, history_id: bytes, extents: Sequence[Extent]) -> bytes:
        """Return the bytes that extents refer to, one after the other, and note their use.

        Raises:
            LackingError: one of them is not kept, or not so long.
        """
        pieces = []
        for extent in extents:
            key = (history_id, extent.block)
            payload = self._told.get(key)
            if payload is None:
                payload = self._fading.get(key)
            if payload is None:
                raise LackingError("refers to what this cache does not hold")
            end = extent.offset + extent.count_bytes
            if end > len(payload):
                raise LackingError("refers to more than this cache holds")
            pieces.append(memoryview(payload)[extent.offset : end])
        for extent in extents:
            self._use((history_id, extent.block))
        return b"".join(pieces)

    def keep(self, history_id: bytes, number: int, payload: bytes) -> None:
        """Keep a block; one that is kept already stays as it is."""
        key = (history_id, number)
        if key not in self._told and key not in self._fading:
            self.held_bytes += len(payload)
            self._tell(key, payload)
            self._shrink()

    def forget(self, history_id: bytes, extents: Iterable[Extent]) -> None:
        """Drop blocks that turned out to be others than compress has."""
        for number in {extent.block for extent in extents}:
            self._drop((history_id, number))

    def _use(self, key: _Key) -> None:
        if key in self._told:
            self._told.move_to_end(key)
        elif (payload := self._fading.pop(key, None)) is not None:
            self._tell(key, payload)
            self._shrink()

    def _tell(self, key: _Key, payload: bytes) -> None:
        self._told[key] = payload
        self._told_bytes += len(payload)
        self._histories[key[0]].told.add(key[1])

    def _shrink(self) -> None:
        most_bytes = self._max_bytes - self._max_bytes // _FADING_SHARE
        most_count = MAX_BLOCKS - MAX_BLOCKS // _FADING_SHARE
        while self._told_bytes > most_bytes or len(self._told) > most_count:
            key, payload = self._told.popitem(last=False)
            self._told_bytes -= len(payload)
            self._histories[key[0]].told.discard(key[1])
            self._fading[key] = payload
        while self.held_bytes > self._max_bytes or len(self) > MAX_BLOCKS:
            self.forgotten_count += 1
            self._drop(next(iter(self._fading)))

    def _drop(self, key: _Key) -> None:
        payload = self._fading.pop(key, None)
        if payload is None and (payload := self._told.pop(key, None)) is not None:
            self._told_bytes -= len(payload)
            self._histories[key[0]].told.discard(key[1])
        self.held_bytes -= len(payload or b"")

    def _end(self, history_id: bytes) -> None:
        for key in [key for key in (*self._told, *self._fading) if key[0] == history_id]:
            self._drop(key)
        del self._histories[history_id]
