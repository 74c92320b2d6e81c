"""The load of a topology's file as an experiment: goodput, delay penalty, losses, per load."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packetcloud.testbed.experiments.experiment import (
    Comparison,
    ExperimentPlan,
    ExperimentResult,
    Plot,
    Series,
)
from packetcloud.testbed.topology.build import Network, open_network
from packetcloud.testbed.topology.cloudlets import protections_at
from packetcloud.testbed.topology.containers import LXD
from packetcloud.testbed.topology.facts import facts_of
from packetcloud.testbed.topology.graph import make_graph
from packetcloud.testbed.topology.measure import TurnResult, loads_by_turn, run_turn
from packetcloud.testbed.topology.model import Topology
from packetcloud.testbed.topology.service_files import check_services, fingerprint_of
from packetcloud.testbed.topology.traffic import LoadResult, LoadTiming

QUICK = LoadTiming(seconds=1.0, warmup_s=0.25)
_TURN_OVERHEAD_S = 4.0
_ROUTER_START_S = 1.5
_NO_BOUNDARY = (
    "Services that ran as child processes, with limits of memory, processes and files: {services}. "
    "No boundary against hostile code."
)


class TopologyExperiment:
    """Runs the load of one topology; an `experiments.experiment.Experiment`."""

    def __init__(self, topology: Topology, images: Path | None = None) -> None:
        """
        Args:
            images: where images of VIs are kept; None: where `packetcloud image build` puts them.

        Raises:
            TopologyError: the topology cannot be made, or has no load.
        """
        self._topology = topology
        self._images = images
        self._graph = make_graph(topology)
        check_services(topology)
        self.fingerprint = fingerprint_of(topology)
        self._turns = loads_by_turn(topology.file.load)
        self.name = topology.name
        self.title = f"The load of {topology.name}"
        self.seconds = self._about(topology.file.run.seconds + topology.file.run.warmup)
        self.quick_seconds = self._about(QUICK.seconds + QUICK.warmup_s)
        names = [name for loads in self._turns.values() for _, name, _ in loads]
        self.keys = tuple(map(_goodput_key, names))

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        run = self._topology.file.run
        timing = QUICK if plan.is_quick else LoadTiming(run.seconds, run.warmup)
        folder = plan.folder / "network"
        folder.mkdir()
        try:
            with open_network(self._graph, folder, plan.tell, self._images) as network:
                links = facts_of(network)["links"]
                protections = protections_of(network)
                turns = [
                    run_turn(network, turn, loads, timing, plan.seed, plan.tell)
                    for turn, loads in self._turns.items()
                ]
        finally:
            # They are of nobody any more, and results are passed around.
            if (folder / "keys").exists():
                shutil.rmtree(folder / "keys")
        return ExperimentResult(
            name=self.name,
            title=self.title,
            figures=_figures(turns),
            missing=_missing(turns),
            comparisons=_comparisons(turns),
            tables=self._tables(turns, links),
            plots=_plots(turns),
            measured=self._measured(timing),
            assumed=self._assumed(),
            protections=protections,
            failures=[
                *(f"{one.name}: {one.problem}" for one in _loads(turns) if one.problem),
                *(f"turn {turn.turn}: {text}" for turn in turns for text in turn.objections),
            ],
        )

    def _about(self, turn_s: float) -> int:
        start_s = _ROUTER_START_S * (1 + len(self._topology.file.routers))
        return round(start_s + len(self._turns) * (turn_s + _TURN_OVERHEAD_S))

    def _measured(self, timing: LoadTiming) -> list[str]:
        return [
            f"Goodput is payload that arrived in {timing.seconds:g} s after the first "
            f"{timing.warmup_s:g} s, counted at the receiver.",
            "Lost are chunks that a router took into custody and that had not arrived when the run "
            "ended; what was down at its end may still hold them.",
            "The delay penalty is the router's own figure, of the same seconds: from a chunk's "
            "turn at a service until the whole verdict is back; waiting for a VI with room is part "
            "of it. What a service did (tasks, missed deadlines and so on) is of the whole turn; "
            "at a router that a fault killed, of what came since it was started again.",
            "Loads of one turn begin together, and the faults happen in each turn.",
        ]

    def _assumed(self) -> list[str]:
        links = self._topology.links
        emulated = [one.name for one in links if one.is_emulated]
        plain = [one.name for one in links if not one.is_emulated]
        said = []
        if emulated:
            said.append(f"Emulated links: {', '.join(emulated)}.")
        if plain:
            said.append(
                f"Plain veth pairs, as fast as this machine: {', '.join(plain)}; frames of MTU "
                "size on the link, merged by the receiver, as with a plain NIC."
            )
        said.append("All nodes share the processors of this machine.")
        return said

    def _tables(
        self, turns: Sequence[TurnResult], links: dict[str, Any]
    ) -> dict[str, Sequence[dict[str, object]]]:
        tables: dict[str, Sequence[dict[str, object]]] = {
            "loads": [_load_row(turn, one) for turn in turns for one in turn.loads],
            "services": [row for turn in turns for row in turn.services],
            "links": [row for turn in turns for row in turn.links],
            "faults": [row for turn in turns for row in turn.faults],
            "timeline": [
                {"load": one.name, "at_s": at_s, "mbps": mbps}
                for one in _loads(turns)
                for at_s, mbps in one.timeline
            ],
        }
        tables["made_by"] = [
            {"link": name, "made_by": one["made_by"], "ends": " - ".join(one["ends"])}
            for name, one in links.items()
        ]
        return {name: rows for name, rows in tables.items() if rows}


def protections_of(network: Network) -> list[str]:
    """Return what held the code of services, and what did not."""
    services = network.file.service
    said = []
    processes = [one.name for one in services if one.isolation != LXD]
    if processes:
        said.append(_NO_BOUNDARY.format(services=", ".join(processes)))
    for router in {one.at: None for one in services if one.isolation == LXD}:
        here = [one.name for one in services if one.at == router and one.isolation == LXD]
        names = ", ".join(here)
        found = protections_at(network.places[router])
        active = ", ".join(one.name for one in found if one.is_active)
        lacking = ", ".join(one.name for one in found if not one.is_active) or "nothing"
        said.append(
            f"Services in LXD containers at {router}: {names}. In force: {active}. Not in force: "
            f"{lacking}."
        )
    return said


def _goodput_key(load: str) -> str:
    return f"goodput.{load}_mbps"


def _loads(turns: Sequence[TurnResult]) -> list[LoadResult]:
    return [one for turn in turns for one in turn.loads]


def _load_row(turn: TurnResult, one: LoadResult) -> dict[str, object]:
    table = one.table
    return {
        "turn": turn.turn,
        "load": one.name,
        "from": table.source,
        "to": table.destination,
        "kind": table.kind if table.kind == "chunks" else f"TCP {table.congestion}",
        "via": " > ".join(table.via),
        "goodput_mbps": one.goodput_mbps,
        "arrived_chunks": one.arrived_chunks,
        "lost_chunks": one.lost_chunks,
        "refused": ", ".join(f"{why} {count}" for why, count in one.refused.items()),
        "delay_p50_ms": one.delay_p50_ms,
        "delay_p99_ms": one.delay_p99_ms,
        "retransmitted": one.retransmitted,
        "busy_cores": turn.busy_cores,
        "problem": one.problem,
    }


def _figures(turns: Sequence[TurnResult]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for one in _loads(turns):
        figures[_goodput_key(one.name)] = one.goodput_mbps
        if one.lost_chunks is not None:
            figures[f"lost_chunks.{one.name}"] = float(one.lost_chunks)
    for turn in turns:
        for row in turn.services:
            for part in ("delay_penalty", "processing", "delivery"):
                figures[f"{part}_p50_ms.{row['service']}"] = row[f"{part}_p50_ms"]
    figures["is_valid"] = float(not any(turn.objections for turn in turns))
    return figures


def _missing(turns: Sequence[TurnResult]) -> dict[str, str]:
    """Return why a figure is none."""
    why = {
        _goodput_key(one.name): one.problem or "too little arrived to say"
        for one in _loads(turns)
        if one.goodput_mbps is None
    }
    return why | {
        key: "no chunk came back from it in the time that counts, or its router was away"
        for key, value in _figures(turns).items()
        if value is None and key not in why
    }


def _comparisons(turns: Sequence[TurnResult]) -> list[Comparison]:
    return [
        Comparison(f"goodput of {one.name}", "Mbit/s", None, one.goodput_mbps, note=one.problem)
        for one in _loads(turns)
    ]


def _plots(turns: Sequence[TurnResult]) -> list[Plot]:
    loads = _loads(turns)
    known = [one for one in loads if one.goodput_mbps is not None]
    plots = []
    if known:
        heights = [one.goodput_mbps or 0.0 for one in known]
        bars = Series("goodput", [one.name for one in known], heights)
        plots.append(Plot("goodput", "Goodput of each load", "", "Mbit/s", "bar", [bars]))
    lines = [
        Series(one.name, [at_s for at_s, _ in one.timeline], [mbps for _, mbps in one.timeline])
        for one in loads
        if one.timeline
    ]
    if lines:
        title = "What arrived, over the time of each turn"
        plots.append(Plot("timeline", title, "s since the turn began", "Mbit/s", "line", lines))
    rows = [
        row for turn in turns for row in turn.services if row["delay_penalty_p50_ms"] is not None
    ]
    if rows:
        names = [f"{row['service']}, turn {row['turn']}" for row in rows]
        parts = [
            Series(part, names, [row[f"{part}_p50_ms"] for row in rows])
            for part in ("processing", "delivery")
        ]
        plots.append(Plot("penalty", "Delay penalty of each service", "", "ms, p50", "bar", parts))
    return plots
