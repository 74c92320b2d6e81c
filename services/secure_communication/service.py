"""The NetworkService: one direction, one suite, one key file."""

from __future__ import annotations

import time

from packetcloud.chunk.header import ChunkHeader
from packetcloud.services.sdk import (
    ChunkContext,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)
from packetcloud.services.secure_communication.keys import KeyRing
from packetcloud.services.secure_communication.suites import (
    DamagedPayloadError,
    decode_head,
    find_suite,
)


class SecureCommunication(NetworkService):
    """Encrypts or decrypts every payload; what it cannot decrypt it drops with a reason."""

    def start(self, context: ServiceContext) -> None:
        parameters = context.parameters
        self._encrypts = parameters.text("direction") == "encrypt"
        self._suite = find_suite(parameters.text("suite"), parameters.text("library"))
        self._keys = KeyRing(parameters.path("key_file"), self._suite.name, self._suite.key_bytes)
        if self._suite.name == "aes-128-cbc":
            context.log.warning("aes-128-cbc does not detect tampering; aes-256-gcm does")

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        self._keys.refresh(time.monotonic())
        return self._encrypt(chunk, context) if self._encrypts else self._decrypt(chunk, context)

    def _encrypt(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        key_id, key = self._keys.newest
        output = context.output_buffer(self._suite.encrypted_bytes(len(chunk.payload)))
        length = self._suite.encrypt(key_id, key, chunk.payload, _bound(chunk.header), output)
        return Verdict.update(output[:length])

    def _decrypt(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        payload = chunk.payload
        try:
            suite, key_id = decode_head(payload)
            # Never the suite that the payload names: that would let an attacker choose CBC.
            if suite != self._suite.number:
                return Verdict.drop("encrypted by another suite")
            key = self._keys.get(key_id)
            if key is None:
                return Verdict.drop(f"unknown key {key_id:08x}")
            output = context.output_buffer(len(payload))
            length = self._suite.decrypt(key, payload, _bound(chunk.header), output)
        except DamagedPayloadError as error:
            return Verdict.drop(str(error))
        return Verdict.update(output[:length])


def _bound(header: ChunkHeader) -> bytes:
    """Return what ties a payload to its chunk: no custodian may change either name."""
    return header.source.value + header.chunk_id.to_bytes()
