"""Single datagrams that wait for the socket: answers to strangers, farewells, probes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from packetcloud.chunk.hop.session import Datagram

MAX_REPLIES_COUNT = 1024
"""Handshakes, probes and farewells that wait for the socket; whoever wants one asks again."""


class Replies:
    """A queue with a cap: strangers choose how much they ask.

    Args:
        dropped: where what found no room is counted.
    """

    def __init__(self, dropped: Counter[str]) -> None:
        self._waiting: deque[Datagram] = deque()
        self._dropped = dropped

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, datagram: Datagram) -> None:
        """Have a single datagram sent, unless so many wait that the socket must be stuck."""
        if len(self._waiting) < MAX_REPLIES_COUNT:
            self._waiting.append(datagram)
        else:
            self._dropped["replies_full"] += 1

    def take(self) -> Iterator[Datagram]:
        """Yield all that wait, also what is added meanwhile."""
        while self._waiting:
            yield self._waiting.popleft()
