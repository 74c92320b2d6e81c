"""GUID, SID, NA and ChunkId: 20, 4 and 8 bytes, derived from keys, told apart by type."""

from __future__ import annotations

import hashlib

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.names import (
    GUID,
    GUID_ZERO,
    NA,
    NA_UNBOUND,
    SID,
    SID_SEQUENCE,
    SID_ZERO,
    ChunkId,
    name_bytes,
)

KEY = bytes(range(32))


@pytest.mark.parametrize("kind", [GUID, SID])
@pytest.mark.parametrize("length", [0, 19, 21, 40])
def test_a_name_has_20_bytes(kind: type[GUID], length: int) -> None:
    """Any other length is a ProtocolError that names the kind, whichever way it is made."""
    with pytest.raises(ProtocolError, match=f"a {kind.__name__} has 20 bytes") as raised:
        kind.from_bytes(bytes(length))
    assert raised.value.reason == "bad_name"
    with pytest.raises(ProtocolError):
        kind(bytes(length))


@pytest.mark.parametrize("kind", [GUID, SID])
def test_a_name_goes_through_bytes_and_hex(kind: type[GUID]) -> None:
    """Bytes, hex digits of either case and with blanks around them give the same name."""
    name = kind(bytes(range(0xA0, 0xB4)))
    assert kind.from_bytes(name.to_bytes()) == name
    assert kind.from_hex(f" {name.hex.upper()}\n") == name == kind.from_hex(str(name))
    assert name.short == "a0a1a2a3"
    assert type(kind.from_hex(name.hex)) is kind


@pytest.mark.parametrize(
    "text",
    ["", "00", "0" * 39, "0" * 41, "0" * 42, "g" * 40, "٠" * 40, "00 " * 20, "0x" + "0" * 38],
)
def test_a_name_is_40_hexadecimal_digits(text: str) -> None:
    """Whatever else a person types is refused, also blanks between the digits."""
    with pytest.raises(ProtocolError) as raised:
        GUID.from_hex(text)
    assert raised.value.reason == "bad_name"


def test_a_guid_is_not_a_sid() -> None:
    """The same 20 bytes as GUID and as SID are two values: a table of one never finds the other."""
    value = bytes([7]) * 20
    assert GUID(value) != SID(value)
    assert len({GUID(value), SID(value)}) == 2


def test_the_name_of_a_key() -> None:
    """SHA-256 over domain word, suite and key, cut to 20 bytes; the SID is the same bytes."""
    digest = hashlib.sha256(b"packetcloud guid v1\x00\x01" + KEY).digest()
    assert name_bytes(KEY) == digest[:20]
    assert GUID.from_public_key(KEY).value == SID.from_public_key(KEY).value == digest[:20]


def test_a_name_needs_a_known_suite_and_a_whole_key() -> None:
    """An unknown suite or a key that has not 32 bytes has no name."""
    with pytest.raises(ProtocolError, match="unknown_suite"):
        name_bytes(KEY, suite=2)
    for key in (b"", KEY[:31], KEY + b"\x00"):
        with pytest.raises(ProtocolError, match="bad_key"):
            GUID.from_public_key(key)


def test_reserved_names() -> None:
    """Zero is plain delivery, all ones is "see the service sequence"; only zero is zero."""
    assert SID_ZERO.is_zero and GUID_ZERO.is_zero
    assert SID_SEQUENCE.value == b"\xff" * 20
    assert not SID_SEQUENCE.is_zero


@pytest.mark.parametrize(("kind", "length"), [(NA, 4), (ChunkId, 8)])
def test_numbers_fit_their_field(kind: type[NA] | type[ChunkId], length: int) -> None:
    """Both ends of the range round-trip; one below, one above and other lengths are refused."""
    largest = 256**length - 1
    for value in (0, 1, largest):
        assert kind.from_bytes(kind(value).to_bytes()) == kind(value)
        assert len(kind(value).to_bytes()) == length
    for value in (-1, largest + 1):
        with pytest.raises(ProtocolError, match="bad_name"):
            kind(value)
    for wrong in (0, length - 1, length + 1):
        with pytest.raises(ProtocolError, match="bad_name"):
            kind.from_bytes(bytes(wrong))


def test_how_numbers_read() -> None:
    """An NA is decimal, as in the config; a chunk id is 16 hex digits, so that columns line up."""
    assert str(NA(17)) == "17" and NA(0) == NA_UNBOUND
    assert str(ChunkId(255)) == "00000000000000ff"


def test_names_cannot_change() -> None:
    """A name is a key of many tables: it is frozen, and no attribute can be added."""
    for name, field in ((GUID_ZERO, "value"), (NA(1), "value"), (ChunkId(1), "other")):
        with pytest.raises((AttributeError, TypeError)):
            setattr(name, field, 5)


@pytest.mark.parametrize("kind", [GUID, SID])
def test_an_unchecked_name_is_the_same_name(kind: type[GUID]) -> None:
    """What a decoder makes without checks equals, hashes and types like the checked one."""
    value = bytes(range(20))
    name = kind.unchecked(value)
    assert type(name) is kind and name == kind(value) and hash(name) == hash(kind(value))
