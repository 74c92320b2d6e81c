"""The mistakes of a host that the bug museum shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from packetcloud.chunk.messages import DeliveryReport
from packetcloud.host import router_link
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.endpoint_core import EndpointCore
from packetcloud.host.outstanding import OutstandingSends
from packetcloud.testbed.simulation.variant import (
    Variant,
)


def _believes_everybody(original: Any) -> Any:
    def reported(self: OutstandingSends, report: DeliveryReport, now: float) -> None:
        original(self, replace(report, is_second_hand=False), now)

    return reported


def _remembers_nothing(original: Any) -> Any:
    return lambda self, entries: None


def _suppresses_on_arrival(original: Any) -> Any:
    def arrived(self: EndpointCore, chunk: Any, now: float) -> Any:
        outcome = original(self, chunk, now)
        if outcome is chunk:
            header = chunk.header
            self.window.taken(header.source.value, header.chunk_id.value)
            self._remembered.append((header.source.value, header.chunk_id.value, 100.0))
        return outcome

    return arrived


def _reports_on_arrival(original: Any) -> Any:
    def arrived(self: EndpointCore, chunk: Any, now: float) -> Any:
        outcome = original(self, chunk, now)
        if outcome is chunk and chunk.header.wants_report:
            self._report(chunk.header.source, chunk.header.chunk_id, None, now)
        return outcome

    return arrived


def _hands_once(original: Any) -> Any:
    def hand(self: OutstandingSends, send: Any, now: float) -> None:
        if not send.attempts_count:
            original(self, send, now)

    return hand


def _twelve_seconds(original: Any) -> Any:
    return 12.0


def _ends_never(original: Any) -> Any:
    return lambda self, send, now: self._schedule(send, now + 1e6)


HOST_VARIANTS = (
    Variant(
        "keeps the duplicate window in memory",
        "A restarted receiver takes a second copy for a new chunk.",
        "kill_host",
        ("L2",),
        ((Endpoint, "_remember", _remembers_nothing),),
    ),
    Variant(
        "suppresses before it delivers",
        "A chunk counts as taken when it arrives: killed before the application had it, the host "
        "suppresses every later copy and reports them as delivered.",
        "kill_host",
        ("L1",),
        ((EndpointCore, "_data_arrived", _suppresses_on_arrival),),
    ),
    Variant(
        "reports before the application",
        "The source is told when the chunk has arrived, not when somebody took it.",
        "slow_destination",
        ("L1",),
        ((EndpointCore, "_data_arrived", _reports_on_arrival),),
    ),
    Variant(
        "never sends again",
        "A source hands each chunk over once; what a killed router had is never heard of again.",
        "kill_router",
        ("L10",),
        ((OutstandingSends, "_hand", _hands_once),),
    ),
    Variant(
        "calls its router seldom",
        "A host that lost its router tries again every twelve seconds, while every chunk waits.",
        "kill_router",
        ("L10",),
        (
            (router_link, "RECONNECT_FIRST_S", _twelve_seconds),
            (router_link, "RECONNECT_CAP_S", _twelve_seconds),
        ),
    ),
    Variant(
        "believes far routers",
        "A source takes a router's word that its copy failed for the end of the last copy, though "
        "the router before passed the chunk on twice. Ours, found by the scenario kill_router.",
        "kill_router",
        ("L5",),
        ((OutstandingSends, "reported", _believes_everybody),),
        first_seed=18950,
    ),
    Variant(
        "ignores deadlines",
        "A send whose lifetime is over just waits on.",
        "partition",
        ("L1", "L5", "L9"),
        ((OutstandingSends, "_lifetime_over", _ends_never),),
    ),
)
