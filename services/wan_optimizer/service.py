"""The NetworkService: verdicts around `compressing` and `restoring`, and feedback between the two.

Feedback travels as a chunk of its own from one service to the other: decompress emits it besides
the payload that it restored, compress takes it in and drops it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import REPORT_TYPES, PayloadType
from packetcloud.chunk.names import GUID, SID
from packetcloud.services.errors import ParameterError
from packetcloud.services.parameters import Parameters
from packetcloud.services.sdk import (
    ChunkContext,
    EmittedChunk,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)
from packetcloud.services.wan_optimizer.compressing import Compressing, CompressSettings
from packetcloud.services.wan_optimizer.dictionaries import load_dictionary
from packetcloud.services.wan_optimizer.feedback import INSTANCE_BYTES
from packetcloud.services.wan_optimizer.framing import HISTORY_ID_BYTES, DamagedFrameError
from packetcloud.services.wan_optimizer.kept import KeptBlocks
from packetcloud.services.wan_optimizer.restoring import Restored, RestoreSettings, Restoring
from packetcloud.services.wan_optimizer.sealing import Seals, bound_of
from packetcloud.services.wan_optimizer.sent import SentBlocks

FEEDBACK_LIFETIME_MS = 10_000
"""Older feedback says nothing that the next one does not say better."""


class WanOptimizer(NetworkService):
    """Makes payloads smaller, or restores them."""

    def start(self, context: ServiceContext) -> None:
        parameters = context.parameters
        self._peer = _peer_of(parameters)
        self._seals = Seals(_path_of(parameters, "key_file"), time.monotonic(), time.time())
        path = _path_of(parameters, "dictionary")
        trained = None if path is None else load_dictionary(path)
        cache_bytes = parameters.integer("cache_mib") << 20
        self._forwards_unframed = parameters.text("unframed") == "forward"
        self._compressing: Compressing | None = None
        if parameters.text("direction") == "compress":
            self._compressing = Compressing(
                CompressSettings(
                    parameters.integer("level"),
                    parameters.integer("max_ratio"),
                    self._peer is not None,
                    parameters.text("partition"),
                ),
                SentBlocks(cache_bytes, lambda: os.urandom(HISTORY_ID_BYTES)),
                self._seals,
                trained,
            )
        self._restoring = Restoring(
            RestoreSettings(
                parameters.integer("max_ratio"),
                parameters.integer("max_original_bytes"),
                self._peer is not None,
            ),
            KeptBlocks(cache_bytes),
            self._seals,
            lambda: os.urandom(INSTANCE_BYTES),
            trained,
        )
        if self._peer is not None and not parameters.text("key_file"):
            context.log.warning(
                "no key_file: whoever sees the traffic can make decompress forget and guess"
            )

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        now = time.monotonic()
        self._seals.refresh(now, time.time())
        if chunk.header.payload_type in REPORT_TYPES:
            return Verdict.forward()  # some 20 bytes, and no service makes reports of what is none
        if self._compressing is None:
            return self._decompress(chunk, context)
        if self._peer is not None and chunk.header.source.value == self._peer.value:
            return self._take_feedback(self._compressing, chunk, now)
        framed = self._compressing.frame(chunk.payload, chunk.header, now, context.output_buffer)
        if framed is None:
            return Verdict.forward()
        return Verdict.update(framed, PayloadType.COMPRESSED)

    def _take_feedback(self, compressing: Compressing, chunk: ServiceChunk, now: float) -> Verdict:
        try:
            compressing.told(chunk.payload, now)
        except DamagedFrameError as error:
            return Verdict.drop(f"not from our peer: {error}")
        return Verdict.drop("feedback taken in")

    def _decompress(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        if chunk.header.payload_type != PayloadType.COMPRESSED:
            # Fail-open made compress skip it, or it came another way: not ours to judge.
            return Verdict.forward() if self._forwards_unframed else Verdict.drop("not compressed")
        bound = bound_of(chunk.header)
        restored = self._restoring.restore(chunk.payload, bound, context.output_buffer)
        emitted = self._emitted(restored)
        if restored.payload is None:
            if restored.is_lacking:
                return Verdict.drop(restored.reason, again=True, emitted=emitted)
            return Verdict.drop(restored.reason)
        return Verdict.update(restored.payload, restored.payload_type, emitted=emitted)

    def _emitted(self, restored: Restored) -> tuple[EmittedChunk, ...]:
        if self._peer is None or not restored.feedback:
            return ()
        return (
            EmittedChunk(
                GUID(self._peer.value),
                restored.feedback,
                services=(self._peer,),
                lifetime_ms=FEEDBACK_LIFETIME_MS,
            ),
        )


def _peer_of(parameters: Parameters) -> SID | None:
    text = parameters.text("peer")
    if not text:
        return None
    try:
        return SID.from_hex(text)
    except ProtocolError as error:
        raise ParameterError(f"peer: {error}; it is the SID of the other direction") from None


def _path_of(parameters: Parameters, name: str) -> Path | None:
    return parameters.path(name) if parameters.text(name) else None
