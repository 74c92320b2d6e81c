"""The handshake: HELLO, WELCOME, CONFIRM, and a first ACK. Two small machines, no I/O.

Each side proves its key by a signature over what both said, so names cannot be borrowed and old
handshakes cannot be replayed. Nothing of size is kept for a stranger; his HELLO is always longer
than any answer, and when many are half open a cookie must come back first.

Source: docs/protocol/hop.md, "Handshake"; reference T-01, T-03, T-08, T-09.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.identity import Identity, verify
from packetcloud.chunk.names import GUID

WELCOME_DOMAIN = b"hop welcome"
CONFIRM_DOMAIN = b"hop confirm"
CONNECT_TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 0.5
"""At 30 % loss each way half of all tries fail: about 20 tries leave one failure in a million."""
SUSPECT_TIMEOUT_S = 0.5
"""How long to try on after word that the port is closed; longer than two retries."""
HALF_OPEN_COUNT = 256
"""Half-open handshakes kept, about 2 KiB each; the oldest makes room."""
HALF_OPEN_TIMEOUT_S = 15.0
"""Longer than a client tries, so that its CONFIRM always meets its HELLO."""
COOKIE_FROM_COUNT = 64
"""With so many half open a HELLO needs a cookie."""
COOKIE_PERIOD_S = 60.0

RandomBytes = Callable[[int], bytes]
AdmitStranger = Callable[[GUID, wire.Parameters], str | None]
"""Asked about a stranger who proved his key: None admits him, a text refuses him."""


class ClientState(Enum):
    """Where an outbound handshake stands."""

    HELLO_SENT = auto()
    CONFIRM_SENT = auto()
    UP = auto()
    FAILED = auto()


class ClientHandshake:
    """The side that says HELLO. Output: `take_datagram`, `state`, `welcome`, `failure`."""

    def __init__(
        self,
        identity: Identity,
        parameters: wire.Parameters,
        address: Any,
        expected: GUID | None,
        local_id: int,
        random_bytes: RandomBytes,
        now: float,
    ) -> None:
        self._identity = identity
        self.address = address
        self.local_id = local_id
        self._expected = expected
        self._hello = wire.Hello(local_id, identity.public_key, random_bytes(32), parameters)
        self._datagram: bytes | None = self._hello.to_bytes()
        self._current = self._datagram
        self._sent_at = now
        self._retry_at = now + FIRST_RETRY_S
        self._wait_s = FIRST_RETRY_S
        self._give_up_at = now + CONNECT_TIMEOUT_S
        self.state = ClientState.HELLO_SENT
        self.welcome: wire.Welcome | None = None
        self.failure = ""
        self._is_suspect = False
        self.rtt_s: float | None = None

    @property
    def peer(self) -> GUID:
        """The neighbour's name; only after its WELCOME was verified."""
        assert self.welcome is not None
        return GUID.from_public_key(self.welcome.public_key)

    def take_datagram(self) -> bytes | None:
        """Return the datagram to send now, once."""
        datagram, self._datagram = self._datagram, None
        return datagram

    def receive_retry(self, datagram: bytes, now: float) -> None:
        """A busy neighbour wants its cookie back. Raises: ProtocolError."""
        retry = wire.Retry.from_bytes(datagram)
        if self.state is not ClientState.HELLO_SENT or self._hello.cookie:
            raise ProtocolError("unexpected_retry")
        self._hello = wire.Hello(
            self.local_id,
            self._hello.public_key,
            self._hello.share,
            self._hello.parameters,
            retry.cookie,
        )
        self._send(self._hello.to_bytes(), now)

    def receive_welcome(self, datagram: bytes, now: float) -> None:
        """The neighbour answered. Raises: ProtocolError when it does not prove its key."""
        if self.state is not ClientState.HELLO_SENT:
            raise ProtocolError("unexpected_welcome")
        welcome = wire.Welcome.from_bytes(datagram)
        signed = self._hello.to_bytes() + welcome.unsigned_bytes()
        if not verify(welcome.public_key, WELCOME_DOMAIN, signed, welcome.signature):
            raise ProtocolError("bad_signature", "WELCOME")
        self.welcome = welcome
        if self._expected is not None and self.peer != self._expected:
            self._fail(f"the node there is {self.peer.hex}, not {self._expected.hex}")
            return
        self.rtt_s = now - self._sent_at
        digest = transcript(self._hello.to_bytes(), datagram)
        signature = self._identity.sign(CONFIRM_DOMAIN, digest)
        self.state = ClientState.CONFIRM_SENT
        self._wait_s = FIRST_RETRY_S / 2
        self._send(wire.Confirm(welcome.own_session, signature).to_bytes(), now)

    def receive_reject(self, datagram: bytes) -> None:
        """The neighbour does not admit us. Raises: ProtocolError."""
        reject = wire.Reject.from_bytes(datagram)
        if self.state is not ClientState.CONFIRM_SENT:
            raise ProtocolError("unexpected_reject")
        self._fail(f"the neighbour refuses: {reject.reason}")

    def receive_control(self) -> None:
        """The neighbour spoke on the session: the handshake is over."""
        if self.state is not ClientState.CONFIRM_SENT:
            raise ProtocolError("unexpected_control")
        self.state = ClientState.UP

    def suspect(self, now: float) -> None:
        """The network says that nobody listens there: a hint, so one more try, then give up."""
        if not self._is_suspect:
            self._is_suspect = True
            self._give_up_at = min(self._give_up_at, now + SUSPECT_TIMEOUT_S)

    def next_timeout(self) -> float:
        return min(self._retry_at, self._give_up_at)

    def handle_timeout(self, now: float) -> None:
        """Say it again, or give up."""
        if now >= self._give_up_at:
            self._fail("nobody listens there" if self._is_suspect else "no answer")
        elif now >= self._retry_at:
            self._wait_s = min(self._wait_s * 1.5, LONGEST_RETRY_S)
            self._send(self._current, now)

    def _send(self, datagram: bytes, now: float) -> None:
        self._datagram = self._current = datagram
        self._sent_at = now
        self._retry_at = now + self._wait_s

    def _fail(self, reason: str) -> None:
        self.state = ClientState.FAILED
        self.failure = reason


@dataclass(slots=True)
class HalfOpen:
    """A stranger who said HELLO and has not proved anything yet."""

    address: Any
    hello: bytes
    welcome: bytes
    parameters: wire.Parameters
    own_parameters: wire.Parameters
    public_key: bytes
    remote_id: int
    local_id: int
    begun_at: float


class ServerHandshakes:
    """The side that answers HELLOs: a bounded table of half-open handshakes."""

    def __init__(self, identity: Identity, random_bytes: RandomBytes, admit: AdmitStranger) -> None:
        self._identity = identity
        self._random_bytes = random_bytes
        self._admit = admit
        self._by_remote: OrderedDict[tuple[Any, int], HalfOpen] = OrderedDict()
        self._by_local: dict[int, HalfOpen] = {}
        self._cookie_key = random_bytes(32)
        self.forgotten_count = 0
        """Half-open handshakes that made room for others."""

    def __len__(self) -> int:
        return len(self._by_remote)

    def receive_hello(
        self, datagram: bytes, address: Any, parameters: wire.Parameters, now: float
    ) -> bytes:
        """Return the answer to a HELLO: WELCOME, or RETRY with a cookie under load.

        Raises:
            ProtocolError: the HELLO breaks the format, or its cookie is wrong.
        """
        hello = wire.Hello.from_bytes(datagram)
        known = self._by_remote.get((address, hello.session))
        if known is not None and known.hello == datagram:
            return known.welcome
        self._expire(now)
        if hello.cookie and not self._is_cookie(hello, address, now):
            raise ProtocolError("bad_cookie")
        if len(self._by_remote) >= COOKIE_FROM_COUNT and not hello.cookie:
            return wire.Retry(hello.session, self._cookie(hello, address, now)).to_bytes()
        local_id = new_session_id(self._random_bytes)
        unsigned = wire.Welcome(
            hello.session,
            local_id,
            self._identity.public_key,
            self._random_bytes(32),
            parameters,
        ).unsigned_bytes()
        welcome = unsigned + self._identity.sign(WELCOME_DOMAIN, datagram + unsigned)
        half = HalfOpen(
            address, datagram, welcome, hello.parameters, parameters, hello.public_key,
            hello.session, local_id, now,
        )  # fmt: skip
        while len(self._by_remote) >= HALF_OPEN_COUNT:
            _, oldest = self._by_remote.popitem(last=False)
            self._by_local.pop(oldest.local_id, None)
            self.forgotten_count += 1
        self._by_remote[address, hello.session] = half
        self._by_local[local_id] = half
        return welcome

    def receive_confirm(self, datagram: bytes, address: Any) -> HalfOpen | bytes:
        """Return the proven neighbour, or the REJECT to send to one that is not admitted.

        Raises:
            ProtocolError: no such handshake, or the signature does not prove the key.
        """
        confirm = wire.Confirm.from_bytes(datagram)
        half = self._by_local.get(confirm.session)
        if half is None or half.address != address:
            raise ProtocolError("unknown_session")
        digest = transcript(half.hello, half.welcome)
        if not verify(half.public_key, CONFIRM_DOMAIN, digest, confirm.signature):
            raise ProtocolError("bad_signature", "CONFIRM")
        del self._by_local[half.local_id]
        del self._by_remote[half.address, half.remote_id]
        refusal = self._admit(GUID.from_public_key(half.public_key), half.parameters)
        if refusal is not None:
            return wire.Reject(half.remote_id, refusal).to_bytes()
        return half

    def _expire(self, now: float) -> None:
        while self._by_remote:
            key, half = next(iter(self._by_remote.items()))
            if now - half.begun_at < HALF_OPEN_TIMEOUT_S:
                return
            del self._by_remote[key]
            self._by_local.pop(half.local_id, None)

    def _cookie(self, hello: wire.Hello, address: Any, now: float) -> bytes:
        return self._cookie_of(hello, address, int(now // COOKIE_PERIOD_S))

    def _is_cookie(self, hello: wire.Hello, address: Any, now: float) -> bool:
        period = int(now // COOKIE_PERIOD_S)
        return any(
            hmac.compare_digest(hello.cookie, self._cookie_of(hello, address, number))
            for number in (period, period - 1)
        )

    def _cookie_of(self, hello: wire.Hello, address: Any, period: int) -> bytes:
        message = f"{address[0]}|{address[1]}|{hello.session}|{period}".encode()
        return hashlib.blake2b(message, key=self._cookie_key, digest_size=16).digest()


def transcript(hello: bytes, welcome: bytes) -> bytes:
    """Return the hash of both messages, which the CONFIRM signs."""
    return hashlib.sha256(hello + welcome).digest()


def new_session_id(random_bytes: RandomBytes) -> int:
    """Return an unpredictable session id; zero is never used."""
    return int.from_bytes(random_bytes(8), "big") | 1
