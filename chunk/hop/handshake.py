"""The handshake: HELLO, WELCOME, CONFIRM, and a first CONTROL. Two small machines, no I/O.

Each side proves its key by a signature over what both said, fresh X25519 shares included, so names
cannot be borrowed, old handshakes cannot be replayed and nothing that was agreed can be altered.
Nothing of size is kept for a stranger: who does not name the node that he calls, or is one of too
many, is asked to come again, which costs no signature; his HELLO is longer than any answer.

Source: docs/protocol/hop.md, "Handshake"; reference T-01, T-03, T-06, T-08, T-09.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.address_rate import AddressRate
from packetcloud.chunk.hop.agreement import Agreement
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.keys import Exchange, KeyRing, confirm_tag, expand_key, extract
from packetcloud.chunk.hop.stamps import MAX_JUMP, Stamps
from packetcloud.chunk.hop.suites import Suite, choose_suite
from packetcloud.chunk.identity import Identity, verify
from packetcloud.chunk.names import GUID

WELCOME_DOMAIN = b"hop 2 welcome"
CONFIRM_DOMAIN = b"hop 2 confirm"
LANE_TOKEN_BYTES = 32
CONNECT_TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 0.2
"""At 30 % loss and 30 % corruption each way a question is answered one time in four, and three may
be needed: 50 tries leave one failure in 7000."""
RETRIES_AT_ONCE = 8
"""Answers "come again" that are followed at once; later ones by the timer, so that two nodes can
never keep each other busy."""
SUSPECT_TIMEOUT_S = 0.5
"""How long to try on after word that the port is closed; longer than two retries."""
HALF_OPEN_COUNT = 256
"""Half-open handshakes kept, about 3 KiB each; the oldest makes room."""
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
    """The side that says HELLO. Output: `take_datagram`, `state`, `welcome`, `failure`.

    Args:
        stamp: the number of this HELLO, greater than any before of this key and instance.
    """

    def __init__(
        self,
        identity: Identity,
        parameters: wire.Parameters,
        address: Any,
        expected: GUID | None,
        local_id: int,
        random_bytes: RandomBytes,
        stamp: int,
        now: float,
    ) -> None:
        self._identity = identity
        self.address = address
        self.local_id = local_id
        self.parameters = parameters
        self._expected = expected
        self._exchange = Exchange(random_bytes)
        self._first_stamp = stamp
        self._hello = wire.Hello(
            local_id, identity.public_key, self._exchange.share, stamp, parameters
        ).towards(expected or wire.UNKNOWN_GUID)
        self._datagram: bytes | None = self._hello.to_bytes()
        self._current = self._datagram
        self._sent_at = now
        self._retry_at = now + FIRST_RETRY_S
        self._wait_s = FIRST_RETRY_S
        self._give_up_at = now + CONNECT_TIMEOUT_S
        self._at_once_left = RETRIES_AT_ONCE
        self.state = ClientState.HELLO_SENT
        self.welcome: wire.Welcome | None = None
        self.ring: KeyRing | None = None
        """The keys of a sealed session; after the WELCOME."""
        self.envelope: Envelope | None = None
        """After the WELCOME."""
        self._lane_token = b""
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
        """The neighbour says its name and wants its cookie back. Raises: ProtocolError."""
        retry = wire.Retry.from_bytes(datagram)
        if self.state is not ClientState.HELLO_SENT:
            raise ProtocolError("unexpected_retry")
        if not retry.answers(self._hello.mac):
            raise ProtocolError("bad_tag", "RETRY")
        if self._hello.stamp <= retry.stamp < self._first_stamp + MAX_JUMP:
            self._hello = replace(self._hello, stamp=retry.stamp + 1)
        self._hello = self._hello.towards(retry.guid, retry.cookie)
        self._current = self._hello.to_bytes()
        if self._at_once_left:
            self._at_once_left -= 1
            self._send(self._current, now)

    def receive_welcome(self, datagram: bytes, now: float) -> None:
        """The neighbour answered. Raises: ProtocolError when it does not prove its key."""
        if self.state is not ClientState.HELLO_SENT:
            raise ProtocolError("unexpected_welcome")
        welcome = wire.Welcome.from_bytes(datagram)
        core = self._hello.core_bytes()
        signed = core + welcome.unsigned_bytes()
        if not verify(welcome.public_key, WELCOME_DOMAIN, signed, welcome.signature):
            raise ProtocolError("bad_signature", "WELCOME")
        if not self.parameters.suites & Suite(welcome.suite).bit:
            raise ProtocolError("unoffered_suite", Suite(welcome.suite).name)
        shared = self._exchange.shared_secret(welcome.share)
        self.welcome = welcome
        if self._expected is not None and self.peer != self._expected:
            self._fail(f"the node there is {self.peer.hex}, not {self._expected.hex}")
            return
        self.rtt_s = now - self._sent_at
        digest = transcript(core, datagram)
        secret = extract(digest, shared)
        self.ring = make_ring(Suite(welcome.suite), secret, is_client=True)
        self._lane_token = lane_token(secret)
        self.envelope = Envelope(welcome.own_session, self.ring)
        signature = self._identity.sign(CONFIRM_DOMAIN, digest)
        self.state = ClientState.CONFIRM_SENT
        self._wait_s = FIRST_RETRY_S / 2
        confirm = wire.Confirm(welcome.own_session, signature, confirm_tag(secret, signature))
        self._send(confirm.to_bytes(), now)

    def receive_control(self, datagram: bytes) -> bytes:
        """The neighbour spoke on the session: the handshake is over. Returns the frames.

        Raises:
            ProtocolError: too early, or the datagram does not prove itself.
        """
        if self.state is not ClientState.CONFIRM_SENT or self.envelope is None:
            raise ProtocolError("unexpected_control")
        frames = self.envelope.open_control(datagram)
        for frame in wire.decode_frames(frames):
            if isinstance(frame, wire.CloseFrame):
                self._fail(f"the neighbour refuses: {frame.reason}")
                return b""
        self.state = ClientState.UP
        return frames

    def agreement(self) -> Agreement:
        """Return what the session begins with; only when the state is UP."""
        assert self.welcome is not None and self.envelope is not None and self.rtt_s is not None
        return Agreement(
            self.welcome.public_key,
            self.welcome.parameters,
            self.parameters,
            self.address,
            self.local_id,
            self.welcome.own_session,
            self.ring,
            self.envelope,
            self.rtt_s,
            self._lane_token,
        )

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
    hello_core: bytes
    welcome: bytes
    parameters: wire.Parameters
    own_parameters: wire.Parameters
    public_key: bytes
    stamp: int
    suite: Suite
    secret: bytes = field(repr=False)
    """What both sides made of the exchange; an open session has it too, for its CONFIRM."""
    digest: bytes
    """What the CONFIRM signs."""
    remote_id: int
    local_id: int
    begun_at: float
    refusal: bytes = b""
    """What a neighbour that proved itself and is not admitted gets, as often as it asks."""

    def make_ring(self) -> KeyRing | None:
        """Return the keys of the session; None when it is open."""
        return make_ring(self.suite, self.secret, is_client=False)

    def agreement(self, now: float) -> Agreement:
        """Return what the session begins with, once the stranger has proved himself."""
        ring = self.make_ring()
        return Agreement(
            self.public_key,
            self.parameters,
            self.own_parameters,
            self.address,
            self.local_id,
            self.remote_id,
            ring,
            Envelope(self.remote_id, ring),
            now - self.begun_at,
            lane_token(self.secret),
        )


class ServerHandshakes:
    """The side that answers HELLOs: a bounded table of half-open handshakes."""

    def __init__(
        self, identity: Identity, random_bytes: RandomBytes, admit: AdmitStranger, stamps: Stamps
    ) -> None:
        self._identity = identity
        self._guid = identity.guid
        self._door_key = wire.door_key(self._guid)
        self._random_bytes = random_bytes
        self._admit = admit
        self._stamps = stamps
        self._by_remote: OrderedDict[tuple[Any, int], HalfOpen] = OrderedDict()
        self._by_local: dict[int, HalfOpen] = {}
        self._cookie_key = random_bytes(32)
        self.forgotten_count = 0
        """Half-open handshakes that made room for others."""
        self._rate = AddressRate()

    def __len__(self) -> int:
        return len(self._by_remote)

    @property
    def addresses_forgotten_count(self) -> int:
        """Addresses whose rate was remembered, and that made room for others."""
        return self._rate.forgotten_count

    def local_ids(self) -> Iterable[int]:
        """The session ids of all handshakes under way."""
        return self._by_local

    def __contains__(self, local_id: int) -> bool:
        """Tell whether a handshake under this session id is under way."""
        return local_id in self._by_local

    def receive_hello(
        self, datagram: bytes, address: Any, parameters: wire.Parameters, now: float
    ) -> bytes:
        """Return the answer to a HELLO: WELCOME, or RETRY with our name and a cookie.

        Raises:
            ProtocolError: the HELLO breaks the format, or this address asks too often.
        """
        if len(datagram) != wire.MIN_DATAGRAM_BYTES:
            raise ProtocolError("bad_hello", f"{len(datagram)} bytes")
        core = datagram[: wire.HELLO_CORE_BYTES]
        mac = datagram[wire.HELLO_CORE_BYTES : -wire.COOKIE_BYTES]
        cookie = datagram[-wire.COOKIE_BYTES :]
        _, _, _, remote_id = wire.PREFIX.unpack_from(datagram)
        if not hmac.compare_digest(mac, wire.hello_mac(self._door_key, core)):
            return self._retry(remote_id, mac, address, now)
        known = self._by_remote.get((address, remote_id))
        if known is not None and known.hello_core == core:
            return known.welcome
        self._expire(now)
        if any(cookie):
            is_shown = self._is_cookie(cookie, remote_id, address, now)
        else:
            is_shown = len(self._by_remote) < COOKIE_FROM_COUNT
        if not is_shown:
            return self._retry(remote_id, mac, address, now)
        hello = wire.Hello.from_bytes(datagram)
        guid = GUID.from_public_key(hello.public_key)
        newest = self._stamps.newest(guid, hello.parameters.instance)
        if hello.stamp <= newest:
            return self._retry(remote_id, mac, address, now, newest)
        suite = choose_suite(parameters.suites, hello.parameters.suites)
        if suite is None:
            raise ProtocolError("unknown_suite", "none in common")
        if not self._rate.take(address[0], now):
            raise ProtocolError("handshake_rate", str(address[0]))
        return self._welcome(hello, core, suite, address, parameters, now)

    def _welcome(
        self,
        hello: wire.Hello,
        core: bytes,
        suite: Suite,
        address: Any,
        parameters: wire.Parameters,
        now: float,
    ) -> bytes:
        """Make an exchange, a signature and a half-open entry; return the WELCOME."""
        exchange = Exchange(self._random_bytes)
        shared = exchange.shared_secret(hello.share)
        local_id = new_session_id(self._random_bytes)
        unsigned = wire.Welcome(
            hello.session, local_id, self._identity.public_key, exchange.share, parameters, suite
        ).unsigned_bytes()
        welcome = unsigned + self._identity.sign(WELCOME_DOMAIN, core + unsigned)
        digest = transcript(core, welcome)
        secret = extract(digest, shared)
        half = HalfOpen(
            address, core, welcome, hello.parameters, parameters, hello.public_key, hello.stamp,
            suite, secret, digest, hello.session, local_id, now,
        )  # fmt: skip
        while len(self._by_remote) >= HALF_OPEN_COUNT:
            self._drop(next(iter(self._by_remote.values())))
            self.forgotten_count += 1
        known = self._by_remote.get((address, hello.session))
        if known is not None:
            self._drop(known)
        self._by_remote[address, hello.session] = half
        self._by_local[local_id] = half
        return welcome

    def _retry(
        self, remote_id: int, hello_mac: bytes, address: Any, now: float, stamp: int = 0
    ) -> bytes:
        cookie = self._cookie_of(remote_id, address, int(now // COOKIE_PERIOD_S))
        return wire.Retry(remote_id, self._guid, cookie, stamp).answering(hello_mac).to_bytes()

    def receive_confirm(self, datagram: bytes, address: Any) -> HalfOpen | bytes:
        """Return the proven neighbour, or what to send to one that is not admitted.

        Raises:
            ProtocolError: no such handshake, or the signature does not prove the key.
        """
        confirm = wire.Confirm.from_bytes(datagram)
        half = self._by_local.get(confirm.session)
        if half is None or half.address != address:
            raise ProtocolError("unknown_session")
        if not hmac.compare_digest(confirm.tag, confirm_tag(half.secret, confirm.signature)):
            raise ProtocolError("bad_tag", "CONFIRM")
        if half.refusal:
            return half.refusal
        if not verify(half.public_key, CONFIRM_DOMAIN, half.digest, confirm.signature):
            raise ProtocolError("bad_signature", "CONFIRM")
        guid, instance = GUID.from_public_key(half.public_key), half.parameters.instance
        if half.stamp <= self._stamps.newest(guid, instance):
            raise ProtocolError("old_stamp", guid.short)
        refusal = self._admit(guid, half.parameters)
        if refusal is not None:
            envelope = Envelope(half.remote_id, half.make_ring())
            half.refusal = envelope.control([wire.CloseFrame(refusal).to_bytes()])
            return half.refusal
        self._stamps.note(guid, instance, half.stamp)
        self._drop(half)
        return half

    def _drop(self, half: HalfOpen) -> None:
        del self._by_remote[half.address, half.remote_id]
        del self._by_local[half.local_id]

    def _expire(self, now: float) -> None:
        while self._by_remote:
            half = next(iter(self._by_remote.values()))
            if now - half.begun_at < HALF_OPEN_TIMEOUT_S:
                return
            self._drop(half)

    def _is_cookie(self, cookie: bytes, remote_id: int, address: Any, now: float) -> bool:
        period = int(now // COOKIE_PERIOD_S)
        return any(
            hmac.compare_digest(cookie, self._cookie_of(remote_id, address, number))
            for number in (period, period - 1)
        )

    def _cookie_of(self, remote_id: int, address: Any, period: int) -> bytes:
        message = f"{address[0]}|{address[1]}|{remote_id}|{period}".encode()
        size = wire.COOKIE_BYTES
        return hashlib.blake2b(message, key=self._cookie_key, digest_size=size).digest()


def make_ring(suite: Suite, secret: bytes, *, is_client: bool) -> KeyRing | None:
    """Return the keys of a session; None when it is open."""
    return None if suite is Suite.OPEN else KeyRing(suite, secret, is_client=is_client)


def lane_token(secret: bytes) -> bytes:
    """Return what a session is known by where memory is handed out."""
    return expand_key(secret, b"lane", LANE_TOKEN_BYTES)


def transcript(hello_core: bytes, welcome: bytes) -> bytes:
    """Return the hash of both messages, which the CONFIRM signs and the keys are made of."""
    return hashlib.sha256(hello_core + welcome).digest()


def new_session_id(random_bytes: RandomBytes) -> int:
    """Return an unpredictable session id; zero is never used."""
    return int.from_bytes(random_bytes(8), "big") | 1
