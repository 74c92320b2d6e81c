"""Who may have sessions and connections, how many, and how much they may hold.

A source is a GUID that its router has stamped on a chunk: no host can use up another one's share.
Source: docs/reference/translator.md, "Limits".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

MAX_SESSIONS_COUNT = 256
MAX_SESSIONS_PER_SOURCE_COUNT = 4
"""Programs of one host, or tries of one that is restarted."""
MAX_HELD_COUNT = 384
"""Requests held of all sessions: a router gives a VI 512 chunks at a time by default."""
MAX_BUFFERED_BYTES = 128 << 20
"""Read from servers and not acknowledged by hosts, of all together."""
MAX_BUFFERED_PER_SOURCE_BYTES = 16 << 20
"""1 Gbit/s over 128 ms."""
LEAST_BUFFERED_BYTES = 256 << 10
"""A source always has this, whatever others hold."""
MAX_UPLOAD_WINDOW_BYTES = 1 << 20
"""What a host may send on one connection before the server has taken it."""
LEAST_UPLOAD_WINDOW_BYTES = 8 << 10
UPLOAD_WINDOWS_BYTES = 32 << 20
"""Shared by the windows of all connections."""
SILENCE_S = 30.0
"""A host that asks nothing for so long is gone."""
UNUSED_S = 10.0
"""The same when its session has no connections."""


class Session(Protocol):
    """One host's session, as the lists here see it."""

    @property
    def heard_at(self) -> float: ...
    @property
    def streams_count(self) -> int: ...
    @property
    def outgoing_bytes(self) -> int: ...
    @property
    def has_ports(self) -> bool: ...


SessionT = TypeVar("SessionT", bound=Session)


class Sessions(Generic[SessionT]):
    """All sessions, by source and number."""

    def __init__(self, max_connections: int, max_connections_per_source: int) -> None:
        self.refused_count = 0
        self.displaced_count = 0
        self.held_up_count = 0
        """How often nothing was read of a server because its host holds its share."""
        self._max_connections = max_connections
        self._max_per_source = max_connections_per_source
        self._by_source: dict[bytes, dict[int, SessionT]] = {}
        self._count = 0
        self.connections_count = 0
        """As their sessions noted it last."""
        self._buffered: dict[bytes, int] = {}
        self._buffered_bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SessionT]:
        return iter([one for group in self._by_source.values() for one in group.values()])

    def find(self, source: bytes, number: int) -> SessionT | None:
        return self._by_source.get(source, {}).get(number)

    def displaced_by(self, source: bytes) -> SessionT | None:
        """Return the session that has to end before `source` may have one more."""
        own = self._by_source.get(source, {})
        if len(own) < MAX_SESSIONS_PER_SOURCE_COUNT:
            return None
        self.displaced_count += 1
        return min(own.values(), key=lambda one: one.heard_at)

    def has_room(self) -> bool:
        """Tell whether one more session may begin; count it when not."""
        if self._count < MAX_SESSIONS_COUNT:
            return True
        self.refused_count += 1
        return False

    def add(self, source: bytes, number: int, session: SessionT) -> None:
        self._by_source.setdefault(source, {})[number] = session
        self._count += 1

    def remove(self, source: bytes, number: int) -> None:
        group = self._by_source[source]
        del group[number]
        self._count -= 1
        if not group:
            del self._by_source[source]

    def expired(self, now: float) -> list[SessionT]:
        """Return the sessions whose host is gone."""
        return [one for one in self if now - one.heard_at >= _patience_s(one)]

    # shares

    def connections_left(self, source: bytes) -> int:
        """Return how many more connections a source may have."""
        in_all = sum(one.streams_count for one in self)
        own = sum(one.streams_count for one in self._by_source.get(source, {}).values())
        return min(self._max_connections - in_all, self._max_per_source - own)

    def held_share(self) -> int:
        """Return how many requests one session may have held."""
        return max(1, MAX_HELD_COUNT // max(1, self._count))

    def upload_window(self) -> int:
        """Return how much a host may send on one connection that its server has not taken."""
        share = UPLOAD_WINDOWS_BYTES // max(1, self.connections_count)
        return max(LEAST_UPLOAD_WINDOW_BYTES, min(MAX_UPLOAD_WINDOW_BYTES, share))

    def buffered(self, source: bytes, delta: int) -> None:
        """What a source has buffered here has changed."""
        held = self._buffered.get(source, 0) + delta
        self._buffered_bytes += delta
        if held:
            self._buffered[source] = held
        else:
            self._buffered.pop(source, None)

    def room(self, source: bytes) -> int:
        """Return how many bytes may still be read for a source: half of what is left free."""
        held = self._buffered.get(source, 0)
        free = max(0, MAX_BUFFERED_BYTES - self._buffered_bytes)
        share = min(MAX_BUFFERED_PER_SOURCE_BYTES - held, free // 2)
        room = max(0, share, LEAST_BUFFERED_BYTES - held)
        self.held_up_count += not room
        return room

    @property
    def buffered_bytes(self) -> int:
        return self._buffered_bytes


def _patience_s(session: Session) -> float:
    is_used = session.streams_count or session.has_ports
    return SILENCE_S if is_used else UNUSED_S
