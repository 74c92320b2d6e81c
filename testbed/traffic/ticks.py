"""How far an end is, every so often, as events `tick`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

from packetcloud.chunk.hop.api import Neighbour
from packetcloud.chunk.hop.session import Session
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import now_s


def start_ticks(reactor: Any, every_s: float, fields: Callable[[], dict[str, Any]]) -> None:
    """Say `tick` with the moment and `fields()` every `every_s` seconds, from now on."""
    call = LoopingCall(lambda: emit_event("tick", at_s=now_s(), **fields()))
    call.clock = reactor
    call.start(every_s)


def path_of(neighbour: Neighbour) -> dict[str, float | str]:
    """Return what the sending side believes about the path to a neighbour."""
    assert isinstance(neighbour, Session)
    sender, rtt = neighbour.sender, neighbour.rtt
    congestion = sender.congestion
    return {
        "sent_bytes": sender.sent_bytes,
        "retransmitted_segments": sender.retransmitted_segments,
        "probes": sender.probes,
        "timeouts": sender.silence.timeouts,
        "in_flight_bytes": sender.in_flight_bytes,
        "mode": congestion.mode.name.lower(),
        "window_bytes": congestion.window_bytes,
        "rate_bytes_per_s": congestion.path.rate_bytes_per_s,
        "pace_bytes_per_s": congestion.pace_bytes_per_s,
        "smoothed_rtt_s": rtt.smoothed_s,
        "minimum_rtt_s": rtt.minimum_s,
    }
