"""The door of a node: handshakes under way, its own and those of strangers, and what else comes
from nobody it knows.

What passes it is a `Newcomer`, with whom a session begins. Whoever has none gets answers that cost
little: a handshake's next message, or word that his session is not known here.

Source: docs/protocol/hop.md, "Handshake".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.agreement import Agreement
from packetcloud.chunk.hop.handshake import (
    AdmitStranger,
    ClientHandshake,
    ClientState,
    RandomBytes,
    ServerHandshakes,
    new_session_id,
)
from packetcloud.chunk.hop.replies import Replies
from packetcloud.chunk.hop.resets import Resets
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.stamps import Stamps
from packetcloud.chunk.hop.timers import Timers
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID

Connected = Callable[[Session | str], None]
"""Called once with the session, or a text that says why there is none."""

_SESSION_BYTES = frozenset({wire.DATA_BYTE, wire.BUNDLE_BYTE, wire.CONTROL_BYTE})


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A neighbour whose handshake is over."""

    agreement: Agreement
    connected: Connected | None = None
    """Who asked for the session here; None: the neighbour called."""
    confirm: bytes = b""
    """Where the neighbour called: the CONFIRM, which is answered again if it says it again."""
    frames: bytes = b""
    """Where this node called: what the neighbour has said on the session."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A handshake that this node began."""

    client: ClientHandshake
    connected: Connected


class Door:
    """Who is no neighbour yet, or not any more.

    Args:
        parameters: returns what this node says of itself towards an address.
        admit: asked about a stranger who proved his key.
        on_reset: called with a REJECT that may be about a session of this node, not yet verified.
        timers: shared with the sessions, by session id; `handle_timeout` is called with its own.
    """

    def __init__(
        self,
        identity: Identity,
        random_bytes: RandomBytes,
        parameters: Callable[[Any], wire.Parameters],
        admit: AdmitStranger,
        on_reset: Callable[[wire.Reject, Any, float], None],
        stamps: Stamps,
        timers: Timers,
        replies: Replies,
        resets: Resets,
    ) -> None:
        self._identity = identity
        self._random_bytes = random_bytes
        self._parameters = parameters
        self._on_reset = on_reset
        self._stamps = stamps
        self._timers = timers
        self._replies = replies
        self._resets = resets
        self._servers = ServerHandshakes(identity, random_bytes, admit, stamps)
        self._calls: dict[int, _Call] = {}
        """By the session id that this node chose."""
        self.hellos_count = 0

    # --- handshakes that this node begins -------------------------------------------------------

    def call(self, address: Any, expected: GUID | None, connected: Connected, now: float) -> None:
        """Begin a handshake."""
        local_id = new_session_id(self._random_bytes)
        client = ClientHandshake(
            self._identity,
            self._parameters(address),
            address,
            expected,
            local_id,
            self._random_bytes,
            self._stamps.take(),
            now,
        )
        self._calls[local_id] = _Call(client, connected)
        self._go_on(local_id)

    def _go_on(self, local_id: int) -> None:
        """Send what a handshake of this node wants sent, and give it up when it has failed."""
        call = self._calls[local_id]
        client = call.client
        datagram = client.take_datagram()
        if datagram is not None:
            self._reply(client.address, datagram)
        if client.state is ClientState.FAILED:
            del self._calls[local_id]
            call.connected(client.failure)
        elif client.state is not ClientState.UP:
            self._timers.arm(local_id, client.next_timeout())

    def suspect(self, address: Any, now: float) -> None:
        """The network says that nobody listens at `address`: a hint, no proof."""
        for local_id, call in self._calls.items():
            if call.client.address == address:
                call.client.suspect(now)
                self._timers.arm(local_id, call.client.next_timeout())

    def handle_timeout(self, local_id: int, now: float) -> None:
        """The timer of `local_id` is due, which may be a handshake's or nobody's any more."""
        call = self._calls.get(local_id)
        if call is not None:
            call.client.handle_timeout(now)
            self._go_on(local_id)

    def close(self, reason: str) -> None:
        """Give up every handshake that this node began."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.connected(reason)

    # --- receiving ------------------------------------------------------------------------------

    def receive(
        self, datagram: memoryview, first: int, local_id: int, address: Any, now: float
    ) -> Newcomer | None:
        """Take in a datagram of no session; return the neighbour whose handshake it ended.

        Args:
            first: its first byte, of our version.
            local_id: the session id that it bears.

        Raises:
            ProtocolError: it belongs to no handshake, or breaks it.
        """
        if first in _SESSION_BYTES and local_id not in self._calls:
            self._reset(local_id, len(datagram), address, now)
            raise ProtocolError("unknown_session")
        if len(datagram) > wire.MIN_DATAGRAM_BYTES:
            raise ProtocolError("unknown_session")
        whole = bytes(datagram)
        match first & 15:
            case wire.DatagramType.HELLO:
                self._receive_hello(whole, address, now)
                return None
            case wire.DatagramType.CONFIRM:
                return self._receive_confirm(whole, address, now)
        call = self._calls.get(local_id)
        if call is not None and call.client.address == address:
            return self._receive_answer(call, whole, first & 15, now)
        if first & 15 == wire.DatagramType.REJECT:
            self._on_reset(wire.Reject.from_bytes(whole), address, now)
        raise ProtocolError("unknown_session")

    def _receive_hello(self, datagram: bytes, address: Any, now: float) -> None:
        self.hellos_count += 1
        parameters = self._parameters(address)
        self._reply(address, self._servers.receive_hello(datagram, address, parameters, now))

    def _receive_confirm(self, datagram: bytes, address: Any, now: float) -> Newcomer | None:
        proven = self._servers.receive_confirm(datagram, address)
        if isinstance(proven, bytes):
            self._reply(address, proven)
            return None
        return Newcomer(proven.agreement(now), confirm=datagram)

    def _receive_answer(
        self, call: _Call, datagram: bytes, kind: int, now: float
    ) -> Newcomer | None:
        """Take in what the neighbour says whom this node called."""
        client = call.client
        frames = b""
        match kind:
            case wire.DatagramType.RETRY:
                client.receive_retry(datagram, now)
            case wire.DatagramType.WELCOME:
                client.receive_welcome(datagram, now)
            case wire.DatagramType.CONTROL:
                frames = client.receive_control(datagram)
            case _:
                raise ProtocolError("unexpected_type", str(kind))
        self._go_on(client.local_id)
        if client.state is not ClientState.UP:
            return None
        del self._calls[client.local_id]
        return Newcomer(client.agreement(), call.connected, frames=frames)

    def _reset(self, local_id: int, asked_bytes: int, address: Any, now: float) -> None:
        """Tell a neighbour of an earlier life that its session is not known here.

        Never about a handshake under way: what was signed would end the session once it is up.
        """
        if local_id not in self._servers:
            reset = self._resets.reset(local_id, asked_bytes, address, now)
            if reset is not None:
                self._reply(address, reset)

    def _reply(self, address: Any, datagram: bytes) -> None:
        self._replies.add((address, [datagram], len(datagram)))

    # --- figures --------------------------------------------------------------------------------

    @property
    def half_open_count(self) -> int:
        """Strangers who said HELLO and have not proved anything yet."""
        return len(self._servers)

    def local_ids(self) -> Iterable[int]:
        """The session ids of all handshakes under way."""
        return [*self._calls, *self._servers.local_ids()]

    def counters(self) -> dict[str, int]:
        """Return what only ever grows, by its name in `HopCore.counters`."""
        return {
            "half_open_forgotten": self._servers.forgotten_count,
            "stamps_forgotten": self._stamps.forgotten_count,
            "addresses_forgotten": self._servers.addresses_forgotten_count,
        }
