"""How the links of `four_nodes` were found, and finds them again: `testbed run calibration`.

The laws of `response` say where to begin. Then TCP CUBIC is measured on both paths, and loss and
delay are corrected by what it missed: its rate goes with 1 / (RTT * sqrt(loss)).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from packetcloud.testbed.bench.lossy import TcpTransfer
from packetcloud.testbed.bench.rounds import Timing, run_rounds
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments import paper
from packetcloud.testbed.experiments.experiment import (
    Comparison,
    Experiment,
    ExperimentPlan,
    ExperimentResult,
)
from packetcloud.testbed.experiments.four_nodes import FAR_DELAY_S, FourNodes, Links, OnLinks
from packetcloud.testbed.experiments.response import loss_for, loss_of_path, rtt_for
from packetcloud.testbed.experiments.spread import middle

WHOLE, FAR = "cubic, B to A", "cubic, B to C"
TOLERANCE = 0.05
"""Half of what is allowed: a median of three runs wanders by as much again."""
MOST_TRIES = 5
TIMING = Timing(seconds=30, warmup=3, repeats=3)
QUICK_TIMING = Timing(seconds=2, warmup=1, repeats=1)
SHORTEST_DELAY_S = 0.0002


@dataclass(frozen=True, slots=True)
class Try:
    """Links, and what TCP CUBIC made of them, in Mbit/s."""

    links: Links
    whole_mbps: float
    far_mbps: float

    @property
    def is_close(self) -> bool:
        """Whether both are as close to the paper's as is wanted."""
        return (
            abs(self.whole_mbps / paper.CUBIC_MBPS - 1) <= TOLERANCE
            and abs(self.far_mbps / paper.TRANSLATOR_MBPS - 1) <= TOLERANCE
        )

    def row(self) -> dict[str, object]:
        return {
            "loss_percent": self.links.loss * 100,
            "delay_a_r_ms": self.links.near_delay_s * 1e3,
            "delay_r_b_ms": FAR_DELAY_S * 1e3,
            "cubic_b_to_a_mbps": self.whole_mbps,
            "cubic_b_to_c_mbps": self.far_mbps,
            "paper_b_to_a_mbps": paper.CUBIC_MBPS,
            "paper_b_to_c_mbps": paper.TRANSLATOR_MBPS,
        }


TRIED = (
    Try(Links(0.004437, 0.002533), 3.43, 5.91),
    Try(Links(0.00307, 0.00182), 4.52, 7.47),
    Try(Links(0.0033, 0.0018), 4.24, 7.11),
)
"""The search that gave `four_nodes.CHOSEN`: medians of two runs of 20 s with the links by the laws,
then of three runs of 30 s, the last with rounded figures between."""


def first_links() -> Links:
    """Return what the laws say: the loss from TCP's share of the third scenario, then the delay of
    A's link, with the same loss, from TCP end to end."""
    loss = loss_for(paper.TRANSLATOR_MBPS * 1e6, 2 * FAR_DELAY_S)
    return Links(loss, _near_delay_s(rtt_for(paper.CUBIC_MBPS * 1e6, loss_of_path(loss, loss))))


def next_links(last: Try) -> Links:
    """Return links on which TCP CUBIC is closer to the paper's figures than on the last."""
    wrong_far = last.far_mbps / paper.TRANSLATOR_MBPS
    loss = last.links.loss * wrong_far**2
    # With the new loss alone the whole path would be as much slower as the part of it.
    wrong_whole = last.whole_mbps / wrong_far / paper.CUBIC_MBPS
    rtt_s = 2 * (FAR_DELAY_S + last.links.near_delay_s) * wrong_whole
    return Links(loss, _near_delay_s(rtt_s))


def tried_rows() -> list[dict[str, object]]:
    """Return the table of the search that is stored."""
    return [one.row() for one in TRIED]


class Calibration:
    """See `Experiment`."""

    name = "calibration"
    title = "Links on which TCP CUBIC measures what the paper measured"
    seconds = 1000
    quick_seconds = 15
    fingerprint = ""
    keys = ("calibration.loss_percent", "calibration.delay_a_r_ms")

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        tries: list[Try] = []
        links = first_links()
        for number in range(1, (1 if plan.is_quick else MOST_TRIES) + 1):
            plan.tell(
                f"try {number}: {links.loss:.3%} lost, {links.near_delay_s * 1e3:.2f} ms to A"
            )
            tries.append(_measure(plan, links))
            if tries[-1].is_close:
                break
            links = next_links(tries[-1])
        found = tries[-1]
        return ExperimentResult(
            self.name,
            self.title,
            {
                "calibration.loss_percent": found.links.loss * 100,
                "calibration.delay_a_r_ms": found.links.near_delay_s * 1e3,
            },
            {},
            [
                Comparison(WHOLE, "Mbit/s", paper.CUBIC_MBPS, found.whole_mbps, "4.30 +- 5 %"),
                Comparison(
                    FAR, "Mbit/s", None, found.far_mbps, f"{paper.TRANSLATOR_MBPS:.2f} +- 5 %"
                ),
            ],
            {"calibration": [one.row() for one in tries]},
            [],
            ["TCP CUBIC by iperf3 on both paths in turn, in runs that the emulator vouches for."],
            ["Both links have the same loss; the delay between R and B is given."],
            [],
            [] if found.is_close or plan.is_quick else [f"not found within {MOST_TRIES} tries"],
        )


CALIBRATION: Experiment = Calibration()


def _measure(plan: ExperimentPlan, links: Links) -> Try:
    timing = QUICK_TIMING if plan.is_quick else TIMING
    with FourNodes() as scene:
        contenders = [
            OnLinks(
                TcpTransfer(name, scene, "b", sink, congestion_control="cubic"),
                scene,
                links,
                timing.seconds,
                itertools.count(plan.seed).__next__,
            )
            for name, sink in ((WHOLE, "a"), (FAR, "c"))
        ]
        records = run_rounds(contenders, timing, plan.tell, first_must_work=False)
    medians = [middle(trial.goodput_gbps * 1e3 for trial in records[n].trials) for n in records]
    whole_mbps, far_mbps = medians
    if not whole_mbps or not far_mbps:
        raise ChildError(
            "; ".join(text for record in records.values() for text in record.failures)
            or "TCP delivered nothing"
        )
    return Try(links, whole_mbps, far_mbps)


def _near_delay_s(rtt_s: float) -> float:
    return max(SHORTEST_DELAY_S, rtt_s / 2 - FAR_DELAY_S)
