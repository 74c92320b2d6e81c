"""secure-communication: what is sealed, bound and refused; and what AES-128-CBC does not see."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from Crypto.Cipher import AES
from Crypto.Util.Padding import unpad
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.services.secure_communication.keys import (
    create_key_file,
    load_key_file,
    rotate_key_file,
)
from packetcloud.services.secure_communication.sealing import (
    SEALED_EXTRA_BYTES,
    SUITE_NUMBER,
    VERSION,
    SealingKey,
)
from packetcloud.services.secure_communication.service import OTHER_KIND
from packetcloud.services.secure_communication.suites import HEAD_BYTES, decode_head, encode_head
from packetcloud.services.testing import (
    HARNESS_DESTINATION,
    HARNESS_SOURCE,
    ProcessResult,
    ServiceHarness,
)

Open = Callable[..., ServiceHarness]
GCM, CBC = "aes-256-gcm", "aes-128-cbc"
SUITES = [GCM, CBC]
SIZES = [0, 1, 15, 16, 17, 4095, 4096, 1 << 20, (1 << 20) + 900]
SEALED = PayloadType.SEALED


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
            direction: str, suite: str = GCM, file: Path = key_file, **more: str
        ) -> ServiceHarness:
            settings = {"direction": direction, "suite": suite, "key_file": str(file)} | more
            return stack.enter_context(ServiceHarness("secure-communication", settings))

        yield start


def updated(result: ProcessResult) -> bytes:
    assert result.code is VerdictCode.UPDATE, result.reason
    return result.payload


def opens(
    service: ServiceHarness, sealed: bytes, payload_type: int = SEALED, **chunk: Any
) -> ProcessResult:
    """Let a decrypter have what an encrypter made."""
    return service.process(sealed, payload_type=payload_type, **chunk)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_comes_back(opened: Open, size: int) -> None:
    """For every size around a block, none, the largest, and one that another service enlarged; as
    the payload type that it had."""
    payload = os.urandom(size)
    for payload_type in (PayloadType.DATA, PayloadType.REPORT, 255):
        sealed = opened("encrypt").process(payload, chunk_id=5, payload_type=payload_type)
        assert len(updated(sealed)) == size + SEALED_EXTRA_BYTES
        is_report = payload_type == PayloadType.REPORT
        kind = PayloadType.SEALED_REPORT if is_report else SEALED
        assert sealed.payload_type == kind
        back = opens(opened("decrypt"), sealed.payload, kind, chunk_id=5)
        assert (updated(back), back.payload_type) == (payload, payload_type)


@pytest.mark.parametrize(
    ("was", "marked"),
    [(PayloadType.DATA, PayloadType.SEALED_REPORT), (PayloadType.REPORT, PayloadType.SEALED)],
)
def test_what_was_no_report_is_never_decrypted_as_one(
    opened: Open, was: PayloadType, marked: PayloadType
) -> None:
    """Nor the other way round, whatever a router between wrote over the mark."""
    sealed = updated(opened("encrypt").process(b"payload", chunk_id=5, payload_type=was))
    back = opens(opened("decrypt"), sealed, marked, chunk_id=5)
    assert (back.code, back.reason) == (VerdictCode.DROP, OTHER_KIND)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("there", "back"), [("openssl", "pycryptodome"), ("pycryptodome", "openssl")]
)
def test_both_libraries_speak_the_same_cbc(opened: Open, there: str, back: str, size: int) -> None:
    """One direction may run on either, without the other knowing."""
    payload = os.urandom(size)
    secret = opened("encrypt", CBC, library=there).process(payload)
    assert updated(opened("decrypt", CBC, library=back).process(updated(secret))) == payload
    assert secret.payload_type is None


def test_cbc_is_what_any_other_implementation_reads(opened: Open, key_file: Path) -> None:
    """Head, IV, and plain AES-128-CBC with PKCS#7 under the derived key."""
    payload = b"the quick brown fox"
    secret = updated(opened("encrypt", CBC).process(payload))
    (key,) = load_key_file(key_file)
    iv, rest = secret[HEAD_BYTES : HEAD_BYTES + 16], secret[HEAD_BYTES + 16 :]
    cipher = AES.new(key.derive(CBC, 16), AES.MODE_CBC, iv)
    assert unpad(cipher.decrypt(rest), 16) == payload


@pytest.mark.parametrize(
    ("key", "bound", "secret"),
    [
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_the_vectors_of_xaes(key: int, bound: bytes, secret: str) -> None:
    """Keys for nonces are those of C2SP's XAES-256-GCM: its test vectors."""
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    derived = SealingKey(bytes([key]) * 32)._key_of(nonce)
    assert AESGCM(derived).encrypt(nonce[12:], b"XAES-256-GCM", bound).hex() == secret


def test_sealed_is_what_any_other_implementation_reads(opened: Open, key_file: Path) -> None:
    """Head, nonce, XAES-256-GCM of payload and trailer: type, whether there is a lifetime, when it
    was sealed, the lifetime. What it is bound to is the additional data."""
    payload = b"the quick brown fox"
    before_ms = int(time.time() * 1000)
    service = opened("encrypt")
    sealed = updated(service.process(payload, chunk_id=9, lifetime_ms=60_000))
    (key,) = load_key_file(key_file)
    head, nonce, rest = sealed[:HEAD_BYTES], sealed[HEAD_BYTES:32], sealed[32:]
    assert head == encode_head(VERSION, SUITE_NUMBER, key.key_id)
    bound = head + HARNESS_SOURCE.value + (9).to_bytes(8, "big") + HARNESS_DESTINATION.value
    derived = SealingKey(key.derive("xaes-256-gcm", 32))._key_of(nonce)
    found = AESGCM(derived).decrypt(nonce[12:], rest, bound)
    kind, has_lifetime, sealed_at_ms, lifetime_ms = struct.unpack(">BBQI", found[-14:])
    assert (found[:-14], kind, has_lifetime, lifetime_ms) == (payload, 0, 1, 60_000)
    assert before_ms <= sealed_at_ms <= int(time.time() * 1000)


@pytest.mark.parametrize("suite", SUITES)
def test_equal_payloads_do_not_look_equal(opened: Open, suite: str) -> None:
    """A fresh IV or nonce for every chunk, also for one that its source sends again."""
    service = opened("encrypt", suite)
    secrets = {updated(service.process(b"same", chunk_id=1))[HEAD_BYTES:] for _ in range(20)}
    assert len(secrets) == 20
    assert len({secret[:12] for secret in secrets}) == 20


@pytest.mark.parametrize("suite", SUITES)
def test_no_output_buffer_is_allocated_per_chunk(opened: Open, suite: str) -> None:
    """The one buffer of the first chunk serves all others."""
    ahead, behind = opened("encrypt", suite), opened("decrypt", suite)
    for number in range(5):
        secret = updated(ahead.process(bytes(1 << 20), chunk_id=number))
        kind = SEALED if suite == GCM else PayloadType.DATA
        updated(behind.process(secret, chunk_id=number, payload_type=kind))
    assert (ahead.output_buffers, behind.output_buffers) == (1, 1)


def test_every_flipped_bit_is_detected(opened: Open) -> None:
    """Also in head, nonce and tag; the chunk is dropped with a reason, nothing is passed on."""
    sealed = updated(opened("encrypt").process(b"pay 100", chunk_id=1))
    service = opened("decrypt")
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        result = opens(service, bytes(altered), chunk_id=1)
        assert result.code is VerdictCode.DROP
        assert result.reason


def test_cbc_does_not_see_what_was_altered(opened: Open) -> None:
    """The control: whoever is in between chooses what arrives, and nobody notices."""
    payload = b"from: alice.....pay  100 to bob."
    secret = bytearray(updated(opened("encrypt", CBC).process(payload, chunk_id=1)))
    at = HEAD_BYTES + payload.index(b"  100")  # in the IV or ciphertext block before that one
    secret[at] ^= ord(" ") ^ ord("9")
    arrived = updated(opened("decrypt", CBC).process(bytes(secret), chunk_id=77))
    assert b"pay9 100" in arrived


@pytest.mark.parametrize(
    "other",
    [
        {"chunk_id": 2},
        {"source": GUID(b"\x0f" * 20)},
        {"destination": GUID(b"\x0f" * 20)},
    ],
    ids=str,
)
def test_a_payload_moved_to_another_chunk_is_detected(opened: Open, other: dict[str, Any]) -> None:
    """Replayed under another id or source, or led to another destination, it does not pass."""
    sealed = updated(opened("encrypt").process(b"pay 100", chunk_id=1))
    service = opened("decrypt")
    assert updated(opens(service, sealed, chunk_id=1)) == b"pay 100"
    assert opens(service, sealed, **({"chunk_id": 1} | other)).reason == "authentication failed"


@pytest.mark.parametrize("suite", SUITES)
def test_every_truncation_is_dropped(opened: Open, suite: str) -> None:
    """No length of a cut payload raises or passes, where no byte of it looks like padding."""
    secret = updated(opened("encrypt", suite).process(b"0123456789" * 3, chunk_id=1))
    service = opened("decrypt", suite)
    kind = SEALED if suite == GCM else PayloadType.DATA
    for length in range(len(secret)):
        result = service.process(secret[:length], chunk_id=1, payload_type=kind)
        assert result.code is VerdictCode.DROP, length
    whole = service.process(secret, chunk_id=1, payload_type=kind)
    assert whole.payload == b"0123456789" * 3


@pytest.mark.parametrize("suite", SUITES)
def test_what_is_cut_where_padding_might_stand(opened: Open, suite: str) -> None:
    """CBC has no integrity, and takes the beginning for the whole; GCM does not."""
    secret = updated(opened("encrypt", suite).process(b"pay 100 to bob:\x01never", chunk_id=1))
    kind = SEALED if suite == GCM else PayloadType.DATA
    service = opened("decrypt", suite)
    cuts = [service.process(secret[:n], chunk_id=1, payload_type=kind) for n in range(len(secret))]
    passed = [cut.payload for cut in cuts if cut.code is VerdictCode.UPDATE]
    assert passed == ([b"pay 100 to bob:"] if suite == CBC else [])


def test_what_is_not_encrypted_is_not_passed_by_a_decrypter(opened: Open) -> None:
    """Somebody in between could otherwise put in what he likes, under either type."""
    service = opened("decrypt")
    for payload in (b"", b"SC", b"plain text", encode_head(2, 3, 1) + bytes(60)):
        assert service.process(payload).reason == "not encrypted"
    for payload in (b"", b"SC", b"plain text"):
        assert opens(service, payload).reason == "not encrypted"


def test_what_is_not_encrypted_passes_where_that_is_wanted(opened: Open) -> None:
    """Where not all senders are behind an encrypter; what bears the mark is checked as ever."""
    service = opened("decrypt", unencrypted="forward")
    assert service.process(b"plain text").code is VerdictCode.FORWARD
    assert opens(service, b"plain text").reason == "not encrypted"


def test_nothing_is_encrypted_twice(opened: Open) -> None:
    """A second encrypter on the way passes on what the first one made; and nothing that only says
    so."""
    service = opened("encrypt")
    sealed = updated(service.process(b"pay 100", chunk_id=1))
    assert opens(service, sealed, chunk_id=1).code is VerdictCode.FORWARD
    for payload in (b"", b"plain text", encode_head(1, 1, 1) + bytes(60)):
        assert opens(service, payload).reason == "marked as encrypted, and is not"


def test_a_decrypter_takes_its_own_suite_only(opened: Open) -> None:
    """A payload that names CBC, or an older format, must not talk it out of checking."""
    secret = updated(opened("encrypt", CBC).process(b"x"))
    assert opens(opened("decrypt"), secret).reason == "encrypted by another suite"
    sealed = updated(opened("encrypt").process(b"x"))
    assert opens(opened("decrypt", CBC), sealed).reason == "encrypted by another suite"


def of_format_1(key_file: Path, payload: bytes, chunk_id: int) -> bytes:
    """Return what version 1 of the service made of a payload."""
    (key,) = load_key_file(key_file)
    head, nonce = encode_head(1, 2, key.key_id), os.urandom(12)
    bound = head + HARNESS_SOURCE.value + chunk_id.to_bytes(8, "big")
    return head + nonce + AESGCM(key.derive(GCM, 32)).encrypt(nonce, payload, bound)


def test_format_1_is_read_only_if_asked(opened: Open, key_file: Path) -> None:
    """It is bound to less: taken unasked, it would be a way around what format 2 checks."""
    secret = of_format_1(key_file, b"older", 4)
    assert opened("decrypt").process(secret, chunk_id=4).reason == "not encrypted"
    assert opens(opened("decrypt"), secret, chunk_id=4).reason == "encrypted by another suite"
    service = opened("decrypt", format_1="decrypt")
    assert updated(service.process(secret, chunk_id=4)) == b"older"
    assert opens(service, secret, chunk_id=4).reason == "encrypted by another suite"
    assert service.process(secret, chunk_id=5).reason == "authentication failed"
    assert service.process(b"plain text").reason == "not encrypted"
    other = bytearray(secret)
    other[4] ^= 1
    lacking = service.process(bytes(other), chunk_id=4)
    assert lacking.reason.startswith("unknown key: ") and lacking.again
    sealed = updated(opened("encrypt").process(b"newer", chunk_id=4))
    assert updated(opens(service, sealed, chunk_id=4)) == b"newer"


# Keys


def test_old_keys_decrypt_while_the_newest_encrypts(opened: Open, key_file: Path) -> None:
    """Rotation loses nothing that is on its way."""
    old = updated(opened("encrypt").process(b"old", chunk_id=1))
    added = rotate_key_file(key_file)
    new = updated(opened("encrypt").process(b"new", chunk_id=2))
    assert decode_head(memoryview(new))[2] == added.key_id
    service = opened("decrypt")
    assert updated(opens(service, old, chunk_id=1)) == b"old"
    assert updated(opens(service, new, chunk_id=2)) == b"new"


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_is_encrypted_with_a_key_before_its_time(
    opened: Open, key_file: Path, suite: str
) -> None:
    """The one before it goes on; without any, chunks are dropped for now, never in the clear."""
    (first,) = load_key_file(key_file)
    rotate_key_file(key_file, 3600.0)
    secret = updated(opened("encrypt", suite).process(b"x"))
    assert decode_head(memoryview(secret))[2] == first.key_id
    text = key_file.read_text()
    key_file.write_text(
        text.replace('"created"', '"not_before": "2999-01-01T00:00:00Z", "created"')
    )
    result = opened("encrypt", suite).process(b"x")
    assert (result.reason, result.again) == ("no key is in use yet", True)


@pytest.mark.parametrize("suite", SUITES)
def test_a_key_that_the_other_side_lacks_is_named(opened: Open, tmp_path: Path, suite: str) -> None:
    """The reason tells which key id is missing; the key may come, so the host sends it again."""
    other = tmp_path / "other.json"
    key = create_key_file(other)
    secret = updated(opened("encrypt", suite, other).process(b"x"))
    kind = SEALED if suite == GCM else PayloadType.DATA
    result = opened("decrypt", suite).process(secret, payload_type=kind)
    assert (result.reason, result.again) == (f"unknown key: {key.key_id:08x}", True)
