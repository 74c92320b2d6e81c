"""The NetworkService: compress or decompress, with zstandard, straight into the output buffer."""

from __future__ import annotations

import zstandard

from packetcloud.services.sdk import (
    ChunkContext,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)
from packetcloud.services.wan_optimizer.framing import (
    HEAD_BYTES,
    DamagedFrameError,
    Form,
    FrameHead,
    decode_frame,
    padded_bytes,
)

LEAST_SAVING = 32
"""Compressed only if a 32nd is saved: below it restoring costs more than the bytes."""
MAX_WINDOW_BYTES = 8 << 20
"""zstandard's own memory for one frame; payloads are at most 1 MiB, level 19 uses as much."""


class WanOptimizer(NetworkService):
    """Compresses what compression helps; everything else passes as it is, behind a head."""

    def start(self, context: ServiceContext) -> None:
        parameters = context.parameters
        self._compresses = parameters.text("direction") == "compress"
        self._forwards_unframed = parameters.text("unframed") == "forward"
        self._max_ratio = parameters.integer("max_ratio")
        self._max_original_bytes = parameters.integer("max_original_bytes")
        self._compressor = zstandard.ZstdCompressor(
            level=parameters.integer("level"), write_checksum=True
        )
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        if self._compresses:
            return self._compress(chunk.payload, context)
        try:
            return self._decompress(chunk.payload, context)
        except (DamagedFrameError, zstandard.ZstdError) as error:
            return Verdict.drop(f"cannot decompress: {error}")

    def _compress(self, payload: memoryview, context: ChunkContext) -> Verdict:
        original = len(payload)
        output = context.output_buffer(HEAD_BYTES + original)
        # Room for less than the original only: what does not fit is not worth compressing.
        room = original - original // LEAST_SAVING - 1
        stored = 0
        if room > 0:  # zstandard 0.25 never returns from reading an empty source
            reader = self._compressor.stream_reader(payload, size=original)
            stored = reader.readinto(output[HEAD_BYTES : HEAD_BYTES + room])
        if not 0 < stored < room:
            output[:HEAD_BYTES] = FrameHead(Form.RAW, original, original).to_bytes()
            output[HEAD_BYTES:] = payload
            return Verdict.update(output)
        output[:HEAD_BYTES] = FrameHead(Form.ZSTANDARD, original, stored).to_bytes()
        end = HEAD_BYTES + stored
        length = padded_bytes(original, stored, self._max_ratio)
        output[end:length] = bytes(length - end)
        return Verdict.update(output[:length])

    def _decompress(self, payload: memoryview, context: ChunkContext) -> Verdict:
        head = decode_frame(payload)
        if head is None:
            # Fail-open made compress skip it, or it is older traffic: not ours to judge.
            return Verdict.forward() if self._forwards_unframed else Verdict.drop("not compressed")
        if head.form is Form.RAW:
            return Verdict.update(payload[HEAD_BYTES:])
        original = head.original_bytes
        if original > self._max_original_bytes:
            return Verdict.drop(
                f"decompression bomb: {original} bytes, allowed {self._max_original_bytes}"
            )
        if original > self._max_ratio * len(payload):
            return Verdict.drop(
                f"decompression bomb: ratio {original / len(payload):.0f}, "
                f"allowed {self._max_ratio}"
            )
        stored = payload[HEAD_BYTES : HEAD_BYTES + head.stored_bytes]
        # One byte more than declared, so that a frame that holds more is noticed.
        output = context.output_buffer(original + 1)
        restored = self._decompressor.stream_reader(stored).readinto(output)
        if restored != original:
            return Verdict.drop("cannot decompress: not the declared size")
        return Verdict.update(output[:original])
