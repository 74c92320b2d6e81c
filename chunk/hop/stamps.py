"""Stamps of handshakes: a HELLO that was recorded and comes again is known by its number.

Each HELLO carries a number greater than any before of its key and instance; a node remembers the
newest that each neighbour proved. The numbers are nanoseconds since 1970 where the clock allows,
and else one more than the last, so that a clock that steps back locks nobody out. Kept on disk they
also tell HELLOs of an earlier life from new ones. No I/O here: see `stamp_file`.

Source: docs/protocol/hop.md, "Replay"; docs/decisions/0009; reference T-05.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable

from packetcloud.chunk.names import GUID

PEERS_COUNT = 8192
"""Keys and instances remembered, about 200 bytes each: eight times as many as may be neighbours at
once. Of the one unseen for longest a recorded HELLO could be answered again, by a WELCOME that
leads nowhere."""
MAX_STAMP = (1 << 64) - 1
MAX_JUMP = 100 * 366 * 24 * 3600 * 10**9
"""How far a neighbour's word may move our stamp: a hundred years, for a clock that begins in 1970.
Anybody on the path can say such a word; so far from the end it does no harm."""
_FORMAT = "packetcloud-stamps-1"


class Stamps:
    """The stamps of one node.

    Args:
        wall_ns: the wall clock.
        saved: what `to_bytes` returned in an earlier life.

    Raises:
        ValueError: `saved` is not that.
    """

    def __init__(self, wall_ns: Callable[[], int] = lambda: 0, saved: bytes | None = None) -> None:
        self._wall_ns = wall_ns
        self._own = 0
        self._newest: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self.is_changed = False
        """There is something to save."""
        self.forgotten_count = 0
        """Neighbours that made room for others."""
        if saved is not None:
            self._load(saved)

    def _load(self, saved: bytes) -> None:
        try:
            document = json.loads(saved)
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']!r}")
            self._own = int(document["own"])
            for guid, instance, stamp in document["newest"][-PEERS_COUNT:]:
                self._newest[bytes.fromhex(guid), int(instance)] = int(stamp)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a file of stamps: {error}") from None

    def to_bytes(self) -> bytes:
        """Return all of it, to be handed to a later life."""
        newest = [[guid.hex(), instance, stamp] for (guid, instance), stamp in self._newest.items()]
        document = {"format": _FORMAT, "own": self._own, "newest": newest}
        return json.dumps(document).encode() + b"\n"

    def take(self) -> int:
        """Return the stamp of the next HELLO."""
        self._own = min(max(self._own + 1, self._wall_ns()), MAX_STAMP)
        self.is_changed = True
        return self._own

    def newest(self, guid: GUID, instance: int) -> int:
        """Return the newest stamp that this neighbour proved; 0 when none is known."""
        return self._newest.get((guid.value, instance), 0)

    def note(self, guid: GUID, instance: int, stamp: int) -> None:
        """Remember the stamp of a handshake that was proven."""
        key = guid.value, instance
        self._newest.pop(key, None)
        self._newest[key] = stamp
        if len(self._newest) > PEERS_COUNT:
            self._newest.popitem(last=False)
            self.forgotten_count += 1
        self.is_changed = True
