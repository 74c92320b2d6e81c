"""Labels for the hop's flows: what goes to one destination by way of one service is one flow.

A label has 16 bits, so flows may share one; the key differs from process to process, so nobody
outside can choose names that do. Source: docs/protocol/hop.md, "Flows".
"""

from __future__ import annotations

from hashlib import blake2b

KEY_BYTES = 16


class FlowLabels:
    """Gives labels. `key`: 16 unpredictable bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def label(self, destination: bytes, sid: bytes) -> int:
        """Return 1 to 65 535 for a destination GUID and a SID, 20 bytes each."""
        digest = blake2b(destination + sid, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big") % 0xFFFF + 1
