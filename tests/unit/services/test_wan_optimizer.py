"""wan-optimizer: what is compressed, what passes as it is, and what is refused.

A frame is tied to its chunk: both directions count their chunks from 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import zstandard

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import ChunkId
from packetcloud.services.testing import (
    HARNESS_DESTINATION,
    HARNESS_SOURCE,
    ProcessResult,
    ServiceHarness,
)
from packetcloud.services.wan_optimizer.framing import (
    DamagedFrameError,
    Flag,
    FrameHead,
    decode_frame,
    padded_bytes,
)
from packetcloud.services.wan_optimizer.sealing import Seals, bound_of

Open = Callable[..., ServiceHarness]
TEXT = b"".join(b"line %d, value %d\n" % (n, n * n % 977) for n in range(60_000))[: 1 << 20]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Return a function that starts the service with settings."""
    with ExitStack() as stack:

        def start(direction: str, **settings: object) -> ServiceHarness:
            values = {"direction": direction} | {k: str(v) for k, v in settings.items()}
            return stack.enter_context(ServiceHarness("wan-optimizer", values))

        yield start


def compressed(result: ProcessResult) -> bytes:
    assert result.code is VerdictCode.UPDATE, result.reason
    assert result.payload_type == PayloadType.COMPRESSED
    return result.payload


def restore(service: ServiceHarness, payload: bytes | bytearray) -> ProcessResult:
    return service.process(payload, payload_type=PayloadType.COMPRESSED)


def restored(service: ServiceHarness, payload: bytes, kind: int = PayloadType.DATA) -> bytes:
    result = restore(service, payload)
    assert result.code is VerdictCode.UPDATE, result.reason
    assert result.payload_type == kind
    return result.payload


def framed(
    flags: int, original: int | bytes, stored: bytes, stored_bytes: int | None = None
) -> bytes:
    """Return a frame for the first chunk; the digest is right if it is given the original."""
    size = len(stored) if stored_bytes is None else stored_bytes
    payload = original if isinstance(original, bytes) else b""
    count = len(original) if isinstance(original, bytes) else original
    first = ChunkHeader(HARNESS_SOURCE, HARNESS_DESTINATION, ChunkId(1), 0)
    head = FrameHead(Flag(flags), PayloadType.DATA, count, size)
    return Seals(None).sealed_head(head, bound_of(first), payload) + stored


@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"a",
        bytes(31),
        bytes(33),
        b"ab" * 500,
        TEXT[:65_536],
        bytes(1 << 20),
        os.urandom(100_000),
        b"WO\x01\x01" + bytes(100),
    ],
    ids=["empty", "1", "31", "33", "short", "text", "zeros", "random", "looks framed"],
)
def test_what_was_compressed_comes_back(opened: Open, payload: bytes, level: int) -> None:
    """At every level, for every kind of payload, one that looks like a frame included."""
    for kind in (PayloadType.DATA, PayloadType.FILE, 200, PayloadType.SEALED):
        small = compressed(opened("compress", level=level).process(payload, payload_type=kind))
        assert restored(opened("decompress"), small, kind) == payload


def test_two_pairs_one_inside_the_other(opened: Open) -> None:
    """Each undoes what its own other side did."""
    inner = compressed(opened("compress").process(TEXT))
    outer = compressed(restore(opened("compress"), inner))
    between = restored(opened("decompress"), outer, PayloadType.COMPRESSED)
    assert restored(opened("decompress"), between) == TEXT


@pytest.mark.parametrize("direction", ["compress", "decompress"])
@pytest.mark.parametrize("kind", [PayloadType.REPORT, PayloadType.SEALED_REPORT])
def test_reports_pass_as_they_are(opened: Open, direction: str, kind: PayloadType) -> None:
    """Also where nothing else does: no service makes a report of what is none."""
    service = opened(direction, unframed="drop")
    assert service.process(b"report", payload_type=kind).code is VerdictCode.FORWARD


def test_text_becomes_smaller_and_noise_hardly_larger(opened: Open) -> None:
    """Incompressible payload passes as it is, behind 16 bytes."""
    assert len(compressed(opened("compress").process(TEXT))) < len(TEXT) / 4
    noise = os.urandom(100_000)
    small = compressed(opened("compress").process(noise))
    assert small == framed(0, noise, noise) and len(small) == len(noise) + 16


def test_the_largest_payload_of_a_chain_still_passes(opened: Open) -> None:
    """1 MiB that another service enlarged: compressed or raw, it fits and comes back."""
    for payload in (bytes((1 << 20) + 992), os.urandom((1 << 20) + 992)):
        small = compressed(opened("compress").process(payload))
        assert restored(opened("decompress"), small) == payload


def test_no_output_buffer_is_allocated_per_chunk(opened: Open) -> None:
    """The buffers of the first chunk serve all others."""
    ahead, behind = opened("compress"), opened("decompress")
    for _ in range(5):
        restored(behind, compressed(ahead.process(TEXT)))
    assert (ahead.output_buffers, behind.output_buffers) == (1, 1)


def test_a_raw_payload_is_passed_on_without_a_copy(opened: Open) -> None:
    """The verdict is a part of the input: no output buffer at all."""
    behind = opened("decompress")
    noise = os.urandom(10_000)
    assert restored(behind, framed(0, noise, noise)) == noise
    assert behind.output_buffers == 0


def test_a_payload_that_never_passed_compress(opened: Open) -> None:
    """Forwarded, since compress fails open; or dropped, if the operator says so. What it begins
    with is nobody's business."""
    small = compressed(opened("compress").process(TEXT))
    older = [b"WO" + bytes([version]) + bytes(21) for version in (1, 2)]  # marked nothing
    for payload in (b"", b"plain", *older, b"\x03\x00" + bytes(20), small):
        assert opened("decompress").process(payload).code is VerdictCode.FORWARD
        result = opened("decompress", unframed="drop").process(payload)
        assert (result.code, result.reason) == (VerdictCode.DROP, "not compressed")


def test_a_megabyte_of_zeros_stays_within_the_ratio(opened: Open) -> None:
    """Padded to original / max_ratio, so that a receiver who refuses bombs takes it."""
    small = compressed(opened("compress", max_ratio=50).process(bytes(1 << 20)))
    assert len(small) == -(-(1 << 20) // 50)
    assert restored(opened("decompress", max_ratio=50), small) == bytes(1 << 20)
    refused = restore(opened("decompress", max_ratio=49), small)
    assert refused.code is VerdictCode.DROP
    assert "decompression bomb: ratio 50, allowed 49" in refused.reason


def test_padding_is_none_where_none_is_needed() -> None:
    """Rounded up, so that the declared ratio is never above the limit."""
    assert padded_bytes(1000, 512, 1000) == 512
    assert padded_bytes(100_001, 10, 1000) == 101


@pytest.mark.parametrize("declared", [1 << 21, 0xFFFF_FFFF])
def test_a_bomb_is_refused_before_anything_is_allocated(opened: Open, declared: int) -> None:
    """The head alone decides."""
    bomb = zstandard.compress(bytes(1 << 21))
    service = opened("decompress", max_original_bytes=1 << 20)
    result = restore(service, framed(Flag.ZSTANDARD, declared, bomb))
    assert result.code is VerdictCode.DROP
    assert "decompression bomb" in result.reason
    assert service.output_buffers == 0


def test_a_frame_that_holds_more_than_it_declares_is_dropped(opened: Open) -> None:
    """Lying about the size buys one byte of memory, not a gigabyte."""
    bomb = zstandard.compress(bytes(1 << 26))
    result = restore(opened("decompress"), framed(Flag.ZSTANDARD, 5000, bomb))
    assert (result.code, result.reason) == (
        VerdictCode.DROP,
        "cannot decompress: not the declared size",
    )


def test_a_frame_that_wants_a_huge_window_is_dropped(opened: Open) -> None:
    """zstandard would set aside as much memory as the frame asks for."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = writer.compress(TEXT) + writer.flush()
    result = restore(opened("decompress"), framed(Flag.ZSTANDARD, TEXT, frame))
    assert result.code is VerdictCode.DROP
    assert "memory" in result.reason


def test_a_head_that_does_not_fit_is_dropped(opened: Open) -> None:
    """Cut off, or a raw payload of another length."""
    service = opened("decompress")
    for payload in (
        b"",
        framed(Flag.ZSTANDARD, 100, b"1234", stored_bytes=5),
        framed(0, 4, b"12345"),
        framed(0, 5, b"12345", stored_bytes=4),
        framed(Flag.ZSTANDARD, 100, b"no frame"),
        framed(Flag.ZSTANDARD, 10, b""),
    ):
        result = restore(service, payload)
        assert result.code is VerdictCode.DROP
        assert result.reason.startswith("cannot decompress: ")


@pytest.mark.parametrize("payload", [TEXT[:2000], os.urandom(500)], ids=["text", "noise"])
def test_every_flipped_byte_is_noticed(opened: Open, payload: bytes) -> None:
    """A frame that was altered is dropped with the reason, wherever it was, or harmless; it is
    never passed on as it is."""
    small = compressed(opened("compress").process(payload, chunk_id=1))
    service = opened("decompress")
    for place in range(len(small)):
        altered = bytearray(small)
        altered[place] ^= 0x55
        result = service.process(altered, chunk_id=1, payload_type=PayloadType.COMPRESSED)
        if result.code is VerdictCode.DROP:
            assert result.reason.startswith("cannot decompress: ")
        else:  # zstandard does not look at every bit
            assert place >= 16 and result.payload == payload
    whole = service.process(small, chunk_id=1, payload_type=PayloadType.COMPRESSED)
    assert whole.payload == payload


def test_decode_frame_reads_what_to_bytes_wrote() -> None:
    """And nothing that is too short."""
    head = FrameHead(Flag.ZSTANDARD, 200, 1000, 7)
    frame = head.to_bytes() + b"sum!" + b"content"
    decoded = decode_frame(memoryview(frame + bytes(3)))
    assert decoded.head == head
    assert (decoded.digest, decoded.seal, decoded.stored) == (b"sum!", b"", b"content")
    for size in range(len(frame)):
        with pytest.raises(DamagedFrameError, match="cut off"):
            decode_frame(memoryview(frame[:size]))
