"""`packetcloud bench service`: what a visit to a service costs, and how much one node carries.

Source: MobiArch'13 paper, section 4.2; docs/reference/bench.md, "service".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from packetcloud.testbed.bench.report import Document, begin_document, failures_of, runs_of
from packetcloud.testbed.bench.rounds import (
    Contender,
    Progress,
    Record,
    Timing,
    ratio,
    run_rounds,
)
from packetcloud.testbed.bench.scene import Scene, service_scene
from packetcloud.testbed.bench.service_ours import OurService
from packetcloud.testbed.bench.service_peers import CipherAlone, ServicePeer
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode

PEERS = ("http", "grpc")
SIZES = (64 << 10, 256 << 10, 1 << 20)
STEADY_SHARE = 0.25
"""Of the full rate: delays are taken there, where no chunk waits for another and processors and
caches stay warm."""
REST_RATE = 20.0
"""Chunks per second: the machine falls asleep between two of them. The paper took 1."""
STEPS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.1)
"""Offered rates, as shares of what the node carries at full rate."""
KNEE_DELIVERED = 0.95
KNEE_DELAY_FACTOR = 3.0
"""The knee: the largest step that delivers 95 % of what is offered, with a median delay penalty of
at most three times that at the steady rate."""

Records = Mapping[str, Record]


def bench_service(
    modes: Sequence[LinkMode | None],
    timing: Timing,
    progress: Progress,
    sizes: Sequence[int] = SIZES,
    shares: Sequence[float] = STEPS,
) -> Document:
    """Measure every size in the mode that counts, and the largest without steps in the others.

    Args:
        sizes: payload bytes, ascending; the figures of the largest stand at the top of the report.
        shares: offered rates of the steps, as shares of what the node carries at full rate.
    """
    document = begin_document("service", timing, modes[0] is None, ("nginx",))
    counted = LinkMode.WIRE if LinkMode.WIRE in modes else modes[0]
    document["steady_share"] = STEADY_SHARE
    document["rest_rate_chunks_per_s"] = REST_RATE
    document["failures"] = []
    document["modes"] = {}
    for mode in modes:
        with service_scene(mode) as scene:
            bench = _ServiceBench(scene, timing, progress, document["failures"])
            chosen, steps = (sizes, shares) if mode is counted else (sizes[-1:], ())
            figures = {str(size): bench.measure(size, steps) for size in chosen}
            document["modes"][scene.name] = {"sizes": figures, "links": scene.settings_in_force()}
            if mode is counted:
                document["sizes"] = figures
                document["mode"] = scene.name
    full = document["sizes"][str(sizes[-1])]
    document |= {key: full[key] for key in PROMISED}
    return document


PROMISED = (
    "delivery_over_processing",
    "node_goodput_gbps",
    "aes_limit_gbps",
    "ratio_aes_limit",
    "speedup_http",
    "speedup_grpc",
)
"""Figures for the largest size, 1 MiB, that also stand at the top of the report."""


class _ServiceBench:
    """The measurements on one scene."""

    def __init__(
        self, scene: Scene, timing: Timing, progress: Progress, failures: list[str]
    ) -> None:
        self._scene = scene
        self._timing = timing
        self._progress = progress
        self._failures = failures

    def measure(self, payload_bytes: int, shares: Sequence[float]) -> Document:
        full = self._rounds(payload_bytes, "full rate", 0.0, [CipherAlone(payload_bytes)])
        goodput_gbps = full["ours"].goodput_gbps
        if goodput_gbps is None:
            raise ChildError(f"ours at full rate failed: {'; '.join(full['ours'].failures)}")
        rate = goodput_gbps * 1e9 / 8 / payload_bytes
        steady = self._rounds(payload_bytes, "steady rate", STEADY_SHARE * rate, [])
        rest = self._rounds(payload_bytes, "at rest", REST_RATE, [])
        figures = size_figures(full, steady)
        figures["steady_rate_chunks_per_s"] = STEADY_SHARE * rate
        figures["at_rest"] = delay_figures_of(rest) | {"runs": runs_of(rest)["runs"]}
        figures["steps"] = self._steps(payload_bytes, rate, shares)
        figures["knee_gbps"] = knee_gbps(figures["steps"], figures["delay_penalty_p50_ms"])
        return figures

    def _rounds(self, payload_bytes: int, what: str, rate: float, more: list[Contender]) -> Records:
        scene = self._scene
        contenders: list[Contender] = [OurService(scene, payload_bytes, "ours", rate)]
        if not scene.is_loopback:
            contenders.append(
                OurService(scene, payload_bytes, "ours, VI on loopback", rate, scene.centre)
            )
        contenders += [ServicePeer(kind, scene, payload_bytes, rate) for kind in PEERS]
        what = f"{payload_bytes >> 10} KiB, {what}"
        records = run_rounds([*contenders, *more], self._timing, self._within(what))
        self._failures += [f"{self._scene.name}, {what}: {one}" for one in failures_of(records)]
        return records

    def _steps(
        self, payload_bytes: int, full_rate: float, shares: Sequence[float]
    ) -> list[Document]:
        steps: list[Document] = []
        for share in shares:
            rate = share * full_rate
            what = f"{payload_bytes >> 10} KiB, {share:.0%} of full rate"
            self._within(what)("ours")
            try:
                trial = OurService(self._scene, payload_bytes, "ours", rate).run(self._timing)
            except ChildError as error:
                self._failures.append(f"{self._scene.name}, {what}: {error}")
                continue
            offered_gbps = rate * payload_bytes * 8 / 1e9
            step = {"offered_gbps": offered_gbps, "goodput_gbps": trial.goodput_gbps}
            numbers = {k: v for k, v in trial.details.items() if isinstance(v, int | float)}
            steps.append({**step, **numbers})
        return steps

    def _within(self, what: str) -> Progress:
        return lambda text: self._progress(f"{self._scene.name}: {what}: {text}")


def size_figures(full: Records, steady: Records) -> Document:
    """Make the figures of one chunk size from the runs at full and at steady rate."""
    ours, limit = full["ours"].goodput_gbps, full["aes_limit"].goodput_gbps
    figures: Document = {
        **delay_figures_of(steady),
        "node_goodput_gbps": ours,
        "aes_limit_gbps": limit,
        "ratio_aes_limit": ratio(ours, limit),
    }
    for kind in PEERS:
        peer = full[kind].goodput_gbps
        figures[f"{kind}_gbps"] = peer
        figures[f"speedup_{kind}"] = ratio(ours, peer)
    if "ours, VI on loopback" in full:
        near = _medians(steady["ours, VI on loopback"])
        figures["vi_on_loopback"] = {
            "node_goodput_gbps": full["ours, VI on loopback"].goodput_gbps,
            **{key: near.get(key) for key in _OUR_DELAYS},
        }
    return {**figures, **runs_of(full), "steady_runs": runs_of(steady)["runs"]}


def delay_figures_of(records: Records) -> Document:
    """Make the delays, ours and the peers', of the runs at one set rate."""
    ours = _medians(records["ours"])
    figures: Document = {key: ours.get(key) for key in _OUR_DELAYS}
    figures["delivery_over_processing"] = ratio(
        ours.get("delivery_p50_ms"), ours.get("processing_p50_ms")
    )
    for kind in PEERS:
        peer = _medians(records[kind])
        figures[f"{kind}_delay_p50_ms"] = peer.get("delay_p50_ms")
        figures[f"{kind}_delay_p99_ms"] = peer.get("delay_p99_ms")
        # From A to the end of the journey, the same for both: B for us, back at A for the peers.
        figures[f"delay_speedup_{kind}"] = ratio(peer.get("delay_p50_ms"), ours.get("delay_p50_ms"))
    return figures


_OUR_DELAYS = (
    "delay_penalty_p50_ms",
    "delay_penalty_p99_ms",
    "processing_p50_ms",
    "processing_p99_ms",
    "delivery_p50_ms",
    "delivery_p99_ms",
    "delay_p50_ms",
    "delay_p99_ms",
)


def knee_gbps(steps: Sequence[Mapping[str, Any]], steady_penalty_ms: float | None) -> float | None:
    """Return the goodput of the last step before the node falls behind; None if it always does."""
    kept = kept_count(steps, steady_penalty_ms)
    return steps[kept - 1]["goodput_gbps"] if kept else None


def kept_count(steps: Sequence[Mapping[str, Any]], steady_penalty_ms: float | None) -> int:
    """Return how many steps, of ascending rates, there are before the node falls behind."""
    for count, step in enumerate(steps):
        delivers = step["goodput_gbps"] >= KNEE_DELIVERED * step["offered_gbps"]
        penalty_ms = step["delay_penalty_p50_ms"]
        if not delivers or (
            steady_penalty_ms and penalty_ms > KNEE_DELAY_FACTOR * steady_penalty_ms
        ):
            return count
    return len(steps)


def _medians(record: Record) -> dict[str, float]:
    """Medians of every numeric detail over the runs."""
    found: dict[str, list[float]] = {}
    for trial in record.trials:
        for name, value in trial.details.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}
