"""Messages of the handshake: encode and decode. No state, no I/O.

Source: docs/protocol/hop.md, "Handshake".
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace
from typing import Self

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop.datagrams import (
    MAX_BODY_BYTES,
    MAX_DATAGRAM_BYTES,
    MIN_DATAGRAM_BYTES,
    PREFIX,
    DatagramType,
    type_byte,
)
from packetcloud.chunk.hop.suites import KNOWN_SUITES, Suite
from packetcloud.chunk.names import GUID

COOKIE_BYTES = 16
MAC_BYTES = 16
SIGNATURE_BYTES = 64
HELLO_CORE_BYTES = MIN_DATAGRAM_BYTES - MAC_BYTES - COOKIE_BYTES
"""What the transcript covers; the rest only gets a HELLO past the door."""

_PARAMETERS = struct.Struct(">BBHIIQI")
PARAMETERS_BYTES = _PARAMETERS.size
_HELLO_FIXED = struct.Struct(f">32s32sQ{PARAMETERS_BYTES}s")
_HELLO_FIXED_END = PREFIX.size + _HELLO_FIXED.size
_RETRY = struct.Struct(f">20s{COOKIE_BYTES}sQ{MAC_BYTES}s")
_WELCOME = struct.Struct(f">Q32s32s{PARAMETERS_BYTES}sB3s")
UNKNOWN_GUID = GUID(bytes(20))
"""Whom a HELLO names that does not know yet whom it calls."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one side of a session states about itself; covered by its signature."""

    role: int
    max_datagram_bytes: int
    max_body_bytes: int
    window_bytes: int
    credit_bytes: int
    instance: int = 0
    """Which of several bearers of one key this is: a new session of an instance replaces its old
    one."""
    suites: int = KNOWN_SUITES
    """Bit n: suite n is fine with this side."""

    def to_bytes(self) -> bytes:
        return _PARAMETERS.pack(
            self.suites,
            self.role,
            self.max_datagram_bytes,
            self.max_body_bytes,
            self.window_bytes,
            self.credit_bytes,
            self.instance,
        )

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        suites, role, datagram, body, window, credit, instance = _PARAMETERS.unpack(value)
        if not suites & KNOWN_SUITES:
            raise ProtocolError("unknown_suite", f"{suites:#04x}")
        if role not in (1, 2, 3):
            raise ProtocolError("bad_role", str(role))
        if not MIN_DATAGRAM_BYTES <= datagram <= MAX_DATAGRAM_BYTES:
            raise ProtocolError("bad_parameters", f"max_datagram_bytes {datagram}")
        if not 1 <= body <= MAX_BODY_BYTES or not window or not credit:
            raise ProtocolError("bad_parameters", "a zero limit, or one beyond the format")
        return cls(role, datagram, body, window, credit, instance, suites)


@dataclass(frozen=True, slots=True)
class Hello:
    """First message: who I am and what I can take. 1200 bytes, so no answer amplifies."""

    session: int
    """The session id that the answers must carry."""
    public_key: bytes
    share: bytes
    """X25519 public key, fresh."""
    stamp: int
    """Greater than in every HELLO of this key and instance before."""
    parameters: Parameters
    mac: bytes = bytes(MAC_BYTES)
    """Keyed with the name of the node that is called: whoever does not know it asks for it."""
    cookie: bytes = bytes(COOKIE_BYTES)
    """What the node that is called asked to be shown again; zero: nothing."""

    def core_bytes(self) -> bytes:
        """Return all but mac and cookie: what the handshake is about."""
        head = PREFIX.pack(type_byte(DatagramType.HELLO), 0, 0, self.session)
        fixed = _HELLO_FIXED.pack(
            self.public_key, self.share, self.stamp, self.parameters.to_bytes()
        )
        return (head + fixed).ljust(HELLO_CORE_BYTES, b"\0")

    def to_bytes(self) -> bytes:
        return self.core_bytes() + self.mac + self.cookie

    def towards(self, guid: GUID, cookie: bytes = bytes(COOKIE_BYTES)) -> Self:
        """Return this HELLO as the node `guid` takes it in."""
        return replace(self, mac=hello_mac(door_key(guid), self.core_bytes()), cookie=cookie)

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        """Decode a HELLO. Raises: ProtocolError, and nothing else."""
        if len(datagram) != MIN_DATAGRAM_BYTES:
            raise ProtocolError("bad_hello", f"{len(datagram)} bytes, not {MIN_DATAGRAM_BYTES}")
        session = handshake_prefix(datagram)
        key, share, stamp, parameters = _HELLO_FIXED.unpack_from(datagram, PREFIX.size)
        if any(datagram[_HELLO_FIXED_END:HELLO_CORE_BYTES]):
            raise ProtocolError("bad_hello", "padding is not zero")
        mac = datagram[HELLO_CORE_BYTES : HELLO_CORE_BYTES + MAC_BYTES]
        cookie = datagram[HELLO_CORE_BYTES + MAC_BYTES :]
        return cls(session, key, share, stamp, Parameters.from_bytes(parameters), mac, cookie)


@dataclass(frozen=True, slots=True)
class Retry:
    """Say HELLO again: to this name, with this cookie, with a later stamp than this."""

    session: int
    guid: GUID
    cookie: bytes
    stamp: int = 0
    """The newest stamp that the caller's key and instance has shown here; zero: none."""
    mac: bytes = bytes(MAC_BYTES)
    """Keyed with `guid` over all this and the mac of the HELLO: the answer to that one."""

    def unsigned_bytes(self) -> bytes:
        return self.to_bytes()[:-MAC_BYTES]

    def answering(self, hello_mac: bytes) -> Self:
        """Return this as the answer to the HELLO with that mac."""
        return replace(self, mac=self._mac(hello_mac))

    def answers(self, hello_mac: bytes) -> bool:
        """Tell whether this answers the HELLO with that mac, and nothing was altered on the way."""
        return hmac.compare_digest(self.mac, self._mac(hello_mac))

    def _mac(self, hello_mac: bytes) -> bytes:
        return _mac(door_key(self.guid), self.unsigned_bytes() + hello_mac)

    def to_bytes(self) -> bytes:
        head = PREFIX.pack(type_byte(DatagramType.RETRY), 0, 0, self.session)
        return head + _RETRY.pack(self.guid.to_bytes(), self.cookie, self.stamp, self.mac)

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        if len(datagram) != PREFIX.size + _RETRY.size:
            raise ProtocolError("bad_retry", f"{len(datagram)} bytes")
        session = handshake_prefix(datagram)
        guid, cookie, stamp, mac = _RETRY.unpack_from(datagram, PREFIX.size)
        return cls(session, GUID(guid), cookie, stamp, mac)


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to a HELLO: who I am, the session id you must use, my signature over both."""

    session: int
    own_session: int
    public_key: bytes
    share: bytes
    parameters: Parameters
    suite: int
    """The one that this session uses."""
    signature: bytes = b""

    def unsigned_bytes(self) -> bytes:
        head = PREFIX.pack(type_byte(DatagramType.WELCOME), 0, 0, self.session)
        return head + _WELCOME.pack(
            self.own_session,
            self.public_key,
            self.share,
            self.parameters.to_bytes(),
            self.suite,
            b"\0\0\0",
        )

    def to_bytes(self) -> bytes:
        return self.unsigned_bytes() + self.signature

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        expected = PREFIX.size + _WELCOME.size + SIGNATURE_BYTES
        if len(datagram) != expected:
            raise ProtocolError("bad_welcome", f"{len(datagram)} bytes, not {expected}")
        session = handshake_prefix(datagram)
        own, key, share, raw, suite, reserved = _WELCOME.unpack_from(datagram, PREFIX.size)
        if any(reserved):
            raise ProtocolError("reserved_bits")
        if suite not in list(Suite):
            raise ProtocolError("unknown_suite", str(suite))
        parameters = Parameters.from_bytes(raw)
        return cls(session, own, key, share, parameters, suite, datagram[-SIGNATURE_BYTES:])


@dataclass(frozen=True, slots=True)
class Confirm:
    """Last message: my signature over HELLO and WELCOME, under a tag of the new keys."""

    session: int
    signature: bytes
    tag: bytes

    def to_bytes(self) -> bytes:
        head = PREFIX.pack(type_byte(DatagramType.CONFIRM), 0, 0, self.session)
        return head + self.signature + self.tag

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        if len(datagram) != PREFIX.size + SIGNATURE_BYTES + MAC_BYTES:
            raise ProtocolError("bad_confirm", f"{len(datagram)} bytes")
        session = handshake_prefix(datagram)
        return cls(session, datagram[PREFIX.size : -MAC_BYTES], datagram[-MAC_BYTES:])


@dataclass(frozen=True, slots=True)
class Reject:
    """I do not know this session (any more); signed, so nobody else can end one."""

    session: int
    signature: bytes

    def to_bytes(self) -> bytes:
        return PREFIX.pack(type_byte(DatagramType.REJECT), 0, 0, self.session) + self.signature

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        if len(datagram) != REJECT_BYTES:
            raise ProtocolError("bad_reject", f"{len(datagram)} bytes")
        return cls(handshake_prefix(datagram), datagram[PREFIX.size :])


REJECT_BYTES = PREFIX.size + SIGNATURE_BYTES


def door_key(guid: GUID) -> bytes:
    """Return the key of the macs that only prove to know whom one calls."""
    return hashlib.blake2b(b"packetcloud hop 2 door" + guid.to_bytes(), digest_size=32).digest()


def hello_mac(key: bytes, core: bytes) -> bytes:
    """Return the mac of a HELLO's core under a `door_key`."""
    return _mac(key, core)


def _mac(key: bytes, message: bytes) -> bytes:
    return hashlib.blake2b(message, key=key, digest_size=MAC_BYTES).digest()


def handshake_prefix(datagram: bytes) -> int:
    """Return the session id of a handshake message. Raises: ProtocolError."""
    if len(datagram) < PREFIX.size:
        raise ProtocolError("short_datagram", f"{len(datagram)} bytes")
    _, kind, reserved, session = PREFIX.unpack_from(datagram)
    if kind or reserved:
        raise ProtocolError("reserved_bits")
    return int(session)
