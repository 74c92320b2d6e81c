"""secure-communication: both suites, the key file, and what a decrypter refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from Crypto.Util.Padding import unpad
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.secure_communication import keys
from packetcloud.services.secure_communication.keys import (
    KeyRing,
    create_key_file,
    load_key_file,
    rotate_key_file,
)
from packetcloud.services.secure_communication.suites import HEAD_BYTES, decode_head
from packetcloud.services.testing import HARNESS_SOURCE, ProcessResult, ServiceHarness

Open = Callable[..., ServiceHarness]
SUITES = ["aes-256-gcm", "aes-128-cbc"]
SIZES = [0, 1, 15, 16, 17, 4095, 4096, 1 << 20, (1 << 20) + 900]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    create_key_file(path)
    return path


@pytest.fixture
def opened(key_file: Path) -> Iterator[Open]:
    """Return a function that starts the service with the test's key file."""
    with ExitStack() as stack:

        def start(
            direction: str, suite: str, file: Path = key_file, library: str = "pycryptodome"
        ) -> ServiceHarness:
            settings = {"direction": direction, "suite": suite, "key_file": str(file)}
            settings["library"] = library
            return stack.enter_context(ServiceHarness("secure-communication", settings))

        yield start


def updated(result: ProcessResult) -> bytes:
    assert result.code is VerdictCode.UPDATE, result.reason
    return result.payload


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", SIZES)
def test_what_was_encrypted_comes_back(opened: Open, suite: str, size: int) -> None:
    """For every size around a block, none, the largest, and one that another service enlarged."""
    payload = os.urandom(size)
    secret = updated(opened("encrypt", suite).process(payload, chunk_id=5))
    assert secret != payload
    assert updated(opened("decrypt", suite).process(secret, chunk_id=5)) == payload


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("there", "back"), [("openssl", "pycryptodome"), ("pycryptodome", "openssl")]
)
def test_both_libraries_speak_the_same_cbc(opened: Open, there: str, back: str, size: int) -> None:
    """One direction may run on either, without the other knowing."""
    payload = os.urandom(size)
    secret = updated(opened("encrypt", "aes-128-cbc", library=there).process(payload))
    assert updated(opened("decrypt", "aes-128-cbc", library=back).process(secret)) == payload


def test_cbc_is_what_any_other_implementation_reads(opened: Open, key_file: Path) -> None:
    """Head, IV, and plain AES-128-CBC with PKCS#7 under the derived key."""
    payload = b"the quick brown fox"
    secret = updated(opened("encrypt", "aes-128-cbc").process(payload))
    (key,) = load_key_file(key_file)
    iv, rest = secret[HEAD_BYTES : HEAD_BYTES + 16], secret[HEAD_BYTES + 16 :]
    cipher = AES.new(key.derive("aes-128-cbc", 16), AES.MODE_CBC, iv)
    assert unpad(cipher.decrypt(rest), 16) == payload


def test_gcm_is_what_any_other_implementation_reads(opened: Open, key_file: Path) -> None:
    """Head, nonce, AES-256-GCM; head, source and chunk id are the additional data."""
    payload = b"the quick brown fox"
    secret = updated(opened("encrypt", "aes-256-gcm").process(payload, chunk_id=9))
    (key,) = load_key_file(key_file)
    head, nonce, rest = secret[:HEAD_BYTES], secret[HEAD_BYTES:20], secret[20:]
    bound = head + HARNESS_SOURCE.value + (9).to_bytes(8, "big")
    assert AESGCM(key.derive("aes-256-gcm", 32)).decrypt(nonce, rest, bound) == payload


@pytest.mark.parametrize("suite", SUITES)
def test_equal_payloads_do_not_look_equal(opened: Open, suite: str) -> None:
    """A fresh IV or nonce for every chunk."""
    service = opened("encrypt", suite)
    assert updated(service.process(b"same", chunk_id=1)) != updated(
        service.process(b"same", chunk_id=1)
    )


@pytest.mark.parametrize("suite", SUITES)
def test_no_output_buffer_is_allocated_per_chunk(opened: Open, suite: str) -> None:
    """The one buffer of the first chunk serves all others."""
    ahead, behind = opened("encrypt", suite), opened("decrypt", suite)
    for number in range(5):
        secret = updated(ahead.process(bytes(1 << 20), chunk_id=number))
        updated(behind.process(secret, chunk_id=number))
    assert (ahead.output_buffers, behind.output_buffers) == (1, 1)


def test_gcm_detects_every_flipped_bit(opened: Open) -> None:
    """Also in head, nonce and tag; the chunk is dropped with a reason, nothing is passed on."""
    secret = updated(opened("encrypt", "aes-256-gcm").process(b"pay 100", chunk_id=1))
    service = opened("decrypt", "aes-256-gcm")
    for bit in range(len(secret) * 8):
        altered = bytearray(secret)
        altered[bit // 8] ^= 1 << bit % 8
        result = service.process(altered, chunk_id=1)
        assert result.code is VerdictCode.DROP
        assert result.reason


def test_gcm_detects_a_payload_moved_to_another_chunk(opened: Open) -> None:
    """Replayed under another id or another source it does not pass."""
    secret = updated(opened("encrypt", "aes-256-gcm").process(b"pay 100", chunk_id=1))
    service = opened("decrypt", "aes-256-gcm")
    assert updated(service.process(secret, chunk_id=1)) == b"pay 100"
    assert service.process(secret, chunk_id=2).reason == "authentication failed"
    other = GUID(b"\x0f" * 20)
    assert service.process(secret, chunk_id=1, source=other).reason == "authentication failed"


@pytest.mark.parametrize("suite", SUITES)
def test_every_truncation_is_dropped(opened: Open, suite: str) -> None:
    """No length of a cut payload raises or passes."""
    secret = updated(opened("encrypt", suite).process(b"0123456789" * 3, chunk_id=1))
    service = opened("decrypt", suite)
    for length in range(len(secret)):
        result = service.process(secret[:length], chunk_id=1)
        # CBC has no integrity: a cut at a block may pass if its last byte looks like padding.
        assert result.code is VerdictCode.DROP or suite == "aes-128-cbc"
        assert result.code in (VerdictCode.DROP, VerdictCode.UPDATE)


def test_plain_payloads_are_never_passed_by_a_decrypter(opened: Open) -> None:
    """Somebody in between could otherwise put in what he likes."""
    service = opened("decrypt", "aes-256-gcm")
    for payload in (b"", b"SC", b"plain text", b"SC\x02\x02" + bytes(60)):
        assert service.process(payload).reason == "not encrypted"


def test_a_decrypter_takes_its_own_suite_only(opened: Open) -> None:
    """A payload that names CBC must not talk a GCM service out of checking."""
    secret = updated(opened("encrypt", "aes-128-cbc").process(b"x"))
    result = opened("decrypt", "aes-256-gcm").process(secret)
    assert result.reason == "encrypted by another suite"


def test_the_suites_share_no_key(key_file: Path) -> None:
    """Derived apart, so that a weakness of one says nothing about the other."""
    (key,) = load_key_file(key_file)
    assert key.derive("aes-128-cbc", 16) != key.derive("aes-256-gcm", 32)[:16]
    assert key.derive("aes-256-gcm", 32) != key.master
    assert key.master.hex() not in repr(key)


# The key file


def test_old_keys_decrypt_while_the_newest_encrypts(opened: Open, key_file: Path) -> None:
    """Rotation loses nothing that is on its way."""
    old = updated(opened("encrypt", "aes-256-gcm").process(b"old", chunk_id=1))
    added = rotate_key_file(key_file)
    new = updated(opened("encrypt", "aes-256-gcm").process(b"new", chunk_id=2))
    assert decode_head(memoryview(new))[1] == added.key_id
    service = opened("decrypt", "aes-256-gcm")
    assert updated(service.process(old, chunk_id=1)) == b"old"
    assert updated(service.process(new, chunk_id=2)) == b"new"


def test_a_key_that_the_other_side_lacks_is_named(opened: Open, tmp_path: Path) -> None:
    """The reason tells which key id is missing."""
    other = tmp_path / "other.json"
    key = create_key_file(other)
    secret = updated(opened("encrypt", "aes-256-gcm", other).process(b"x"))
    result = opened("decrypt", "aes-256-gcm").process(secret)
    assert result.reason == f"unknown key {key.key_id:08x}"


def test_a_running_service_notices_a_new_key(key_file: Path) -> None:
    """The file is looked at once a second at most; damaged, the old keys stay in use."""
    ring = KeyRing(key_file, "aes-256-gcm", 32)
    first, _ = ring.newest
    ring.refresh(10.0)
    added = rotate_key_file(key_file)
    ring.refresh(10.5)
    assert ring.newest[0] == first
    ring.refresh(11.1)
    assert ring.newest[0] == added.key_id
    assert ring.get(first) is not None
    assert ring.get(12345) is None
    key_file.write_text("{")
    ring.refresh(13.0)
    assert ring.newest[0] == added.key_id
    key_file.unlink()
    ring.refresh(15.0)
    assert ring.newest[0] == added.key_id


def test_the_key_file_is_private_and_never_overwritten(key_file: Path) -> None:
    """Who loses a key loses what it encrypted."""
    assert key_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ServiceConfigError, match="key rotate"):
        create_key_file(key_file)


def test_the_key_file_keeps_a_limited_number_of_keys(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the cap the oldest goes."""
    monkeypatch.setattr(keys, "MAX_KEYS_COUNT", 3)
    (first,) = load_key_file(key_file)
    for _ in range(2):
        rotate_key_file(key_file)
    assert first in load_key_file(key_file)
    rotate_key_file(key_file)
    assert len(load_key_file(key_file)) == 3
    assert first not in load_key_file(key_file)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{}",
        '{"format": "other", "keys": []}',
        '{"format": "packetcloud-service-keys-1", "keys": []}',
        '{"format": "packetcloud-service-keys-1", "keys": [{"id": "0", "key": "00"}]}',
        '{"format": "packetcloud-service-keys-1", "keys": "xy"}',
    ],
)
def test_a_damaged_key_file_is_refused_by_name(key_file: Path, damage: str) -> None:
    """Never a traceback, whatever the file holds."""
    key_file.write_text(damage)
    with pytest.raises(ServiceConfigError, match=r"keys\.json is not a service key file"):
        load_key_file(key_file)


def test_a_flipped_digit_of_a_key_is_noticed(key_file: Path) -> None:
    """The id is a hash of the key."""
    record = json.loads(key_file.read_text())
    text = record["keys"][0]["key"]
    record["keys"][0]["key"] = ("0" if text[0] != "0" else "1") + text[1:]
    key_file.write_text(json.dumps(record))
    with pytest.raises(ServiceConfigError, match="is damaged"):
        load_key_file(key_file)


def test_a_key_file_that_others_can_read_is_refused(key_file: Path, tmp_path: Path) -> None:
    """And a missing one says how to make it."""
    key_file.chmod(0o640)
    with pytest.raises(ServiceConfigError, match="mode 0640"):
        load_key_file(key_file)
    with pytest.raises(ServiceConfigError, match="service key create"):
        load_key_file(tmp_path / "none")
    with pytest.raises(ServiceConfigError, match="cannot write"):
        create_key_file(tmp_path / "none" / "keys.json")
