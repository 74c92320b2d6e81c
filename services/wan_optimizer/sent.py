"""What compress sent, may refer to, and finds again: histories and their blocks.

A block is the payload of one chunk. A history is the blocks of one partition, under an id that
nobody has used before: after a restart there is another history, and nobody mistakes one for the
other. Memory is bounded over all histories: the block unused for longest goes.
Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from packetcloud.services.wan_optimizer.anchors import Anchors
from packetcloud.services.wan_optimizer.feedback import Feedback
from packetcloud.services.wan_optimizer.framing import (
    MAX_BLOCK_NUMBER,
    MAX_EXTENTS,
    MAX_FRAME_NUMBER,
    MAX_REFERRED_BYTES,
    Extent,
)
from packetcloud.services.wan_optimizer.peers import Peers

MAX_PARTITIONS = 256
"""Histories at once; the one unused for longest ends. Each has its own index and peers."""
ANCHOR_COST_BYTES = 128
"""What an anchor takes in the index: it counts as part of its block."""
_MAX_CANDIDATES = 12
"""Blocks that are compared with a payload: each costs 0.1 ms."""
_GAP_BYTES = 256 << 10
"""Anchors of one block that lie closer than this belong to one piece."""
_MARGIN_BYTES = 4 << 10
"""What a piece has before its first anchor and behind its last."""
_REACH_BYTES = 64 << 10
"""How far a piece goes on where the payload has no more anchors that it shares with the block; of
the block that has most of them, as far as the payload goes."""
_ROOM_BYTES = 64 << 10
"""Pieces together have as many bytes as the payload, a half more, and this."""


class Block:
    """One payload that was sent."""

    __slots__ = ("_places", "_sorted", "history", "number", "payload")

    def __init__(self, history: History, number: int, payload: bytes, anchors: Anchors) -> None:
        self.history = history
        self.number = number
        self.payload = payload
        places, hashes = anchors
        self._sorted, first = np.unique(hashes, return_index=True)
        self._places = places[first]

    @property
    def anchors(self) -> list[int]:
        """The hashes of its anchors, each once."""
        hashes: list[int] = self._sorted.tolist()
        return hashes

    @property
    def cost_bytes(self) -> int:
        return len(self.payload) + ANCHOR_COST_BYTES * len(self._sorted)

    def shared(self, anchors: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return where in this block each of `anchors` lies, -1 where it does not."""
        if not len(self._sorted):
            return np.full(len(anchors), -1)
        at = np.minimum(np.searchsorted(self._sorted, anchors), len(self._sorted) - 1)
        return np.where(self._sorted[at] == anchors, self._places[at], -1)

    def pieces(
        self,
        here: NDArray[np.int64],
        there: NDArray[np.int64],
        payload_bytes: int,
        reach_bytes: int,
    ) -> list[Extent]:
        """Return the pieces that some anchors lie in, the one with most of them first.

        Args:
            here: where they lie in this block.
            there: where in the payload: what is before the first and behind the last there is taken
                to be alike, too, though nothing says so.
            reach_bytes: how far at the most.
        """
        order = np.argsort(here, kind="stable")
        here, there = here[order], there[order]
        starts = np.flatnonzero(np.diff(here, prepend=-(1 << 62)) > _GAP_BYTES)
        ends = np.append(starts[1:], len(here))
        pieces: list[Extent] = []
        for at in np.argsort(starts - ends, kind="stable")[:MAX_EXTENTS].tolist():
            first, last = starts[at], ends[at] - 1
            before = min(int(there[first]), reach_bytes) + _MARGIN_BYTES
            behind = min(payload_bytes - int(there[last]), reach_bytes) + _MARGIN_BYTES
            start = max(0, int(here[first]) - before)
            end = min(len(self.payload), int(here[last]) + behind)
            pieces.append(Extent(self.number, start, end - start))
            reach_bytes = min(reach_bytes, _REACH_BYTES)
        return pieces

    def anchors_between(self, start: int, count_bytes: int) -> NDArray[np.uint64]:
        """Return the hashes of those that lie in a piece of it."""
        return self._sorted[(self._places >= start) & (self._places < start + count_bytes)]


class History:
    """The blocks of one partition, and in which kept one each anchor was seen last."""

    def __init__(self, history_id: bytes) -> None:
        self.history_id = history_id
        self.next_frame = 0
        self.next_block = 0
        self.blocks: dict[int, Block] = {}
        self.peers = Peers()
        self._index: dict[int, int] = {}
        self._unindexed: dict[int, Block] = {}
        """Blocks that no cache is known to keep: nothing refers to them yet."""

    @property
    def is_used_up(self) -> bool:
        """True when there is no number left for a frame or a block."""
        return self.next_block > MAX_BLOCK_NUMBER or self.next_frame > MAX_FRAME_NUMBER

    def alike(
        self, payload_bytes: int, anchors: Anchors, holds: Callable[[int], bool]
    ) -> tuple[list[Extent], float]:
        """Return the pieces that look most like a payload, the best last, within its limits, and
        which share of its anchors they have.

        The index knows one place of each anchor, so it only tells which blocks are worth a look;
        of these each is compared whole, the one that has most of what is still missing first.

        Args:
            holds: tells which blocks may be referred to.
        """
        missing, first = np.unique(anchors[1], return_index=True)
        places = anchors[0][first]
        count = max(1, len(missing))
        reach_bytes = payload_bytes
        candidates = [block for block in self._candidates(missing) if holds(block.number)]
        left_bytes = min(MAX_REFERRED_BYTES, payload_bytes + payload_bytes // 2 + _ROOM_BYTES)
        extents: list[Extent] = []
        while candidates and len(missing):
            found = [block.shared(missing) for block in candidates]
            best = max(range(len(found)), key=lambda at: int(np.count_nonzero(found[at] >= 0)))
            here = found[best]
            if not (here >= 0).any():
                break
            block = candidates.pop(best)
            pieces = block.pieces(here[here >= 0], places[here >= 0], payload_bytes, reach_bytes)
            reach_bytes = _REACH_BYTES
            for extent in pieces:
                if extent.count_bytes <= left_bytes and len(extents) < MAX_EXTENTS:
                    left_bytes -= extent.count_bytes
                    extents.append(extent)
                    covered = block.anchors_between(extent.offset, extent.count_bytes)
                    left = np.isin(missing, covered, invert=True)
                    missing, places = missing[left], places[left]
        extents.reverse()
        return extents, 1 - len(missing) / count

    def text(self, extents: list[Extent]) -> bytes:
        """Return the bytes of the pieces, one after the other."""
        return b"".join(
            memoryview(self.blocks[e.block].payload)[e.offset : e.offset + e.count_bytes]
            for e in extents
        )

    def add(self, block: Block) -> None:
        """Take in a block; it is found when a cache says that it keeps it."""
        self.blocks[block.number] = block
        self._unindexed[block.number] = block

    def told(self, feedback: Feedback, now: float) -> None:
        """Take in what a cache says of itself."""
        view = self.peers.told(feedback, now)
        for block in [one for one in self._unindexed.values() if view.holds(one.number)]:
            del self._unindexed[block.number]
            self._index.update(zip(block.anchors, repeat(block.number)))

    def _candidates(self, anchors: NDArray[np.uint64]) -> list[Block]:
        """Return the blocks in which most of the anchors were seen last."""
        found = np.fromiter(
            map(self._index.get, anchors.tolist(), repeat(-1)), np.int64, len(anchors)
        )
        numbers, counts = np.unique(found[found >= 0], return_counts=True)
        best = np.argsort(-counts, kind="stable")[:_MAX_CANDIDATES]
        return [self.blocks[number] for number in numbers[best].tolist()]

    def remove(self, block: Block) -> None:
        """Forget a block, and where its anchors lie."""
        del self.blocks[block.number]
        self._unindexed.pop(block.number, None)
        for anchor in block.anchors:
            if self._index.get(anchor) == block.number:
                del self._index[anchor]


class SentBlocks:
    """All histories of one service, and their common bound.

    Args:
        max_bytes: of all blocks and what finds them.
        new_id: returns 8 bytes that nobody guesses.
    """

    def __init__(self, max_bytes: int, new_id: Callable[[], bytes]) -> None:
        self.held_bytes = 0
        self.forgotten_count = 0
        """Blocks that had to go for others."""
        self._max_bytes = max_bytes
        self._new_id = new_id
        self._histories: OrderedDict[bytes, History] = OrderedDict()
        self._by_use: OrderedDict[tuple[bytes, int], Block] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_use)

    def history_of(self, partition: bytes) -> History:
        """Return the history of a partition; a new one if it has none."""
        history = self._histories.get(partition)
        if history is None or history.is_used_up:
            if history is not None:
                self._end(self._histories.pop(partition))
            if len(self._histories) >= MAX_PARTITIONS:
                self._end(self._histories.popitem(last=False)[1])
            history = self._histories[partition] = History(self._new_id())
        self._histories.move_to_end(partition)
        return history

    def history_with(self, history_id: bytes) -> History | None:
        """Return the history of that id, None if it has ended."""
        return next((h for h in self._histories.values() if h.history_id == history_id), None)

    def keep(self, history: History, payload: bytes, anchors: Anchors) -> int:
        """Remember a payload under the next number of its history; return the number."""
        number = history.next_block
        history.next_block += 1
        block = Block(history, number, payload, anchors)
        history.add(block)
        self._by_use[history.history_id, number] = block
        self.held_bytes += block.cost_bytes
        while self.held_bytes > self._max_bytes and len(self._by_use) > 1:
            self.forgotten_count += 1
            self._forget(next(iter(self._by_use.values())))
        return number

    def used(self, history: History, extents: list[Extent]) -> None:
        """Note that blocks are of use: they go later."""
        for extent in extents:
            self._by_use.move_to_end((history.history_id, extent.block))

    def _forget(self, block: Block) -> None:
        del self._by_use[block.history.history_id, block.number]
        self.held_bytes -= block.cost_bytes
        block.history.remove(block)

    def _end(self, history: History) -> None:
        for block in list(history.blocks.values()):
            self._forget(block)
