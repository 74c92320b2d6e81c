"""What one direction of a link does to packets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from packetcloud.testbed.errors import TestbedError

_CHANCES = ("loss", "duplication", "reordering", "corruption")


@dataclass(frozen=True, slots=True)
class Shape:
    """One direction of a link. Packets pass queue, serialisation, faults and delay in this order:
    a packet that is lost has used the link, one that is doubled has used it once."""

    rate_bps: float = 0.0
    """Bits of IP packets per second, headers included; 0: no limit, no queue."""
    delay_s: float = 0.0
    """Propagation, after the last bit has left."""
    jitter_s: float = 0.0
    """Delay differs by up to this much either way, evenly; order is kept."""
    queue_packets: int = 0
    """Packets that may wait while one is on its way out; the next is dropped. 0: no limit."""
    queue_bytes: int = 0
    """The same in bytes of IP packets; 0: no limit."""
    loss: float = 0.0
    """Share of packets lost, 0 to 1."""
    loss_burst: float = 1.0
    """Mean number of packets lost in a row (Gilbert's model). 1: each by itself."""
    loss_run: int = 0
    """No more lost in a row than this; 0: no limit. A limit lowers the share that is lost."""
    duplication: float = 0.0
    """Share of packets that arrive twice."""
    reordering: float = 0.0
    """Share of packets that are held back, so that later ones overtake them."""
    reordering_s: float = 0.0
    """How long those are held back."""
    corruption: float = 0.0
    """Share of packets in which one bit of the payload is flipped."""
    corruption_run: int = 0
    """No more flipped in a row than this; 0: no limit."""
    largest_bytes: int = 0
    """Larger IP packets vanish without a word, as in an MTU black hole; 0: none."""
    up_s: float = 0.0
    """With `down_s`: the link carries packets for so long, then none for `down_s`, and so on."""
    down_s: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise TestbedError(f"link shape: {field.name} is negative")
        for name in _CHANCES:
            if getattr(self, name) > 1:
                raise TestbedError(f"link shape: {name} is a share, allowed: 0 to 1")
        if self.jitter_s > self.delay_s:
            raise TestbedError("link shape: jitter_s is larger than delay_s")
        if self.loss_burst < 1:
            raise TestbedError("link shape: loss_burst is a number of packets, 1 or more")
        if (self.queue_packets or self.queue_bytes) and not self.rate_bps:
            raise TestbedError("link shape: a queue needs rate_bps")
        if self.loss_burst > 1 and self.loss_burst * (1 - self.loss) < self.loss < 1:
            # Gilbert's model would need more than one packet in a row to get through.
            raise TestbedError("link shape: loss_burst is too short for so much loss")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave, or a part of it.

        Raises:
            TestbedError: an unknown name, or a value that is not allowed.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise TestbedError(
                f"link shape: unknown {', '.join(unknown)}; allowed: {', '.join(sorted(known))}"
            )
        return cls(**values)

    @property
    def carried(self) -> float:
        """Share of packets that arrive whole at least once, as far as chance decides."""
        return 1.0 - self.loss
