"""The bug museum: code broken on purpose, which the judges must catch.

Each variant is a patch of the real classes while a run goes: a mistake that somebody made once,
here or elsewhere, or that lies near. If its run passes, the judges or the scenarios are broken.

Source: docs/reference/bug-museum.md.
"""

from __future__ import annotations

from packetcloud.testbed.simulation.hop_variants import HOP_VARIANTS
from packetcloud.testbed.simulation.host_variants import HOST_VARIANTS
from packetcloud.testbed.simulation.router_variants import ROUTER_VARIANTS

VARIANTS = (*HOP_VARIANTS, *ROUTER_VARIANTS, *HOST_VARIANTS)
