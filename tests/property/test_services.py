"""Laws of the bundled services and of the runtime's core, for any bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import VerdictCode, VerdictHeader
from packetcloud.chunk.reasons import Reason
from packetcloud.services.sdk import Verdict, cut_text
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.services.tasks import Task
from packetcloud.services.testing import HeldBody, ServiceHarness
from tests.unit.services.service_fakes import FakeNeighbour, make_queue, task_body

PAYLOADS = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda piece, count: piece * count, st.binary(max_size=40), st.integers(0, 3000)),
)
"""Noise, and payloads that compress well, empty ones included."""
Pair = tuple[ServiceHarness, ServiceHarness]


@pytest.fixture(scope="module", params=["aes-256-gcm", "aes-128-cbc", "aes-128-cbc openssl"])
def ciphers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return an encrypter and a decrypter of one suite."""
    yield from _secure(request.param, tmp_path_factory.mktemp("keys") / "k")


@pytest.fixture(scope="module")
def gcm(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return an encrypter and a decrypter of AES-256-GCM."""
    yield from _secure("aes-256-gcm", tmp_path_factory.mktemp("keys") / "k")


@pytest.fixture(scope="module")
def optimizers() -> Iterator[Pair]:
    """Return a compressor and a decompressor."""
    with (
        ServiceHarness("wan-optimizer", {"direction": "compress"}) as ahead,
        ServiceHarness("wan-optimizer", {"direction": "decompress"}) as behind,
    ):
        yield ahead, behind


def _secure(suite: str, key_file: Path) -> Iterator[Pair]:
    create_key_file(key_file)
    name, _, library = suite.partition(" ")
    common = {"suite": name, "library": library or "pycryptodome", "key_file": str(key_file)}
    with (
        ServiceHarness("secure-communication", common | {"direction": "encrypt"}) as ahead,
        ServiceHarness("secure-communication", common | {"direction": "decrypt"}) as behind,
    ):
        yield ahead, behind


@given(payload=PAYLOADS, chunk_id=st.integers(0, 2**64 - 1))
def test_decrypt_undoes_encrypt(ciphers: Pair, payload: bytes, chunk_id: int) -> None:
    """For any payload and chunk id, under every suite."""
    secret = ciphers[0].process(payload, chunk_id=chunk_id)
    assert secret.code is VerdictCode.UPDATE
    kind = PayloadType.DATA if secret.payload_type is None else secret.payload_type
    back = ciphers[1].process(secret.payload, chunk_id=chunk_id, payload_type=kind)
    assert (back.code, back.payload) == (VerdictCode.UPDATE, payload)


@given(payload=PAYLOADS, data=st.data())
def test_gcm_detects_any_change(gcm: Pair, payload: bytes, data: st.DataObject) -> None:
    """Any bits flipped anywhere, any cut, anything appended: dropped, nothing passed on."""
    secret = gcm[0].process(payload, chunk_id=1).payload
    flips = data.draw(st.sets(st.integers(0, len(secret) * 8 - 1), max_size=4), label="flips")
    cut = data.draw(st.integers(0, len(secret)), label="cut")
    tail = data.draw(st.binary(max_size=20), label="tail")
    altered = bytearray(secret[:cut] + tail)
    for bit in flips:
        if bit // 8 < len(altered):
            altered[bit // 8] ^= 1 << bit % 8
    result = gcm[1].process(altered, chunk_id=1, payload_type=PayloadType.SEALED)
    if altered == secret:
        assert result.payload == payload
    else:
        assert (result.code, result.payload) == (VerdictCode.DROP, b"")


@given(payload=st.binary(max_size=200))
def test_decrypters_survive_any_bytes(ciphers: Pair, payload: bytes) -> None:
    """A verdict, never a failure, also behind a head that looks right."""
    for head in (b"", b"SC\x01\x01", b"SC\x01\x02"):
        assert ciphers[1].process(head + payload).code is not VerdictCode.FAILED


@given(payload=PAYLOADS)
def test_decompress_undoes_compress(optimizers: Pair, payload: bytes) -> None:
    """For any payload, compressible or not."""
    small = optimizers[0].process(payload, chunk_id=1)
    assert small.code is VerdictCode.UPDATE
    assert len(small.payload) <= len(payload) + 16
    back = optimizers[1].process(small.payload, chunk_id=1, payload_type=PayloadType.COMPRESSED)
    assert (back.payload, back.payload_type) == (payload, PayloadType.DATA)


@given(payload=st.binary(max_size=200), flags=st.integers(0, 63), sizes=st.binary(min_size=8))
def test_a_decompressor_survives_any_bytes(
    optimizers: Pair, payload: bytes, flags: int, sizes: bytes
) -> None:
    """A verdict within the limits, never a failure, also behind a head that looks right."""
    frame = bytes([3, flags, 0, 0]) + sizes[:8] + payload
    result = optimizers[1].process(frame, payload_type=PayloadType.COMPRESSED)
    assert result.code in (VerdictCode.UPDATE, VerdictCode.DROP)
    assert len(result.payload) <= 1000 * len(frame)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_task_or_malformed(data: bytes) -> None:
    """The runtime's way in: a value or a refusal, never an exception."""
    queue, _ = make_queue()
    assert queue.admit(HeldBody(data), FakeNeighbour(), 0.0) in (None, Reason.MALFORMED)


@given(place=st.integers(0, 110), value=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_any_changed_byte_is_a_task_or_a_refusal(place: int, value: int) -> None:
    """Around a valid task as well; what is taken can be processed and answered."""
    data = bytearray(task_body(b"payload").contiguous())
    data[place] = value
    queue, _ = make_queue()
    reason = queue.admit(HeldBody(data), FakeNeighbour(), 0.0)
    if reason is None:
        task = queue.take(0.0)
        if isinstance(task, Task):
            answer = queue.conclude(task, Verdict.update(b"x"), 1)
            assert VerdictHeader.from_bytes(answer.prefix).code is VerdictCode.UPDATE


@given(text=st.text(max_size=400))
def test_a_cut_text_is_valid_and_short_enough(text: str) -> None:
    """At most 512 bytes, whole characters, the beginning of what was given."""
    cut = cut_text(text)
    assert len(cut) <= 512
    assert text.encode("utf-8", "replace").startswith(cut)
    cut.decode()
