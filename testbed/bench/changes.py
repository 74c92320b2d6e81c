"""A transfer whose link changes under it: slower, longer, or with a smaller MTU than it says.

`bench loss --part changes`. Source: docs/reference/bench.md, "loss".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from packetcloud.testbed.bench.emulated import LINK, Conditions, EmulatedScene, emulated_hop
from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Progress, Timing
from packetcloud.testbed.bench.shared import Points, bytes_at
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.processes import Children

CHUNK_BYTES = 16 << 10
"""So small that 1 Mbit/s delivers some of them every second."""
TICK_S = 0.1
CALM_S = 4.0
"""How long the transfer runs before the change."""
WINDOW_S = 1.0
RECOVERED_SHARE = 0.8
"""Of what the changed link carries in payload. A transfer has recovered when it gets so much in the
next second, and in all that follows."""
PAYLOAD_SHARE = 0.96
_FAST = replace(LINK, rate_bps=100e6, queue_packets=250)
_SLOW = replace(LINK, rate_bps=1e6, queue_packets=1)


@dataclass(frozen=True, slots=True)
class Change:
    """What a link is at first, and what it becomes in mid-transfer."""

    name: str
    before: Shape
    after: Shape
    observe_s: float = 10.0


CHANGES = (
    Change("rate_100_to_1_mbit_shallow", _FAST, _SLOW),
    Change("rate_100_to_1_mbit_deep", _FAST, replace(_SLOW, queue_packets=83)),
    Change("delay_10_ms_to_1_s", replace(LINK, delay_s=0.005), replace(LINK, delay_s=0.5), 20.0),
    Change("delay_1_s_to_10_ms", replace(LINK, delay_s=0.5), replace(LINK, delay_s=0.005)),
    Change("larger_than_1280_vanish", LINK, replace(LINK, largest_bytes=1280), 20.0),
)
"""Queues of one packet (12 ms at 1 Mbit/s, which is one) and of one second."""


def measure_changes(progress: Progress, changes: Sequence[Change] = CHANGES) -> Document:
    """Change the link under a transfer, once for each kind of change.

    Raises:
        TestbedError: no namespaces or TUN devices here.
    """
    found: Document = {}
    with emulated_hop() as scene:
        for change in changes:
            progress(f"change {change.name}")
            try:
                found[change.name] = _measure(scene, change)
            except ChildError as error:
                found[change.name] = {"problem": str(error), "recovered_after_s": None}
    return found


def _measure(scene: EmulatedScene, change: Change) -> Document:
    scene.restart(Conditions.both(change.before), 1)
    with Children() as children:
        load = Load(CHUNK_BYTES, outstanding=256, tick_s=TICK_S)
        ends = Ends(children, load, Timing(seconds=600, warmup=0, repeats=1))
        listen = scene.address("b", "a"), scene.port()
        ends.start_receiver(scene.place("b"), "--listen", f"{listen[0]}:{listen[1]}")
        ends.start_sender(scene.place("a"), listen, ends.guid)
        assert ends.sender is not None and ends.receiver is not None
        ends.sender.wait_event("tick", 20.0)
        time.sleep(CALM_S)
        scene.change(Conditions.both(change.after))
        changed_s = time.monotonic()
        time.sleep(change.observe_s)
        sent, received = ends.sender.taken_events(), ends.receiver.taken_events()
        report = scene.report()
        if not ends.sender.is_running:
            raise ChildError(f"the sender ended: {ends.sender.last_words()}")
    ticks = [event for event in sent if event["event"] == "tick"]
    later = [tick for tick in ticks if tick["at_s"] >= changed_s]
    if not later:
        raise ChildError("the sender said nothing after the change")
    points = [(e["at_s"], float(e["payload_bytes"])) for e in received if e["event"] == "tick"]
    return {
        "problem": "",
        **change_figures(points, changed_s, change),
        "retransmitted_segments": later[-1]["retransmitted_segments"]
        - later[0]["retransmitted_segments"],
        "sent_bytes": later[-1]["sent_bytes"] - later[0]["sent_bytes"],
        "emulator": report,
    }


def change_figures(points: Points, changed_s: float, change: Change) -> Document:
    """Return goodput before and after a change, and how long it took to recover."""
    end_s = changed_s + change.observe_s

    def mbps(begin_s: float, until_s: float) -> float:
        got = bytes_at(points, until_s) - bytes_at(points, begin_s)
        return got * 8 / (until_s - begin_s) / 1e6

    wanted_mbps = RECOVERED_SHARE * PAYLOAD_SHARE * change.after.rate_bps / 1e6
    steps = int((change.observe_s - WINDOW_S) / TICK_S)
    starts = [changed_s + number * TICK_S for number in range(1, steps + 1)]
    recovered = (
        start - changed_s
        for start in starts
        if min(mbps(start, start + WINDOW_S), mbps(start, end_s)) >= wanted_mbps
    )
    return {
        "before_mbps": mbps(changed_s - CALM_S / 2, changed_s),
        "after_mbps": mbps(changed_s + change.observe_s / 2, end_s),
        "recovered_after_s": next(recovered, None),
    }
