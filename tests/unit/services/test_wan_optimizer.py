"""wan-optimizer: what is compressed, what passes as it is, and what is refused as a bomb."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import zstandard

from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.testing import ProcessResult, ServiceHarness
from packetcloud.services.wan_optimizer.framing import (
    Form,
    FrameHead,
    decode_frame,
    padded_bytes,
)

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


def updated(result: ProcessResult) -> bytes:
    assert result.code is VerdictCode.UPDATE, result.reason
    return result.payload


def framed(form: int, original: int, stored: bytes, stored_bytes: int | None = None) -> bytes:
    size = len(stored) if stored_bytes is None else stored_bytes
    return struct.pack(">2sBBII", b"WO", 1, form, original, size) + stored


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
    small = updated(opened("compress", level=level).process(payload))
    assert updated(opened("decompress").process(small)) == payload


def test_text_becomes_smaller_and_noise_hardly_larger(opened: Open) -> None:
    """Incompressible payload passes as it is, behind 12 bytes."""
    service = opened("compress")
    assert len(updated(service.process(TEXT))) < len(TEXT) / 4
    noise = os.urandom(100_000)
    assert (
        updated(service.process(noise)) == FrameHead(Form.RAW, 100_000, 100_000).to_bytes() + noise
    )


def test_the_largest_payload_of_a_chain_still_passes(opened: Open) -> None:
    """1 MiB that another service enlarged: compressed or raw, it fits and comes back."""
    for payload in (bytes((1 << 20) + 996), os.urandom((1 << 20) + 996)):
        assert updated(opened("decompress").process(updated(opened("compress").process(payload))))


def test_no_output_buffer_is_allocated_per_chunk(opened: Open) -> None:
    """The buffers of the first chunk serve all others."""
    ahead, behind = opened("compress"), opened("decompress")
    for _ in range(5):
        updated(behind.process(updated(ahead.process(TEXT))))
    assert (ahead.output_buffers, behind.output_buffers) == (1, 1)


def test_a_raw_payload_is_passed_on_without_a_copy(opened: Open) -> None:
    """The verdict is a part of the input: no output buffer at all."""
    behind = opened("decompress")
    noise = os.urandom(10_000)
    assert updated(behind.process(framed(Form.RAW, 10_000, noise))) == noise
    assert behind.output_buffers == 0


def test_a_payload_that_never_passed_compress(opened: Open) -> None:
    """Forwarded, since compress fails open; or dropped, if the operator says so."""
    for payload in (
        b"",
        b"plain",
        b"WO\x03\x00" + bytes(20),
        b"WO\x02\x40" + bytes(20),
        b"WO\x01\x07" + bytes(20),
    ):
        assert opened("decompress").process(payload).code is VerdictCode.FORWARD
        result = opened("decompress", unframed="drop").process(payload)
        assert (result.code, result.reason) == (VerdictCode.DROP, "not compressed")


def test_a_megabyte_of_zeros_stays_within_the_ratio(opened: Open) -> None:
    """Padded to original / max_ratio, so that a receiver who refuses bombs takes it."""
    small = updated(opened("compress", max_ratio=50).process(bytes(1 << 20)))
    assert len(small) == -(-(1 << 20) // 50)
    assert updated(opened("decompress", max_ratio=50).process(small)) == bytes(1 << 20)
    refused = opened("decompress", max_ratio=49).process(small)
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
    result = service.process(framed(Form.ZSTANDARD, declared, bomb))
    assert result.code is VerdictCode.DROP
    assert "decompression bomb" in result.reason
    assert service.output_buffers == 0


def test_a_frame_that_holds_more_than_it_declares_is_dropped(opened: Open) -> None:
    """Lying about the size buys one byte of memory, not a gigabyte."""
    bomb = zstandard.compress(bytes(1 << 26))
    result = opened("decompress").process(framed(Form.ZSTANDARD, 5000, bomb))
    assert (result.code, result.reason) == (
        VerdictCode.DROP,
        "cannot decompress: not the declared size",
    )


def test_a_frame_that_wants_a_huge_window_is_dropped(opened: Open) -> None:
    """zstandard would set aside as much memory as the frame asks for."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = writer.compress(TEXT) + writer.flush()
    result = opened("decompress").process(framed(Form.ZSTANDARD, len(TEXT), frame))
    assert result.code is VerdictCode.DROP
    assert "memory" in result.reason


def test_a_head_that_does_not_fit_is_dropped(opened: Open) -> None:
    """Cut off, or a raw payload of another length."""
    service = opened("decompress")
    for payload in (
        framed(Form.ZSTANDARD, 100, b"1234", stored_bytes=5),
        framed(Form.RAW, 4, b"12345"),
        framed(Form.RAW, 5, b"12345", stored_bytes=4),
        framed(Form.ZSTANDARD, 100, b"no frame"),
        framed(Form.ZSTANDARD, 0, b""),
        framed(Form.ZSTANDARD, 10, b""),
    ):
        result = service.process(payload)
        assert result.code is VerdictCode.DROP or result.payload == b""


def test_every_flipped_byte_is_noticed_or_harmless(opened: Open) -> None:
    """The content checksum: what comes back is the original, a drop, or no frame of ours."""
    small = updated(opened("compress").process(TEXT[:2000]))
    service = opened("decompress")
    for place in range(len(small)):
        altered = bytearray(small)
        altered[place] ^= 0x55
        result = service.process(altered)
        assert result.code in (VerdictCode.DROP, VerdictCode.FORWARD) or (
            result.payload == TEXT[:2000]
        )


def test_decode_frame_reads_what_to_bytes_wrote() -> None:
    """And takes a payload that is too short for a head as unframed."""
    head = FrameHead(Form.ZSTANDARD, 1000, 7)
    assert decode_frame(memoryview(head.to_bytes() + bytes(7))) == head
    assert decode_frame(memoryview(head.to_bytes()[:-1])) is None
