"""Goodput of a node with 1, 2, 4 and 8 VIs, and what a cloudlet of 20 nodes would carry.

Source: MobiArch'13 paper, section 4.2, last paragraph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from packetcloud.testbed.bench.rounds import Contender, Record, Timing, run_rounds
from packetcloud.testbed.bench.scene import service_scene
from packetcloud.testbed.bench.service_ours import OurService
from packetcloud.testbed.experiments import paper
from packetcloud.testbed.experiments.experiment import (
    Comparison,
    Experiment,
    ExperimentPlan,
    ExperimentResult,
    Plot,
    Series,
)
from packetcloud.testbed.experiments.projection import Projection, project
from packetcloud.testbed.experiments.sealing import OPENSSL
from packetcloud.testbed.experiments.spread import runs_text, spread
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import can_make_namespaces
from packetcloud.testbed.protections import told_in

MIB = 1 << 20
VIS = (1, 2, 4, 8)
QUICK_VIS = (1, 2)
NODES = (1, 2, 4, 8, 12, 16, 20)
TIMING = Timing(seconds=4, warmup=1, repeats=3)
QUICK_TIMING = Timing(seconds=1, warmup=0, repeats=1)
PROJECTED = "scale.projected_20_nodes_gbps"


class Scale:
    """See `Experiment`."""

    name = "scale"
    title = "Goodput against the number of VIs, and a projection to 20 nodes"
    seconds = 110
    quick_seconds = 10
    fingerprint = ""
    keys = (PROJECTED,)

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        mode = LinkMode.WIRE if can_make_namespaces() else None
        counts = QUICK_VIS if plan.is_quick else VIS
        with service_scene(mode) as scene:
            contenders: list[Contender] = [
                OurService(scene, MIB, name_of(count), library=OPENSSL, replicas=count)
                for count in counts
            ]
            timing = QUICK_TIMING if plan.is_quick else TIMING
            records = run_rounds(contenders, timing, plan.tell, first_must_work=False)
        return scale_result({c: records[name_of(c)] for c in counts}, _usable_cores())


SCALE: Experiment = Scale()


def name_of(count: int) -> str:
    return "1 VI" if count == 1 else f"{count} VIs"


def scale_result(records: Mapping[int, Record], cores: int) -> ExperimentResult:
    """Make figures, tables and plots."""
    figures: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    for count, record in records.items():
        key = f"scale.vis_{count}_gbps"
        figures[key] = record.goodput_gbps
        if not record.trials:
            missing[key] = "; ".join(record.failures)
    projections = projections_of(records[1])
    last = projections[-1] if projections else None
    figures[PROJECTED] = last.gbps if last is not None else None
    figures["scale.router_limit_gbps"] = last.router_gbps if last is not None else None
    for key in (PROJECTED, "scale.router_limit_gbps"):
        if figures[key] is None:
            missing[key] = missing.get("scale.vis_1_gbps", "no run with one VI")
    return ExperimentResult(
        Scale.name,
        Scale.title,
        figures,
        missing,
        [
            *(
                Comparison(
                    f"goodput with {name_of(count)} on {cores} cores",
                    "Gbit/s",
                    paper.NODE_GBPS if count == 1 else None,
                    record.goodput_gbps,
                )
                for count, record in records.items()
            ),
            Comparison(
                f"{paper.NODES} nodes, projected",
                "Gbit/s",
                paper.CLOUDLET_GBPS,
                figures[PROJECTED],
                "",
                f"limited by {last.limit}; neither we nor the paper measured it" if last else "",
            ),
        ],
        {
            "scale": [_row(count, record) for count, record in records.items()],
            "scale-projection": [_projection_row(one) for one in projections],
        },
        [_measured_plot(records), *([_projected_plot(projections)] if projections else [])],
        _measured(records),
        _assumed(cores),
        [
            _SESSIONS,
            *told_in(trial.details for record in records.values() for trial in record.trials),
        ],
        [f"{name_of(c)}: {text}" for c, record in records.items() for text in record.failures],
    )


def projections_of(one_vi: Record) -> list[Projection]:
    """Project what one node with one VI carries; empty if it was not measured."""
    node_gbps, cpu = one_vi.goodput_gbps, one_vi.cpu_s_per_gb.get("router")
    if node_gbps is None or not cpu:
        return []
    return [project(nodes, node_gbps, cpu) for nodes in NODES]


def _row(count: int, record: Record) -> dict[str, object]:
    row: dict[str, object] = {"vis": count}
    found = spread(trial.goodput_gbps for trial in record.trials)
    row |= found.columns("gbps") if found is not None else {"gbps": None}
    cpu = record.cpu_s_per_gb
    return row | {f"cpu_s_per_gb_{process}": seconds for process, seconds in cpu.items()}


def _projection_row(one: Projection) -> dict[str, object]:
    return {
        "nodes": one.nodes,
        "by_nodes_gbps": one.by_nodes_gbps,
        "router_gbps": one.router_gbps,
        "projected_gbps": one.gbps,
        "limit": one.limit,
        "paper_gbps": one.nodes * paper.NODE_GBPS,
    }


def _measured_plot(records: Mapping[int, Record]) -> Plot:
    known = [
        (count, found)
        for count, record in records.items()
        if (found := spread(trial.goodput_gbps for trial in record.trials)) is not None
    ]
    ours = Series(
        "ours",
        [count for count, _ in known],
        [found.median for _, found in known],
        [found.low for _, found in known],
        [found.high for _, found in known],
    )
    theirs = Series("the paper, one node", [1], [paper.NODE_GBPS], is_paper=True)
    return Plot(
        "scale",
        "Goodput against the number of VIs on one node",
        "VIs",
        "Gbit/s",
        "line",
        [theirs, ours],
    )


def _projected_plot(projections: Sequence[Projection]) -> Plot:
    nodes = [one.nodes for one in projections]
    return Plot(
        "scale-projection",
        "A projection, not a measurement",
        "nodes",
        "Gbit/s",
        "line",
        [
            Series("the paper's", nodes, [n * paper.NODE_GBPS for n in nodes], is_paper=True),
            Series("ours, nodes alone", nodes, [one.by_nodes_gbps for one in projections]),
            Series("ours, with one router", nodes, [one.gbps for one in projections]),
        ],
    )


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0))


_SESSIONS = (
    "Hosts' sessions are sealed (AES-GCM); the wire between router and VIs is declared private."
)


def _measured(records: Mapping[int, Record]) -> list[str]:
    counts = [len(record.trials) for record in records.values()]
    return [
        "Chunks of 1 MiB from A through router and VIs to B, as fast as it goes; all VIs run the "
        "encrypting service (AES-128-CBC by OpenSSL) under one name, and the router shares the "
        f"chunks out. Numbers of VIs take turns; {runs_text(*counts)}.",
        "Processor seconds per 10^9 bytes of every process: with all cores busy they say "
        "what limits.",
    ]


def _assumed(cores: int) -> list[str]:
    return [
        f"Router, VIs and both hosts share {cores} cores. More VIs can carry more only where cores "
        "are left for them.",
        "The projection takes that each node carries what one VI carried here and that chunks of "
        "many flows spread evenly. Every chunk passes the router on its way to the VI and back, "
        "and the router is one process with one thread: it carries at most 8 Gbit/s divided by "
        "the processor seconds that it needs for 10^9 bytes, with a core to itself. A cloudlet "
        "beyond that needs more than one router.",
        "The network between router and nodes is taken to carry it all: 20 NICs of 1 Gbit/s did in "
        "the paper's sum.",
    ]
