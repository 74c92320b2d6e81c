"""The payload that sender and receiver both know, and the check of a sample of it."""

from __future__ import annotations

import random

SEED = 20130813
CHECK_EVERY = 64
"""One body in so many is compared byte by byte: a compare of 1 MiB costs 0.05 ms."""


def make_payload(payload_bytes: int, seed: int = SEED) -> bytes:
    """Return incompressible bytes; the same for the same arguments, on every machine."""
    return random.Random(seed).randbytes(payload_bytes)


class SampleCheck:
    """Counts bodies whose payload is not what it should be: length always, bytes in a sample."""

    def __init__(self, payload_bytes: int, every: int = CHECK_EVERY) -> None:
        self._payload = make_payload(payload_bytes)
        self._every = every
        self._seen = 0
        self.compared = 0
        self.altered = 0

    def is_due(self) -> bool:
        """Count one body; tell whether its bytes are to be given to `compare`."""
        self._seen += 1
        return self._seen % self._every == 1 or self._every == 1

    def compare(self, payload: memoryview) -> None:
        """Compare a whole payload with the pattern."""
        self.compared += 1
        if bytes(payload) != self._payload:  # a memoryview compares byte by byte, 20 times slower
            self.altered += 1
