"""The work that every service peer does with a payload: AES-128-CBC with PyCryptodome.

The same as our secure communication service: random IV, padding to whole blocks (PKCS #7), IV
before the ciphertext. Encrypts in place, in a buffer that is used again: the fastest it can be.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from Crypto.Cipher import AES

from packetcloud.testbed.processes import emit_event

KEY_BYTES = 16
BLOCK_BYTES = AES.block_size


class AesJob:
    """One key, and a buffer for payloads up to `max_payload_bytes`."""

    def __init__(self, key: bytes, max_payload_bytes: int) -> None:
        self._key = key
        self._buffer = memoryview(bytearray(max_payload_bytes + 2 * BLOCK_BYTES))

    @property
    def landing(self) -> memoryview:
        """Where to put a payload so that `encrypt_landed` needs no copy."""
        return self._buffer[BLOCK_BYTES:]

    def encrypt_landed(self, payload_bytes: int) -> memoryview:
        """Encrypt the payload in `landing`; the result is valid until the next call."""
        padding = BLOCK_BYTES - payload_bytes % BLOCK_BYTES
        end = BLOCK_BYTES + payload_bytes + padding
        self._buffer[end - padding : end] = bytes([padding]) * padding
        iv = os.urandom(BLOCK_BYTES)
        self._buffer[:BLOCK_BYTES] = iv
        text = self._buffer[BLOCK_BYTES:end]
        AES.new(self._key, AES.MODE_CBC, iv).encrypt(text, output=text)
        return self._buffer[:end]

    def encrypt(self, payload: bytes) -> bytes:
        """Encrypt a payload that lies elsewhere."""
        self.landing[: len(payload)] = payload
        return bytes(self.encrypt_landed(len(payload)))


def decrypt(key: bytes, data: bytes) -> bytes:
    """Undo `AesJob.encrypt`."""
    plain = AES.new(key, AES.MODE_CBC, data[:BLOCK_BYTES]).decrypt(data[BLOCK_BYTES:])
    return plain[: -plain[-1]]


def measure_limit_gbps(payload_bytes: int, seconds: float) -> float:
    """Return the goodput of nothing but the cipher, on one core, over `seconds`."""
    job = AesJob(os.urandom(KEY_BYTES), payload_bytes)
    begin_s = time.perf_counter()
    deadline_s = begin_s + seconds
    done = 0
    while (now_s := time.perf_counter()) < deadline_s:
        job.encrypt_landed(payload_bytes)
        done += 1
    return done * payload_bytes * 8 / (now_s - begin_s) / 1e9


def main(arguments: list[str]) -> int:
    """Measure the cipher alone, as a process of its own."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--payload-bytes", type=int, default=1 << 20)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args(arguments)
    gbps = measure_limit_gbps(options.payload_bytes, options.seconds)
    emit_event("limit", goodput_gbps=gbps)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
