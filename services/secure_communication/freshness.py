"""For how long a sealed payload may be opened: core, clocks come in.

Behind the payload, sealed with it, stands when it was sealed and which lifetime its chunk had then.
So the opener knows when that lifetime ends, by the sealer's clock, and compares what the chunk says
now. Whoever sends it again after that has it refused, and so has who cuts its lifetime short, so
that its receiver forgets it early, or prolongs it beyond what links may have taken. What is left is
within the time for which the receiver remembers the chunk: nothing has to be remembered here.

Source: docs/decisions/0019-fresh-seals.md; docs/reference/secure-communication.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from packetcloud.services.secure_communication.suites import DamagedPayloadError

MAX_TOLERANCE_S = 10
"""A receiver remembers a chunk half a minute longer than its lifetime. The tolerance takes from
that twice, for a lifetime that was shortened and for one that was prolonged; what is left is for
how long a chunk may wait for its sealer and its opener, at their routers."""
NO_LIFETIME_MS = 600_000
"""For so long a chunk without a lifetime may be opened; receivers remember it twice as long."""
TOO_OLD = "sealed too long ago"
AHEAD = "sealed in the future"
OTHER_LIFETIME = "not the lifetime that was sealed"

_TRAILER = struct.Struct(">BBQI")
TRAILER_BYTES = _TRAILER.size
_HAS_LIFETIME = 0x01


class StaleSealError(Exception):
    """A sealed payload came at a time that its seal does not allow; the text is the reason.

    Args:
        again: a copy that is sealed anew may pass.
    """

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True, slots=True)
class Trailer:
    """What is sealed behind a payload."""

    payload_type: int
    sealed_at_ms: int
    """Since 1970, by the sealer's clock."""
    lifetime_ms: int | None
    """That its chunk had then; None: it had none."""

    def to_bytes(self) -> bytes:
        flags = 0 if self.lifetime_ms is None else _HAS_LIFETIME
        return _TRAILER.pack(self.payload_type, flags, self.sealed_at_ms, self.lifetime_ms or 0)

    @classmethod
    def from_bytes(cls, data: bytes) -> Trailer:
        """Raises: DamagedPayloadError: flags that nobody knows."""
        payload_type, flags, sealed_at_ms, lifetime_ms = _TRAILER.unpack(data)
        if flags & ~_HAS_LIFETIME:
            raise DamagedPayloadError(f"unknown flags: {flags:#04x}")
        return cls(payload_type, sealed_at_ms, lifetime_ms if flags & _HAS_LIFETIME else None)


def check_fresh(
    trailer: Trailer, lifetime_ms: int | None, wall_ms: int, tolerance_ms: int, links_ms: int
) -> None:
    """See that a payload may be opened now.

    Args:
        lifetime_ms: what its chunk says now.
        tolerance_ms: for clocks that differ, and for waiting.
        links_ms: for time on links, which no custodian takes off a lifetime.

    Raises:
        StaleSealError: it may not.
    """
    age_ms = wall_ms - trailer.sealed_at_ms
    sealed_ms = trailer.lifetime_ms
    over_ms = age_ms - (NO_LIFETIME_MS if sealed_ms is None else sealed_ms)
    if over_ms > tolerance_ms:
        raise StaleSealError(f"{TOO_OLD}: {_s(over_ms)} after its lifetime", again=False)
    if age_ms < -tolerance_ms:
        raise StaleSealError(f"{AHEAD}: {_s(-age_ms)} by the clock here", again=True)
    if sealed_ms is None or lifetime_ms is None:
        if sealed_ms is not lifetime_ms:
            raise StaleSealError(f"{OTHER_LIFETIME}: only one of both has an end", again=True)
        return
    longer_ms = age_ms + lifetime_ms - sealed_ms
    if not -tolerance_ms <= longer_ms <= tolerance_ms + links_ms:
        word = "longer" if longer_ms > 0 else "shorter"
        raise StaleSealError(
            f"{OTHER_LIFETIME}: {_s(abs(longer_ms))} {word}; altered, or clocks differ", again=True
        )


def _s(time_ms: int) -> str:
    return f"{time_ms / 1000:.1f} s"
