"""Who may have sessions and connections, how many, and how much they may hold.

A source is a GUID that its router has stamped on a chunk: no host can use up another one's share.
Every question is O(1), whoever has how many connections: sessions note what changes.
Source: docs/reference/translator.md, "Limits".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.parameters import Parameters

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
"""A source has this besides, whatever others hold."""
MAX_UPLOAD_WINDOW_BYTES = 1 << 20
"""What a host may send on one connection before the server has taken it."""
LEAST_UPLOAD_WINDOW_BYTES = 8 << 10
"""A connection has this besides, whatever others have: without a window it would stand still."""
UPLOAD_WINDOWS_BYTES = 32 << 20
"""The windows of all connections together."""
SILENCE_S = 30.0
"""A host that asks nothing for so long is gone."""
UNUSED_S = 10.0
"""The same when its session has no connections."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What hosts may have, each alone and all together."""

    connections_count: int = 4096
    connections_per_source_count: int = 512
    sessions_count: int = MAX_SESSIONS_COUNT
    sessions_per_source_count: int = MAX_SESSIONS_PER_SOURCE_COUNT
    held_count: int = MAX_HELD_COUNT
    buffered_bytes: int = MAX_BUFFERED_BYTES
    buffered_per_source_bytes: int = MAX_BUFFERED_PER_SOURCE_BYTES
    upload_bytes: int = UPLOAD_WINDOWS_BYTES

    @classmethod
    def of(cls, parameters: Parameters) -> SessionLimits:
        """Read them.

        Raises:
            ServiceConfigError: some sessions could hold no request.
        """
        limits = cls(
            connections_count=parameters.integer("max_connections"),
            connections_per_source_count=parameters.integer("max_connections_per_host"),
            sessions_count=parameters.integer("max_sessions"),
            sessions_per_source_count=parameters.integer("max_sessions_per_host"),
            held_count=parameters.integer("max_held_requests"),
            buffered_bytes=parameters.integer("buffer_mib") << 20,
            buffered_per_source_bytes=parameters.integer("buffer_mib_per_host") << 20,
            upload_bytes=parameters.integer("upload_mib") << 20,
        )
        if limits.held_count < limits.sessions_count:
            raise ServiceConfigError(
                f"parameter max_held_requests: {limits.held_count} for max_sessions = "
                f"{limits.sessions_count}, each of which holds one; allowed: as many or more, and "
                "no more than vi_window_count of the router"
            )
        return limits


class Session(Protocol):
    """One host's session, as the lists here see it."""

    @property
    def heard_at(self) -> float: ...
    @property
    def streams_count(self) -> int: ...
    @property
    def has_ports(self) -> bool: ...


SessionT = TypeVar("SessionT", bound=Session)


class Sessions(Generic[SessionT]):
    """All sessions, by source and number."""

    def __init__(self, limits: SessionLimits) -> None:
        self.refused_count = 0
        self.displaced_count = 0
        self.held_up_count = 0
        """How often nothing was read of a server because its host holds its share."""
        self.connections_count = 0
        """As their sessions noted it last; so are the bytes."""
        self.buffered_bytes = 0
        self.promised_bytes = 0
        """What hosts may send, or have sent, that no server has taken."""
        self._limits = limits
        self._by_source: dict[bytes, dict[int, SessionT]] = {}
        self._count = 0
        self._connections: Counter[bytes] = Counter()
        self._buffered: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SessionT]:
        return iter([one for group in self._by_source.values() for one in group.values()])

    def find(self, source: bytes, number: int) -> SessionT | None:
        return self._by_source.get(source, {}).get(number)

    def displaced_by(self, source: bytes) -> SessionT | None:
        """Return the session that has to end before `source` may have one more."""
        own = self._by_source.get(source, {})
        if len(own) < self._limits.sessions_per_source_count:
            return None
        self.displaced_count += 1
        return min(own.values(), key=lambda one: one.heard_at)

    def has_room(self) -> bool:
        """Tell whether one more session may begin; count it when not."""
        if self._count < self._limits.sessions_count:
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

    # what sessions note

    def note(self, source: bytes, connections: int, buffered: int, promised: int) -> None:
        """What a source has here has changed by so much."""
        self.connections_count += connections
        self.buffered_bytes += buffered
        self.promised_bytes += promised
        for by_source, delta in ((self._connections, connections), (self._buffered, buffered)):
            if delta:
                by_source[source] += delta
                if not by_source[source]:
                    del by_source[source]

    # shares

    def connections_left(self, source: bytes) -> int:
        """Return how many more connections a source may have."""
        limits = self._limits
        of_all = limits.connections_count - self.connections_count
        own = limits.connections_per_source_count - self._connections[source]
        return max(0, min(of_all, own))

    def held_share(self) -> int:
        """Return how many requests one session may have held."""
        return max(1, self._limits.held_count // max(1, self._count))

    def upload_window(self, unnoted: int) -> int:
        """Return how much a host may send on one connection that its server has not taken.

        Args:
            unnoted: by how much the promises of the session that asks differ from what it noted.
        """
        share = self._limits.upload_bytes // max(1, self.connections_count)
        free = self._limits.upload_bytes - self.promised_bytes - unnoted
        return min(MAX_UPLOAD_WINDOW_BYTES, max(LEAST_UPLOAD_WINDOW_BYTES, min(share, free)))

    def room(self, source: bytes) -> int:
        """Return how many bytes may still be read for a source: half of what is left free."""
        held = self._buffered[source]
        free = max(0, self._limits.buffered_bytes - self.buffered_bytes)
        share = min(self._limits.buffered_per_source_bytes - held, free // 2)
        room = max(0, share, LEAST_BUFFERED_BYTES - held)
        self.held_up_count += not room
        return room


def _patience_s(session: Session) -> float:
    is_used = session.streams_count or session.has_ports
    return SILENCE_S if is_used else UNUSED_S
