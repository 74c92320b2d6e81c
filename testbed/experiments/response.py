"""How fast TCP CUBIC is on a path that loses packets at random: where a search for a link begins.

Two laws, and CUBIC follows the larger: its own, and that of Reno, which it never stays behind. Real
stacks come out 10 to 20 % lower, since not every loss is repaired without a timeout; so what these
say is a start, and links are found by trying.
Source: Mathis et al., "The macroscopic behavior of the TCP congestion avoidance algorithm", 1997;
RFC 9438, sections 4.3 and 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

MSS_BYTES = 1448
"""Payload of a TCP segment at MTU 1500: 20 bytes of IP, 20 of TCP and 12 of its timestamps less."""
_RENO = math.sqrt(1.5)
_C = 0.4
_BETA = 0.7
_CUBIC: float = (_C * (3 + _BETA) / (4 * (1 - _BETA))) ** 0.25
_SMALLEST, _LARGEST = 1e-9, 0.5
_STEPS = 200


def reno_bps(rtt_s: float, loss: float, mss_bytes: int = MSS_BYTES) -> float:
    """Return the mean rate of Reno, Mathis' law: MSS / RTT * sqrt(3/2 / p)."""
    return mss_bytes * 8 / rtt_s * _RENO / math.sqrt(loss)


def cubic_bps(rtt_s: float, loss: float, mss_bytes: int = MSS_BYTES) -> float:
    """Return the mean rate of CUBIC: that of its own window, of Reno's where that is larger.

    Args:
        rtt_s: without queues; on a path this lossy there are none.
        loss: share of packets lost on the whole path, by chance, above 0.
    """
    window = _CUBIC * math.pow(rtt_s / loss, 0.75)
    return max(window * mss_bytes * 8 / rtt_s, reno_bps(rtt_s, loss, mss_bytes))


def loss_of_path(*losses: float) -> float:
    """Return the share that is lost on links in a row."""
    return 1.0 - math.prod(1.0 - loss for loss in losses)


def loss_for(target_bps: float, rtt_s: float) -> float:
    """Return the loss at which CUBIC has that rate."""
    return _falling_to(target_bps, lambda loss: cubic_bps(rtt_s, loss))


def rtt_for(target_bps: float, loss: float) -> float:
    """Return the round trip at which CUBIC has that rate under that loss, in seconds."""
    return _falling_to(target_bps, lambda rtt_s: cubic_bps(rtt_s, loss))


def _falling_to(target: float, function: Callable[[float], float]) -> float:
    """Return where a falling function of a positive number is `target`, by bisection."""
    low, high = _SMALLEST, _LARGEST
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if function(middle) > target:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)
