"""Where a router's CPU time goes: samples by function, added up by stage of a chunk's way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

STAGES = (
    # First match wins; a call into the kernel counts for the function that makes it.
    ("receive call", "packetcloud.chunk.hop.intake"),
    ("receive call", "packetcloud.chunk.hop.batch"),
    ("send call", "packetcloud.chunk.hop.outlet"),
    ("hop", "packetcloud.chunk.hop."),
    ("header", "packetcloud.chunk."),
    ("header", "packetcloud.router.layout"),
    ("services", "packetcloud.router.dispatch"),
    ("services", "packetcloud.router.service_pool"),
    ("forwarding", "packetcloud.router.forward"),
    ("forwarding", "packetcloud.router.routes"),
    ("custody", "packetcloud.router.custody"),
    ("custody", "packetcloud.router.deadlines"),
    ("router, rest", "packetcloud.router."),
    ("event loop", "asyncio."),
    ("event loop", "selectors"),
    ("event loop", "twisted."),
)
OTHER = "other"


def stage_of(function: str) -> str:
    """Return the stage of a function given as `module:qualified name`."""
    return next((name for name, start in STAGES if function.startswith(start)), OTHER)


def stage_shares(samples: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each stage, the largest first; they add up to 1."""
    counts: Counter[str] = Counter()
    for function, count in samples.items():
        counts[stage_of(function)] += count
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()} if total else {}
