"""`packetcloud testbed link`: one sender, one receiver, one emulated link, and what happens on it.

No benchmark: nothing is repeated or compared. It shows second by second what a link does to a
session, for whoever works on the hop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.emulator.link import Emulator, Link, start_link
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.namespaces import NetworkLab
from packetcloud.testbed.processes import Child, Children, Event

PORT = 20_000
TICK_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What to try."""

    to_right: Shape
    """Where the chunks go."""
    to_left: Shape
    """Where the acknowledgements go."""
    seconds: int = 5
    seed: int = 1
    payload_bytes: int = 1 << 20
    outstanding: int = 16
    tick_s: float = 1.0
    emulator: Emulator = Emulator.TUN


def try_link(plan: LinkPlan, show: Callable[[Document], None]) -> Document:
    """Send over the link; `show` gets each row, `tick_s` long. Returns rows, sums and the link's
    report.

    Raises:
        TestbedError: no namespaces or TUN devices here, or an end failed.
    """
    timing = Timing(seconds=plan.seconds, warmup=0, repeats=1)
    load = Load(plan.payload_bytes, plan.outstanding, tick_s=plan.tick_s)
    with NetworkLab() as lab, Children() as children:
        a, b = lab.namespace("a"), lab.namespace("b")
        shapes = plan.to_right, plan.to_left
        link = start_link(lab, children, a, b, *shapes, plan.seed, emulator=plan.emulator)
        ends = Ends(children, load, timing)
        listen = link.right.address, PORT
        with ends.abandoned_on_error():
            ends.start_receiver(b, "--listen", f"{listen[0]}:{listen[1]}")
            ends.start_sender(a, listen, ends.guid)
            return _watched(plan, link, ends, show)


def _watched(plan: LinkPlan, link: Link, ends: Ends, show: Callable[[Document], None]) -> Document:
    """Look at a running transfer, row by row."""
    assert ends.sender is not None and ends.receiver is not None
    sent = ends.sender.wait_event("tick", TICK_TIMEOUT_S)
    received = _tick_at(ends.receiver, sent["at_s"] - plan.tick_s)
    before = link.report()
    rows = []
    for number in range(1, round(plan.seconds / plan.tick_s) + 1):
        earlier = sent, received, before
        sent = ends.sender.wait_event("tick", TICK_TIMEOUT_S)
        received = _tick_at(ends.receiver, sent["at_s"] - plan.tick_s)
        before = link.report()
        rows.append(_row(number * plan.tick_s, earlier, (sent, received, before)))
        show(rows[-1])
    done = ends.finish()
    return {
        "rows": rows,
        "sender": done[0],
        "receiver": done[1],
        "link": link.report(),
    }


def _tick_at(child: Child, moment_s: float) -> Event:
    """Return the next tick of a child that is not older than `moment_s`."""
    while True:
        tick = child.wait_event("tick", TICK_TIMEOUT_S)
        if tick["at_s"] >= moment_s:
            return tick


def _row(at_s: float, earlier: tuple[Event, ...], later: tuple[Event, ...]) -> Document:
    """What happened between two ticks."""
    (sent_before, received_before, link_before), (sent, received, link) = earlier, later
    seconds = received["at_s"] - received_before["at_s"]
    bits = (received["payload_bytes"] - received_before["payload_bytes"]) * 8
    to_right, right_before = link["to_right"], link_before["to_right"]
    return {
        "at_s": at_s,
        "goodput_mbps": bits / seconds / 1e6 if seconds else 0.0,
        "link_mbps": _gained(to_right, right_before, "out_bytes") * 8 / seconds / 1e6,
        "retransmitted": _gained(sent, sent_before, "retransmitted_segments"),
        "probes": _gained(sent, sent_before, "probes"),
        "lost": _gained(to_right["dropped"], right_before["dropped"], "lost"),
        "queue_full": _gained(to_right["dropped"], right_before["dropped"], "queue_full"),
        "mean_queue_ms": _mean_wait_s(to_right, right_before) * 1e3,
        "smoothed_rtt_ms": sent["smoothed_rtt_s"] * 1e3,
        "minimum_rtt_ms": sent["minimum_rtt_s"] * 1e3,
        "window_bytes": sent["window_bytes"],
        "in_flight_bytes": sent["in_flight_bytes"],
        "rate_mbps": sent["rate_bytes_per_s"] * 8 / 1e6,
        "pace_mbps": sent["pace_bytes_per_s"] * 8 / 1e6,
        "mode": sent["mode"],
    }


def _gained(later: dict[str, Any], earlier: dict[str, Any], key: str) -> Any:
    return later.get(key, 0) - earlier.get(key, 0)


def _mean_wait_s(later: dict[str, Any], earlier: dict[str, Any]) -> float:
    packets = _gained(later, earlier, "in_packets") - _gained(
        later["dropped"], earlier["dropped"], "queue_full"
    )
    return float(_gained(later, earlier, "waited_s")) / packets if packets else 0.0
