"""`packetcloud bench loss`: what is left of a link that loses packets, ours against TCP.

Source: docs/reference/bench.md, "loss"; reference links of the QUIC interop runner.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from packetcloud.testbed.bench.changes import CHANGES, Change, measure_changes
from packetcloud.testbed.bench.emulated import (
    INTEROP_LINK,
    LINK,
    Conditions,
    EmulatedScene,
    OnLink,
    emulated_hop,
    emulated_path,
)
from packetcloud.testbed.bench.handshakes import COUNT, measure_handshakes
from packetcloud.testbed.bench.lossy import OurTransfer, TcpTransfer
from packetcloud.testbed.bench.ours import Load
from packetcloud.testbed.bench.outages import OUTAGES, Outage, measure_outages
from packetcloud.testbed.bench.report import Document, begin_document, failures_of, runs_of
from packetcloud.testbed.bench.rounds import Contender, Progress, Record, Timing, ratio, run_rounds
from packetcloud.testbed.emulator.link import Emulator
from packetcloud.testbed.emulator.shape import Shape

CONTENDERS = ("ours", "cubic", "bbr")
LOSSES_PERCENT = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
GIGA = 1e9


PARTS = ("cells", "interop", "router", "handshakes", "outages", "changes")
"""`router`: every cell also as A - R - B with the loss on both links, hop by hop against end to
end."""
DEFAULT_PARTS = ("cells", "interop", "handshakes", "outages", "changes")


@dataclass(frozen=True, slots=True)
class LossPlan:
    """What to measure."""

    losses_percent: Sequence[float] = LOSSES_PERCENT
    contenders: Collection[str] = CONTENDERS
    parts: Collection[str] = DEFAULT_PARTS
    handshakes: int = COUNT
    outages: Sequence[Outage] = OUTAGES
    changes: Sequence[Change] = CHANGES
    emulator: Emulator = Emulator.TUN
    """Of cells, interop and router; the other parts need TUN."""


def bench_loss(plan: LossPlan, timing: Timing, progress: Progress) -> Document:
    """Measure every loss with every contender, in turn."""
    document = begin_document("loss", timing, False, ("iperf3",))
    document["link"] = LINK.to_json()
    document["chunk_bytes"] = Load().payload_bytes
    document["failures"] = []
    document["cells"] = {}
    with emulated_hop(plan.emulator) as scene:
        document["emulator"] = scene.emulator.value
        if "cells" in plan.parts:
            document["cells"] = _cells(scene, plan, timing, progress, document)
        if "interop" in plan.parts:
            document["interop"] = _cell(scene, INTEROP_LINK, 0.0, plan, timing, progress, document)
    if "router" in plan.parts:
        with emulated_path(plan.emulator) as scene:
            document["through_router"] = _cells(scene, plan, timing, progress, document)
    if "handshakes" in plan.parts:
        document["handshakes"] = found = measure_handshakes(progress, count=plan.handshakes)
        if found["succeeded"] < found["count"]:
            text = f"{found['succeeded']} of {found['count']} handshakes succeeded"
            document["failures"].append(text)
    if "outages" in plan.parts:
        document["outages"] = found = measure_outages(progress, plan.outages)
        document["failures"] += [
            f"outage {name}: {one['problem']}"
            for name, one in found["outages"].items()
            if one["problem"]
        ]
    if "changes" in plan.parts:
        document["changes"] = found = measure_changes(progress, plan.changes)
        document["failures"] += [
            f"change {name}: {one['problem']}" for name, one in found.items() if one["problem"]
        ]
    return {**document, **loss_keys(document)}


def _cells(
    scene: EmulatedScene,
    plan: LossPlan,
    timing: Timing,
    progress: Progress,
    document: Document,
) -> Document:
    """Measure every loss of the plan on the usual link."""
    return {
        f"{percent:g}": _cell(scene, LINK, percent, plan, timing, progress, document)
        for percent in plan.losses_percent
    }


def _cell(
    scene: EmulatedScene,
    link: Shape,
    percent: float,
    plan: LossPlan,
    timing: Timing,
    progress: Progress,
    document: Document,
) -> Document:
    """Measure one loss on one link."""
    where = f"{link.rate_bps / 1e6:g} Mbit/s, {percent:g} % loss"
    if scene.centre != "b":
        where += ", router"
    conditions = Conditions.both(replace(link, loss=percent / 100))
    contenders = [
        OnLink(contender, scene, conditions)
        for contender in _contenders(scene, link)
        if contender.name in plan.contenders
    ]
    # A protocol that fails on a bad link has a cell of its own to fail in.
    records = run_rounds(contenders, timing, lambda text: progress(f"{where}: {text}"), False)
    document["failures"] += [f"{where}, {text}" for text in failures_of(records)]
    return cell_figures(records, link, percent / 100, len(scene.links))


def _contenders(scene: EmulatedScene, link: Shape) -> list[Contender]:
    # A little more than a second of the link in flight, so that the end does not take long either.
    outstanding = max(4, round(link.rate_bps / 8 / Load().payload_bytes))
    ours = OurTransfer(scene, Load(outstanding=outstanding))
    return [ours, TcpTransfer("cubic", scene), TcpTransfer("bbr", scene)]


def cell_figures(records: dict[str, Record], link: Shape, loss: float, links: int) -> Document:
    """Return goodput and share of every contender.

    Args:
        loss: share of packets lost on each link.
        links: number of such links in a row. Repaired hop by hop, each of them can deliver
            `1 - loss` of what it carries; end to end, only `(1 - loss) ** links` arrives.
    """
    left_gbps = link.rate_bps * (1 - loss) / GIGA
    figures: Document = {
        "loss": loss,
        "links": links,
        "link_gbps": link.rate_bps / GIGA,
        "left_gbps": left_gbps,
    }
    for name, record in records.items():
        figures[f"{name}_gbps"] = record.goodput_gbps
        figures[f"{name}_share"] = ratio(record.goodput_gbps, left_gbps)
    ours = figures.get("ours_gbps")
    for name in ("cubic", "bbr"):
        figures[f"times_{name}"] = ratio(ours, figures.get(f"{name}_gbps"))
    return {**figures, **runs_of(records)}


def loss_keys(document: Document) -> Document:
    """Return the figures that a reader looks for first; None where a cell was not measured."""
    cells = document["cells"]

    def figure(percent: str, key: str) -> float | None:
        value: float | None = cells.get(percent, {}).get(key)
        return value

    small = [figure(percent, "ours_share") for percent in ("0", "1", "2")]
    known = [share for share in small if share is not None]
    return {
        "min_share_to_2_percent": min(known) if len(known) == len(small) else None,
        "share_10_percent": figure("10", "ours_share"),
        "share_30_percent": figure("30", "ours_share"),
        "times_cubic_1_percent": figure("1", "times_cubic"),
        "times_bbr_1_percent": figure("1", "times_bbr"),
        "interop_share": document.get("interop", {}).get("ours_share"),
        "handshakes_of_50": _handshakes_of_50(document.get("handshakes", {})),
        "worst_seconds_after_healing": document.get("outages", {}).get(
            "worst_seconds_after_healing"
        ),
    }


def _handshakes_of_50(found: Document) -> int | None:
    count: int | None = found.get("succeeded")
    return count if found.get("count") == COUNT else None
