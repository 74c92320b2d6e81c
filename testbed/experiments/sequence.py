"""Service sequences of 1 to 8 services: what each further one costs.

A chunk names them in its service sequence; all of them are at one cloudlet. The paper describes
sequences (MobiArch'13, section 3.3) and measures none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packetcloud.chunk.identity import create_identity_file
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed.daemons import (
    Router,
    RouterPlan,
    ServiceEntry,
    own_processor,
    start_router,
    start_service,
    wait_attached,
)
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments.experiment import (
    Comparison,
    Experiment,
    ExperimentPlan,
    ExperimentResult,
    Plot,
    Series,
)
from packetcloud.testbed.experiments.reader import lay_reader
from packetcloud.testbed.experiments.sealing import LOCALHOST
from packetcloud.testbed.experiments.spread import middle, runs_text, slope, spread
from packetcloud.testbed.experiments.workbench import (
    PLACES,
    Visits,
    Workbench,
    open_workbench,
    priority_of_hosts,
)
from packetcloud.testbed.processes import Child, Children
from packetcloud.testbed.protections import protections_of

MIB = 1 << 20
RATE = 25.0
"""Chunks per second: with 8 services each is done before the next comes, and nobody sleeps."""
KEY = "read_only_service_ms_per_mib"
MIXED = ("reader-1", "compress", "encrypt", "decrypt", "decompress", "reader-2")
"""A chunk leaves this one as it came."""
_SEALING = {"suite": "aes-128-cbc", "library": "openssl"}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    lengths: Sequence[int]
    rounds: int
    chunks: int


FULL = Effort(tuple(range(1, 9)), rounds=4, chunks=50)
QUICK = Effort((1, 2), rounds=1, chunks=8)


@dataclass(frozen=True, slots=True)
class Passage:
    """Chunks that went through one sequence in one round."""

    names: tuple[str, ...]
    round_number: int
    visits: Sequence[Visits]
    """To each service, means in ms."""
    delays_ms: Sequence[float]
    """From the caller to the sink, of each chunk."""

    @property
    def penalty_ms(self) -> float:
        """All visits of one chunk together, in the mean."""
        return sum(visit.penalty_ms for visit in self.visits)


class SequenceExperiment:
    """See `Experiment`."""

    name = "sequence"
    title = "Service sequences of 1 to 8 services"
    seconds = 110
    quick_seconds = 12
    fingerprint = ""
    keys = (KEY,)

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        effort = QUICK if plan.is_quick else FULL
        readers = tuple(f"reader-{number}" for number in range(1, max(effort.lengths) + 1))
        failures: list[str] = []
        protections: list[str] = []
        with Children() as children:
            router, sids, services = _start(children, children.directory / "place", readers)
            priority = priority_of_hosts(plan)
            with open_workbench(
                children, router, router.address, [MIB], priority, keeps_times=True
            ) as bench:
                passages = _measure(plan, effort, bench, sids, readers, failures)
                for one in services:
                    protections += protections_of("process", one)
        return sequence_result(passages, failures, list(dict.fromkeys(protections)))


SEQUENCE: Experiment = SequenceExperiment()


def sequence_result(
    passages: Sequence[Passage], failures: Sequence[str], protections: Sequence[str]
) -> ExperimentResult:
    """Make figures, tables and plot; the cost of one more is the slope over the length."""
    plain = [one for one in passages if one.names != MIXED]
    cost = slope([(len(one.names), delay) for one in plain if (delay := _delay(one)) is not None])
    missing = {} if cost is not None else {KEY: "; ".join(failures) or "fewer than two lengths"}
    lengths = sorted({len(one.names) for one in plain})
    rows = [_row(n, [one for one in plain if len(one.names) == n]) for n in lengths]
    return ExperimentResult(
        SequenceExperiment.name,
        SequenceExperiment.title,
        {KEY: cost, "sequence.mixed_penalty_ms": middle(o.penalty_ms for o in _mixed(passages))},
        missing | ({} if _mixed(passages) else {"sequence.mixed_penalty_ms": "no run of it"}),
        [
            Comparison(
                "each further service that only reads, 1 MiB",
                "ms",
                None,
                cost,
                "<= 1",
                missing.get(KEY, "slope of the median delay over the number of services"),
            )
        ],
        {
            "sequence": rows,
            "sequence-mixed": [row for one in _mixed(passages) for row in _visit_rows(one)],
            "sequence-visits": [row for one in plain for row in _visit_rows(one)],
        },
        [_plot(rows)],
        [*_MEASURED, _rounds_text(plain)],
        _ASSUMED,
        [_SESSIONS, *protections],
        failures,
    )


def _start(
    children: Children, folder: Path, readers: Sequence[str]
) -> tuple[Router, dict[str, str], list[Child]]:
    """Start a router with all services, whose keys lie in `folder`; return SIDs by name, and the
    services."""
    manifest = str(lay_reader(folder))
    key_file = folder / "aes.key"
    create_key_file(key_file)
    services: dict[str, tuple[str, dict[str, object]]] = {name: (manifest, {}) for name in readers}
    for direction in ("encrypt", "decrypt"):
        settings: dict[str, object] = {"direction": direction, "key_file": key_file, **_SEALING}
        services[direction] = "secure-communication", settings
    for direction in ("compress", "decompress"):
        services[direction] = "wan-optimizer", {"direction": direction}
    keys = {name: folder / f"{name}.key" for name in services}
    sids = {name: create_identity_file(key).guid.hex for name, key in keys.items()}
    entries = [ServiceEntry(sid, name) for name, sid in sids.items()]
    anywhere = (LOCALHOST, 0)
    router = start_router(
        children, RouterPlan(anywhere, anywhere, entries, processors=own_processor())
    )
    started: dict[str, Child] = {
        name: start_service(children, name, which, router.address, keys[name], settings)
        for name, (which, settings) in services.items()
    }
    for name, child in started.items():
        wait_attached(router, child, sids[name])
    return router, sids, list(started.values())


def _measure(
    plan: ExperimentPlan,
    effort: Effort,
    bench: Workbench,
    sids: Mapping[str, str],
    readers: Sequence[str],
    failures: list[str],
) -> list[Passage]:
    """Send through every sequence, in turn, round after round."""
    sequences = [tuple(readers[:length]) for length in effort.lengths]
    if len(readers) > 1:
        sequences.append(MIXED)
    begun: list[tuple[tuple[str, ...], int, list[Visits], list[tuple[int, float]]]] = []
    try:
        for names in sequences:
            # Paths and buffers are found out about before anything counts.
            bench.send([sids[name] for name in names], MIB)
            bench.visits([sids[name] for name in names], 1)
        for number in range(1, effort.rounds + 1):
            for names in sequences:
                plan.tell(f"{len(names)} services ({names[0]} ...), round {number}")
                path = [sids[name] for name in names]
                departures = bench.send(path, MIB, effort.chunks, 1 / RATE)
                visits = bench.visits(path, effort.chunks)
                begun.append((names, number, visits, departures))
    except ChildError as error:
        failures.append(str(error))
    arrivals = bench.finish()[MIB]
    return [
        Passage(
            names,
            number,
            visits,
            [(arrivals[one] - left_s) * 1e3 for one, left_s in departures if one in arrivals],
        )
        for names, number, visits, departures in begun
    ]


def _rounds_text(passages: Sequence[Passage]) -> str:
    rounds = {one.round_number for one in passages}
    return (
        f"Delays are medians of the chunks of a round, penalties averages; of rounds: "
        f"{runs_text(len(rounds))}. {PLACES}"
    )


def _mixed(passages: Sequence[Passage]) -> list[Passage]:
    return [one for one in passages if one.names == MIXED]


def _delay(one: Passage) -> float | None:
    return middle(one.delays_ms)


def _row(length: int, passages: Sequence[Passage]) -> dict[str, object]:
    row: dict[str, object] = {"services": length}
    delays = spread(delay for one in passages if (delay := _delay(one)) is not None)
    penalties = spread(one.penalty_ms for one in passages)
    assert delays is not None and penalties is not None
    processing = middle(sum(visit.processing_ms for visit in one.visits) for one in passages)
    return (
        row
        | delays.columns("delay_ms")
        | penalties.columns("penalty_ms")
        | {
            "processing_ms": processing,
            "penalty_ms_per_service": penalties.median / length,
        }
    )


def _visit_rows(one: Passage) -> list[dict[str, object]]:
    return [
        {
            "services": len(one.names),
            "round": one.round_number,
            "service": name,
            "penalty_ms": visit.penalty_ms,
            "processing_ms": visit.processing_ms,
            "delivery_ms": visit.delivery_ms,
        }
        for name, visit in zip(one.names, one.visits, strict=True)
    ]


def _plot(rows: Sequence[Mapping[str, object]]) -> Plot:
    def line(label: str, key: str) -> Series:
        return Series(label, [float(str(r["services"])) for r in rows], [_ms(r, key) for r in rows])

    return Plot(
        "sequence",
        "Delay of 1 MiB against the number of services that only read",
        "services",
        "ms",
        "line",
        [
            line("from the caller to the sink", "delay_ms"),
            line("delay penalties together", "penalty_ms"),
            line("of them processing", "processing_ms"),
        ],
    )


def _ms(row: Mapping[str, object], key: str) -> float:
    value = row[key]
    assert isinstance(value, int | float)
    return float(value)


_MEASURED = (
    f"Chunks of 1 MiB at {RATE:g} a second from a caller through the router to a sink, all on "
    "loopback; each names 1 to 8 services in its service sequence. Lengths take turns.",
    "A service that only reads takes the CRC-32 of every payload and says `forward`: nothing "
    "travels back but the verdict. What one more costs is the slope of the median delay over the "
    "number of services, by least squares.",
    "The mixed sequence reads, compresses, encrypts, decrypts, decompresses, reads; what arrives "
    "is compared with what was sent.",
)
_ASSUMED = ("All services are at one cloudlet. The payload does not compress.",)
_SESSIONS = "Sessions of caller and sink are sealed (AES-GCM)."
