"""Names: GUID, SID, NA and ChunkId.

A GUID is the truncated hash of an Ed25519 public key and a suite tag, so whoever holds the key can
prove the name and nobody can pick a taken one. A SID is the GUID of a service. An NA is the 4-byte
network address of a router; zero means "not bound yet" (late binding).

Source: MobiArch'13 paper, section 3.3; docs/protocol/chunk.md, "Names".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Self

from packetcloud.chunk.errors import ProtocolError

GUID_BYTES = 20
"""Length of a GUID and of a SID: MobilityFirst's 20 bytes."""
NA_BYTES = 4
PUBLIC_KEY_BYTES = 32
SUITE_ED25519_SHA256 = 1
"""The only suite today: Ed25519 keys, SHA-256 truncated to 20 bytes."""
_GUID_DOMAIN = b"packetcloud guid v1\x00"


@dataclass(frozen=True, slots=True, order=True)
class GUID:
    """The self-certifying name of a host, router or other end point: 20 bytes."""

    value: bytes
    _word: ClassVar[str] = "GUID"

    def __post_init__(self) -> None:
        if len(self.value) != GUID_BYTES:
            raise ProtocolError("bad_name", f"a {self._word} has 20 bytes, not {len(self.value)}")

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Make the name from its 20 bytes.

        Raises:
            ProtocolError: the length is not 20.
        """
        return cls(bytes(data))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Make the name from 40 hexadecimal digits, the form that people type.

        Raises:
            ProtocolError: not 40 hexadecimal digits.
        """
        digits = text.strip()
        try:
            data = bytes.fromhex(digits)
        except ValueError:
            raise ProtocolError("bad_name", f"{text!r} is not hexadecimal") from None
        if len(digits) != 2 * GUID_BYTES:  # fromhex itself lets blanks between the bytes pass
            raise ProtocolError("bad_name", f"a {cls._word} has 40 hexadecimal digits: {text!r}")
        return cls(data)

    @classmethod
    def from_public_key(cls, public_key: bytes, suite: int = SUITE_ED25519_SHA256) -> Self:
        """Derive the name that `public_key` (32 bytes) owns."""
        return cls(name_bytes(public_key, suite))

    @classmethod
    def unchecked(cls, value: bytes) -> Self:
        """Make the name from bytes that a struct has cut to 20 already; for decoders.

        Half the cost of the checking constructor; a chunk header has three names.
        """
        name = object.__new__(cls)
        _set_value(name, value)
        return name

    def to_bytes(self) -> bytes:
        return self.value

    @property
    def hex(self) -> str:
        return self.value.hex()

    @property
    def short(self) -> str:
        """The first 8 hexadecimal digits, for logs and tables."""
        return self.value[:4].hex()

    @property
    def is_zero(self) -> bool:
        return self.value == _ZERO_NAME

    def __str__(self) -> str:
        return self.value.hex()


@dataclass(frozen=True, slots=True, order=True)
class SID(GUID):
    """The name of a service. Zero: plain delivery. `SID_SEQUENCE`: see the service sequence."""

    _word: ClassVar[str] = "SID"


_set_value = GUID.__dict__["value"].__set__  # the slot itself, past the frozen __setattr__
_ZERO_NAME = bytes(GUID_BYTES)
GUID_ZERO = GUID(_ZERO_NAME)
SID_ZERO = SID(_ZERO_NAME)
"""Plain delivery: the chunk asks for no service."""
SID_SEQUENCE = SID(b"\xff" * GUID_BYTES)
""""Multiple services desired": the service-sequence extension is mandatory. Paper, section 3.3."""


@dataclass(frozen=True, slots=True, order=True)
class NA:
    """A network address: the 32-bit number of a router. Zero means not bound."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 0xFFFF_FFFF:
            raise ProtocolError("bad_name", f"an NA is a 32-bit number, not {self.value}")

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        if len(data) != NA_BYTES:
            raise ProtocolError("bad_name", f"an NA has 4 bytes, not {len(data)}")
        return cls(int.from_bytes(data, "big"))

    def to_bytes(self) -> bytes:
        return self.value.to_bytes(NA_BYTES, "big")

    def __str__(self) -> str:
        return str(self.value)


NA_UNBOUND = NA(0)


@dataclass(frozen=True, slots=True, order=True)
class ChunkId:
    """A 64-bit number, unique per source GUID; (source, chunk id) names a chunk for ever."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 0xFFFF_FFFF_FFFF_FFFF:
            raise ProtocolError("bad_name", f"a chunk id is a 64-bit number, not {self.value}")

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        if len(data) != 8:
            raise ProtocolError("bad_name", f"a chunk id has 8 bytes, not {len(data)}")
        return cls(int.from_bytes(data, "big"))

    def to_bytes(self) -> bytes:
        return self.value.to_bytes(8, "big")

    def __str__(self) -> str:
        return f"{self.value:016x}"


def name_bytes(public_key: bytes, suite: int = SUITE_ED25519_SHA256) -> bytes:
    """Return the 20 bytes of the GUID or SID that `public_key` owns.

    Raises:
        ProtocolError: the key has not 32 bytes, or the suite is unknown.
    """
    if suite != SUITE_ED25519_SHA256:
        raise ProtocolError("unknown_suite", f"suite {suite}; known: {SUITE_ED25519_SHA256}")
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ProtocolError("bad_key", f"a public key has 32 bytes, not {len(public_key)}")
    return hashlib.sha256(_GUID_DOMAIN + bytes([suite]) + public_key).digest()[:GUID_BYTES]
