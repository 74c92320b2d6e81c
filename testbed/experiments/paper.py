"""What the paper says it measured, to stand beside our figures.

Source: MobiArch'13 paper, sections 4.1 and 4.2, figures 4(b) and 4(c).
"""

from __future__ import annotations

CUBIC_MBPS = 4.30
"""A downloads 1 GB from B by TCP, end to end over both links. The paper does not say by which TCP:
CUBIC was Linux's at the time."""
HOP_BY_HOP_MBPS = 26.14
"""The same in chunks, hop by hop."""
TRANSLATOR_MBPS = 7.10
"""TCP from B to the cloudlet's translator, chunks from there to A."""
TRANSLATOR_GAIN_PERCENT = 65.12
"""Of that over TCP end to end."""

PENALTY_1MB_MS = 30.0
"""An upper bound: "less than 30 ms" for a chunk of 1 MB at one chunk per second."""
PENALTY_500_MBPS_MS = 34.76
PENALTY_600_MBPS_MS = 48.62
PENALTY_BY_MBPS = {
    # "34.76 ms, 17.08 % more than the delay penalty when the data rate is 100 Mbps".
    100.0: PENALTY_500_MBPS_MS / 1.1708,
    500.0: PENALTY_500_MBPS_MS,
    600.0: PENALTY_600_MBPS_MS,
}
KNEE_GBPS = 0.65
"""Beyond it the delay penalty "jumps quickly to several seconds"."""
NODE_GBPS = 0.5
NODES = 20
CLOUDLET_GBPS = 10.0
"""Not measured in the paper either: 20 nodes of 500 Mbit/s."""
