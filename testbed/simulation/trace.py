"""What happened in a run: a hash over all of it, and in words where somebody wants to read it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque

from packetcloud.testbed.simulation.journal import Line

_ARRIVAL = struct.Struct(">dHIII")
LAST_EVENTS_COUNT = 60


class Trace:
    """Takes in every arrival of datagrams and every line of a journal.

    Args:
        is_told: keep the events in words too; costs time.
    """

    def __init__(self, is_told: bool = False) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._is_told = is_told
        self.words: deque[str] = deque(maxlen=None if is_told else LAST_EVENTS_COUNT)

    @property
    def digest(self) -> str:
        """The same for two runs exactly if they were the same."""
        return self._hash.hexdigest()

    def datagrams(
        self, now_s: float, source: tuple[str, int], to: tuple[str, int], arriving: list[bytes]
    ) -> None:
        """Datagrams arrive together."""
        crc = 0
        for datagram in arriving:
            crc = zlib.crc32(datagram, crc)
        size = sum(map(len, arriving))
        self._hash.update(_ARRIVAL.pack(now_s, len(arriving), size, crc, source[1] << 16 | to[1]))
        if self._is_told:
            kinds = ", ".join(f"{d[:1].hex()}:{len(d)}" for d in arriving[:4])
            more = f" and {len(arriving) - 4} more" if len(arriving) > 4 else ""
            self.words.append(f"{now_s:12.6f}  {source[0]} > {to[0]}  {kinds}{more}")

    def line(self, line: Line) -> None:
        """A line of a journal."""
        text = line.text()
        self._hash.update(text.encode())
        self.words.append(text)

    def event(self, now_s: float, text: str) -> None:
        """Something that the scenario did: a fault, a restart."""
        text = f"{now_s:12.6f}  ** {text}"
        self._hash.update(text.encode())
        self.words.append(text)
