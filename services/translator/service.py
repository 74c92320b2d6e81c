"""The NetworkService: requests of hosts in, answers out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.streams.wire import (
    Message,
    MessageKind,
    decode_message,
    encode_message,
)
from packetcloud.services.sdk import (
    ChunkContext,
    EmittedChunk,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)
from packetcloud.services.translator.connector import Connector, Resolver
from packetcloud.services.translator.egress import Egress, parse_rules
from packetcloud.services.translator.hosted import HostedSession
from packetcloud.services.translator.listeners import Listeners, check_ports, parse_owners
from packetcloud.services.translator.sessions import SessionLimits, Sessions

SWEEP_S = 1.0
"""How often silent hosts and idle connections are looked for."""
LOG_S = 60.0
"""How often the counts are logged, when they have changed."""
ANSWER_LIFETIME_MS = 30_000


class Translator(NetworkService):
    """Connects hosts of the MF network with TCP servers and clients of the IP network."""

    def start(self, context: ServiceContext) -> None:
        parameters = context.parameters
        self._log = context.log
        owners = parse_owners(parameters.text("listen"))
        check_ports(owners)
        egress = Egress(
            parse_rules(parameters.text("allow"), "allow"),
            parse_rules(parameters.text("deny"), "deny", networks_only=True),
        )
        self._idle_timeout_s = parameters.number("idle_timeout_s")
        self._resolver = Resolver()
        self._connector = Connector(egress, self._resolver, parameters.number("connect_timeout_s"))
        self._listeners = Listeners(owners, context.log)
        self._sessions: Sessions[HostedSession] = Sessions(SessionLimits.of(parameters))
        self._counts: Counter[str] = Counter()
        self._logged: Mapping[str, int] = {}
        self._logged_at = 0.0
        self._sweep_call: asyncio.TimerHandle | None = None

    async def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        try:
            message = decode_message(chunk.payload)
        except ProtocolError as error:
            self._counts["malformed"] += 1
            return Verdict.drop(f"no request to a translator: {error}")
        if message.kind is not MessageKind.REQUEST:
            self._counts["malformed"] += 1
            return Verdict.drop("no request to a translator")
        loop = asyncio.get_running_loop()
        session = self._session_of(chunk, message, loop)
        if isinstance(session, HostedSession):
            token: asyncio.Future[bytes] = loop.create_future()
            session.request(message, len(chunk.payload), token)
            payload = await token
        else:
            payload = encode_message(Message(session, message.session, message.number))
        answer = EmittedChunk(
            chunk.header.source,
            payload,
            destination_na=chunk.header.source_na,
            payload_type=PayloadType.STREAM,
            lifetime_ms=ANSWER_LIFETIME_MS,
        )
        return Verdict.emit([answer])

    def stop(self) -> None:
        for session in list(self._sessions):
            self._end(session)
        self._listeners.close()
        self._resolver.close()
        if self._sweep_call is not None:
            self._sweep_call.cancel()
        self._log_counts()

    def counts(self) -> dict[str, int]:
        """Return what was counted so far, and what there is now."""
        return {
            **self._counts,
            "sessions": len(self._sessions),
            "connections": self._sessions.connections_count,
            "buffered_bytes": self._sessions.buffered_bytes,
            "sessions_refused": self._sessions.refused_count,
            "reads_held_up": self._sessions.held_up_count,
            "sessions_displaced": self._sessions.displaced_count,
            "names_refused": self._resolver.refused_count,
            "accepts_paused": self._listeners.paused_count,
        }

    def _session_of(
        self, chunk: ServiceChunk, message: Message, loop: asyncio.AbstractEventLoop
    ) -> HostedSession | MessageKind:
        """Return the session of a request, or what to answer instead.

        The source of a chunk is stamped by its router: nobody finds another host's session.
        """
        source = chunk.header.source
        session = self._sessions.find(source.value, message.session)
        if session is not None:
            return session
        if not message.is_first:
            self._counts["unknown_sessions"] += 1
            return MessageKind.UNKNOWN
        displaced = self._sessions.displaced_by(source.value)
        if displaced is not None:
            self._end(displaced)
        if not self._sessions.has_room():
            return MessageKind.BUSY
        session = HostedSession(
            loop,
            source,
            message.session,
            self._sessions,
            self._connector,
            self._listeners,
            self._counts,
            self._log,
        )
        self._sessions.add(source.value, message.session, session)
        if self._sweep_call is None:
            self._sweep_call = loop.call_later(SWEEP_S, self._sweep, loop)
        return session

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        # First: whatever fails in this one, there is a next one.
        self._sweep_call = loop.call_later(SWEEP_S, self._sweep, loop)
        now = loop.time()
        for session in self._sessions.expired(now):
            self._counts["hosts_gone"] += session.streams_count > 0
            self._end(session)
        for session in self._sessions:
            self._sweep_one(session, now)
        if now - self._logged_at >= LOG_S:
            self._logged_at = now
            self._log_counts()
        if not len(self._sessions):
            self._sweep_call.cancel()
            self._sweep_call = None

    def _sweep_one(self, session: HostedSession, now: float) -> None:
        try:
            session.sweep(now, self._idle_timeout_s)
        except Exception:  # the sessions of other hosts are looked at all the same
            self._counts["failures"] += 1
            self._log.exception("a session failed, and is ended")
            self._end(session)

    def _end(self, session: HostedSession) -> None:
        try:
            session.close()
        finally:  # one that cannot even be closed is not looked at again
            self._sessions.remove(session.source.value, session.number)

    def _log_counts(self) -> None:
        counts = self.counts()
        if counts != self._logged and self._log.isEnabledFor(logging.INFO):
            self._log.info("%s", " ".join(f"{name}={counts[name]}" for name in sorted(counts)))
        self._logged = counts
