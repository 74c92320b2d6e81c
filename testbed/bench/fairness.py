"""`packetcloud bench fairness`: who gets how much of one bottleneck.

Source: docs/reference/bench.md, "fairness"; scoring of transperf, headings of RFC 9743.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from packetcloud.testbed.bench.emulated import Conditions, EmulatedScene, OnLink, emulated_hop
from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.report import Document, begin_document, failures_of, runs_of
from packetcloud.testbed.bench.rounds import Progress, Record, Timing, ratio, run_rounds
from packetcloud.testbed.bench.shared import BACKGROUND, OURS, TCP, FlowMix
from packetcloud.testbed.emulator.link import Emulator, Link
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.processes import Child, Children

RATE_BPS = 24e6
"""2000 full packets per second: two cores are enough for 16 flows of two Python processes each."""
RTT_S = 0.080
PACKET_BYTES = 1500
SATURATED_CORES = 0.95
"""Of all cores. From here on the machine shares out itself, not the link."""
BDP_PACKETS = round(RATE_BPS * RTT_S / 8 / PACKET_BYTES)
FLOWS = (2, 4, 16)
BUFFERS_BDP = (1, 4)
PARTS = ("own_kind", "beside", "background", "dark")
DARK_S = 10.0
"""How long everything is lost."""
DARK_SETTLE_S = 0.5
"""What was on its way, and what was sent before anybody could know."""
_TICK_S = 0.1
_MOST_READINGS = 50


@dataclass(frozen=True, slots=True)
class FairnessPlan:
    """What to measure."""

    flows: Sequence[int] = FLOWS
    buffers_bdp: Sequence[int] = BUFFERS_BDP
    parts: Collection[str] = PARTS
    peers: Collection[str] = TCP
    dark_s: float = DARK_S
    emulator: Emulator = Emulator.TUN


def bottleneck(buffer_bdp: float) -> Shape:
    """Return the link with a queue of so many bandwidth-delay products."""
    return Shape(
        rate_bps=RATE_BPS, delay_s=RTT_S / 2, queue_packets=round(buffer_bdp * BDP_PACKETS)
    )


def bench_fairness(plan: FairnessPlan, timing: Timing, progress: Progress) -> Document:
    """Measure our flows among themselves and beside TCP, and what they do when all is lost."""
    document = begin_document("fairness", timing, False, ("iperf3",))
    document["link"] = bottleneck(1).to_json()
    document["failures"] = []
    with emulated_hop(plan.emulator) as scene:
        document["emulator"] = scene.emulator.value
        if "own_kind" in plan.parts:
            kinds = {OURS: OURS, **{kind: kind for kind in plan.peers}}
            document["own_kind"] = {
                str(count): _cell(
                    scene,
                    {name: {kind: count} for name, kind in kinds.items()},
                    1,
                    timing,
                    progress,
                    document,
                )
                for count in plan.flows
            }
        if "beside" in plan.parts and plan.peers:
            document["beside"] = {
                f"{buffer}bdp": _cell(
                    scene,
                    {f"beside {kind}": {OURS: 1, kind: 1} for kind in plan.peers},
                    buffer,
                    timing,
                    progress,
                    document,
                )
                for buffer in plan.buffers_bdp
            }
        if "background" in plan.parts and "cubic" in plan.peers:
            mixes = {
                "cubic alone": {"cubic": 1},
                "background beside cubic": {BACKGROUND: 1, "cubic": 1},
                "background beside ours": {BACKGROUND: 1, OURS: 1},
                "background alone": {BACKGROUND: 1},
            }
            document["background"] = _cell(scene, mixes, 1, timing, progress, document)
        if "dark" in plan.parts:
            progress("everything is lost")
            document["dark"] = measure_dark(scene, plan.dark_s)
    return {**document, **fairness_keys(document)}


def _cell(
    scene: EmulatedScene,
    mixes: Mapping[str, Mapping[str, int]],
    buffer_bdp: int,
    timing: Timing,
    progress: Progress,
    document: Document,
) -> Document:
    """Measure mixes of flows in turn, with one size of the buffer."""
    conditions = Conditions.both(bottleneck(buffer_bdp))
    contenders = [
        OnLink(FlowMix(name, scene, flows), scene, conditions) for name, flows in mixes.items()
    ]
    count = max(sum(flows.values()) for flows in mixes.values())
    where = f"{count} flows, buffer {buffer_bdp} BDP"
    records = run_rounds(contenders, timing, lambda text: progress(f"{where}: {text}"), False)
    document["failures"] += [f"{where}, {text}" for text in failures_of(records)]
    found = {name: mix_figures(record) for name, record in records.items()}
    cores = document["machine"]["usable_cores"]
    document["notes"] += [
        f"{where}, {name}: {figures['busy_cores']:.2f} of {cores} cores were busy; with none left "
        "this says more about the machine than about the flows"
        for name, figures in found.items()
        if (figures["busy_cores"] or 0.0) > SATURATED_CORES * cores
    ]
    return {
        "buffer_packets": conditions.towards_b.queue_packets,
        "mixes": found,
        **runs_of(records),
    }


def mix_figures(record: Record) -> Document:
    """Return the medians over all runs of one mix."""
    details: list[Any] = [trial.details for trial in record.trials]
    if not details:
        return {
            "jain": None,
            "jain_of_means": None,
            "link_share": None,
            "busy_cores": None,
            "fair_shares": {},
        }
    goodput_gbps = record.goodput_gbps
    assert goodput_gbps is not None
    kinds = details[0]["fair_shares"]
    return {
        "jain": median(one["jain"] for one in details),
        "jain_of_means": median(one["jain_of_means"] for one in details),
        "link_share": goodput_gbps * 1e9 / RATE_BPS,
        "busy_cores": median(one["busy_cores"] for one in details),
        "fair_shares": {
            kind: median(one["fair_shares"][kind] for one in details) for kind in kinds
        },
        "mbps": {kind: median(sum(one["mean_mbps"][kind]) for one in details) for kind in kinds},
    }


def measure_dark(scene: EmulatedScene, dark_s: float) -> Document:
    """Lose everything in mid-transfer; return what the sender still sends, and how often it tries.

    Raises:
        ChildError: an end failed before that.
    """
    link = scene.links["a"]
    shape = bottleneck(1)
    scene.restart(Conditions.both(shape), 1)
    with Children() as children:
        ends = Ends(children, Load(tick_s=_TICK_S), Timing(seconds=600, warmup=0, repeats=1))
        listen = scene.address("b", "a"), scene.port()
        ends.start_receiver(scene.place("b"), "--listen", f"{listen[0]}:{listen[1]}")
        ends.start_sender(scene.place("a"), listen, ends.guid)
        assert ends.sender is not None
        ends.sender.wait_event("tick", 20.0)
        time.sleep(2.0)
        scene.change(Conditions.both(replace(shape, loss=1.0)))
        time.sleep(DARK_SETTLE_S)
        packets_before, timeouts_before = read_between_packets(ends.sender, link)
        time.sleep(dark_s)
        packets_after, timeouts_after = read_between_packets(ends.sender, link)
        ends.sender.stop(grace_s=0.0)  # what it has in flight will never be through
    packets, timeouts = packets_after - packets_before, timeouts_after - timeouts_before
    return {
        "seconds": dark_s,
        "datagrams": packets,
        "timeouts": timeouts,
        "datagrams_per_timeout": packets / timeouts if timeouts else None,
    }


def read_between_packets(sender: Child, link: Link) -> tuple[int, int]:
    """Return how many packets came to a link and how often their sender timed out, at one moment.

    The two are told by two processes: nothing may have left between what one said and the other.

    Raises:
        ChildError: the sender ended, or never paused for two ticks.
    """
    for _ in range(_MOST_READINGS):
        packets = _in_packets(link.report())
        sender.taken_events()
        # What it said before may be on its way still.
        sender.wait_event("tick", 5.0)
        tick = sender.wait_event("tick", 5.0)
        if _in_packets(link.report()) == packets:
            return packets, tick["timeouts"]
    raise ChildError(f"{sender.name} sends without a pause of two ticks while everything is lost")


def _in_packets(report: Document) -> int:
    count: int = report["to_right"]["in_packets"]
    return count


def fairness_keys(document: Document) -> Document:
    """Return the figures that a reader looks for first; None where they were not measured."""

    def figures(part: str, cell: str, mix: str) -> Document:
        found: Document = document.get(part, {}).get(cell, {}).get("mixes", {}).get(mix, {})
        return found

    keys: Document = {
        f"jain_{count}": figures("own_kind", str(count), OURS).get("jain") for count in FLOWS
    }
    for kind in TCP:
        for buffer in BUFFERS_BDP:
            shares = figures("beside", f"{buffer}bdp", f"beside {kind}").get("fair_shares", {})
            keys[f"share_beside_{kind}_{buffer}bdp"] = shares.get(OURS)
    yielding = document.get("background", {}).get("mixes", {})

    def mbps(mix: str, kind: str) -> float | None:
        value: float | None = yielding.get(mix, {}).get("mbps", {}).get(kind)
        return value

    beside, alone = mbps("background beside cubic", "cubic"), mbps("cubic alone", "cubic")
    keys["cubic_keeps_beside_background"] = ratio(beside, alone)
    background_bps = (mbps("background alone", BACKGROUND) or 0.0) * 1e6
    keys["background_alone_link_share"] = background_bps / RATE_BPS or None
    keys["datagrams_per_timeout"] = document.get("dark", {}).get("datagrams_per_timeout")
    return keys
