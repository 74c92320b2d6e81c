"""Finding what a bad link altered in a body: by digests of its segments, asked of the sender.

The tag of a body says that something of it is wrong, not what. Instead of all of it the receiver
asks for a keyed digest of each segment, compares, and calls those missing again that differ.

Source: docs/protocol/hop.md, "Damage"; docs/decisions/0009.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Container, Iterable, Iterator
from enum import Enum, auto

import numpy as np

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.buffers import RowBuffer, Store
from packetcloud.chunk.hop.incoming import Incoming
from packetcloud.chunk.hop.outgoing import Outgoing

DIGEST_FRAMES_PER_QUESTION = 8
"""Answers to one DIGESTS_WANTED: 1120 segments, more than 1 MiB in the smallest datagrams."""
DIGESTS_PAUSE_S = 0.005
"""Between two answers of one node: 1120 digests take 2 ms, and a neighbour may ask for ever."""
ASKER_MEMORY_S = 1.0
"""A neighbour that asked within so long has its share of the answers kept for it."""

_SALT = struct.Struct(">QQ")


def segment_digests(key: bytes, transfer: int, first: int, shares: Iterable[memoryview]) -> bytes:
    """Return the digests of consecutive segments, 8 bytes each. Cost: 2 microseconds each."""
    blake2b, size, pack = hashlib.blake2b, wire.DIGEST_BYTES, _SALT.pack
    return b"".join(
        blake2b(share, key=key, digest_size=size, salt=pack(transfer, index)).digest()
        for index, share in enumerate(shares, first)
    )


def stored_shares(store: Store, body_bytes: int, first: int, end: int) -> Iterator[memoryview]:
    """Yield the shares of segments [first, end) of a body in `store`."""
    share = store.stride - wire.DATA_HEADER_BYTES
    for index in range(first, end):
        size = min(share, body_bytes - index * share)
        is_rows = isinstance(store, RowBuffer)
        at = index * store.stride + wire.DATA_HEADER_BYTES if is_rows else index * share
        yield store.memory[at : at + size]


class Phase(Enum):
    """What a repair waits for."""

    DIGESTS = auto()
    SEGMENTS = auto()


class Repair:
    """A sealed transfer that was whole, and not as it was sent."""

    def __init__(self, incoming: Incoming) -> None:
        assert incoming.keys is not None, "only a seal tells that something was altered"
        self.incoming = incoming
        self._key = incoming.keys.digest_key
        self._asked_at = float("-inf")
        self.compared_below = 0
        """All segments below this one were compared."""
        self._answer_end = 0
        """How far the answer to the last question goes."""
        self._altered: list[int] = []
        self.phase = Phase.DIGESTS

    def restart(self) -> None:
        """Its tag is wrong again: what came anew was altered too."""
        self.phase = Phase.DIGESTS
        self.compared_below, self._altered, self._asked_at = 0, [], float("-inf")

    def take_digests(self, frame: wire.DigestsFrame) -> list[int] | None:
        """Compare; return the altered segments once all were compared, else None.

        They are missing again from then on.
        """
        incoming, first = self.incoming, frame.first
        end = first + len(frame.digests) // wire.DIGEST_BYTES
        is_next = self.phase is Phase.DIGESTS and first == self.compared_below
        if not is_next or end > incoming.segments:
            return None  # an answer to a question that was asked twice
        shares = stored_shares(incoming.store, incoming.body_bytes, first, end)
        found = segment_digests(self._key, incoming.transfer, first, shares)
        wanted = np.frombuffer(frame.digests, ">u8")
        differing = np.flatnonzero(np.frombuffer(found, ">u8") != wanted)
        self._altered += (differing + first).tolist()
        self.compared_below = end
        if end >= self._answer_end:
            self._asked_at = float("-inf")  # go on at once
        if end < incoming.segments:
            return None
        self.phase = Phase.SEGMENTS
        if self._altered:
            incoming.miss(self._altered)
        return self._altered

    def due_at(self, patience_s: float) -> float:
        """Return when `questions` has something to say."""
        return self._asked_at + patience_s

    def questions(self, largest_burst: int, now: float) -> Iterator[bytes]:
        """Yield the frames that ask for digests, or for the altered segments that are not here."""
        self._asked_at = now
        low, got = self.incoming.transfer & 0xFFFF_FFFF, self.incoming.got
        if self.phase is Phase.DIGESTS:
            count = DIGEST_FRAMES_PER_QUESTION * wire.MAX_DIGESTS_COUNT
            self._answer_end = min(self.incoming.segments, self.compared_below + count)
            yield wire.DigestsWantedFrame(low, self.compared_below).to_bytes()
            return
        missing = np.array([index for index in self._altered if got is None or not got[index]])
        while len(missing):
            base = int(missing[0])
            inside = missing[missing < base + wire.MAX_BITMAP_BYTES * 8]
            bits = np.zeros(int(inside[-1]) - base + 1, np.bool_)
            bits[inside - base] = True
            bitmap = np.packbits(bits, bitorder="little").tobytes()
            yield wire.DamagedFrame(low, largest_burst & 0xFFFF_FFFF, base, bitmap).to_bytes()
            missing = missing[len(inside) :]


class Repairs:
    """The transfers of one neighbour that were whole, and altered."""

    def __init__(self) -> None:
        self.transfers: dict[int, Repair] = {}

    def begin(self, incoming: Incoming) -> None:
        """Find out which segments of a transfer were altered; until then it stays as it is."""
        repair = self.transfers.get(incoming.transfer)
        if repair is None:
            repair = self.transfers[incoming.transfer] = Repair(incoming)
        repair.restart()

    def doubted(self, transfer: int, index: int, end: int) -> list[tuple[int, int]]:
        """Return which of segments [index, end), all of them here, may be altered: a repeat of one
        may be right."""
        repair = self.transfers.get(transfer)
        if repair is None or repair.phase is not Phase.DIGESTS or end <= repair.compared_below:
            return []
        return [(max(index, repair.compared_below), end)]

    def due_at(self, patience_s: float) -> float:
        """Return when `questions` has something to say; only while there are any."""
        return min(repair.due_at(patience_s) for repair in self.transfers.values())

    def questions(
        self, unfinished: Container[int], largest_burst: int, patience_s: float, now: float
    ) -> Iterator[bytes]:
        """Yield what is to be asked about damaged transfers, again after `patience_s`.

        Args:
            unfinished: the transfers that are not given up.
        """
        for transfer, repair in list(self.transfers.items()):
            if transfer not in unfinished:
                del self.transfers[transfer]  # given up meanwhile
            elif repair.due_at(patience_s) <= now:
                yield from repair.questions(largest_burst, now)


class DigestBudget:
    """How often a node answers questions for digests: all neighbours together, each its share."""

    def __init__(self) -> None:
        self._asked_at: dict[object, float] = {}
        """When each neighbour asked last, the one that was silent for longest first."""
        self._answered_at = float("-inf")

    def take(self, asker: object, answered_at: float, now: float) -> bool:
        """Tell whether a question may be answered now; whoever is told so answers.

        Args:
            asker: whose question it is.
            answered_at: when this one had its last answer.
        """
        asked_at = self._asked_at
        asked_at.pop(asker, None)
        asked_at[asker] = now
        while now - asked_at[first := next(iter(asked_at))] > ASKER_MEMORY_S:
            del asked_at[first]
        share_s = DIGESTS_PAUSE_S * len(asked_at)
        if now < max(self._answered_at + DIGESTS_PAUSE_S, answered_at + share_s):
            return False
        self._answered_at = now
        return True

    def forget(self, asker: object) -> None:
        """Its session has ended."""
        self._asked_at.pop(asker, None)


class DigestAnswers:
    """What a neighbour that found a body altered is told: digests of its segments, at a pace.

    Args:
        budget: of the whole node.
    """

    def __init__(self, budget: DigestBudget) -> None:
        self._budget = budget
        self._frames: list[bytes] = []
        self._answered_at = float("-inf")

    def prepare(
        self, outgoing: Outgoing, share: int, frame: wire.DigestsWantedFrame, now: float
    ) -> None:
        """Prepare the answer to one question.

        Args:
            outgoing: the body, which was sealed.
            share: bytes of a segment.

        Raises:
            ProtocolError: it asks too often; it will ask again.
        """
        if outgoing.keys is None or frame.first >= outgoing.segments:
            return
        if not self._budget.take(self, self._answered_at, now):
            raise ProtocolError("digests_rate")
        self._answered_at = now
        self._frames = []
        key, transfer, first = outgoing.keys.digest_key, outgoing.transfer, frame.first
        for _ in range(DIGEST_FRAMES_PER_QUESTION):
            end = min(first + wire.MAX_DIGESTS_COUNT, outgoing.segments)
            if first == end:
                break
            digests = segment_digests(key, transfer, first, outgoing.shares(first, end, share))
            self._frames.append(wire.DigestsFrame(frame.transfer, first, digests).to_bytes())
            first = end

    def close(self) -> None:
        """The session ends."""
        self._budget.forget(self)

    def take(self) -> list[bytes]:
        """Return the frames that answer the last question, each for a datagram."""
        frames, self._frames = self._frames, []
        return frames
