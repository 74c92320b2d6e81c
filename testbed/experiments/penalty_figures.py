"""What `penalty` makes of its samples: figures, tables and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from packetcloud.testbed.experiments import paper
from packetcloud.testbed.experiments.experiment import Comparison, ExperimentResult, Plot, Series
from packetcloud.testbed.experiments.sealing import LXD, OPENSSL, PROCESS, PYCRYPTODOME, Column
from packetcloud.testbed.experiments.spread import middle, runs_text, spread
from packetcloud.testbed.experiments.workbench import PLACES

MIB = 1 << 20
REST, AWAKE, STEADY = "one chunk per second", "one per second, kept awake", "steady"
ALONE = "one per second, no LXD beside"
STEADY_RATE = 160.0
"""Chunks per second: more than one of two cores is busy all the time, so neither sleeps for long
and caches stay warm, and none waits for another. At 50 a second both sleep between two chunks."""
LIBRARY = OPENSSL
"""Of the figures: what the paper's service uses. The other one stands beside it for 1 MiB."""
AIMS = {PROCESS: 2.2, LXD: 2.6}


@dataclass(frozen=True, slots=True)
class Sample:
    """One chunk, or the mean of the chunks of one run at the steady rate; in ms."""

    column: Column
    pace: str
    payload_bytes: int
    run: int
    penalty_ms: float
    processing_ms: float
    delivery_ms: float


def key_of(back_end: str) -> str:
    """Return the key of the figure for 1 MiB."""
    return f"penalty_1mib_p50_ms.{back_end}"


def penalty_result(
    samples: Sequence[Sample],
    missing: Mapping[str, str],
    failures: Sequence[str],
    protections: Sequence[str],
) -> ExperimentResult:
    """Make figures, tables and plot."""
    figures: dict[str, float | None] = {key_of(name): None for name in (PROCESS, LXD)}
    for name in figures.copy():
        back_end = name.rpartition(".")[2]
        figures[name] = _median_ms(samples, Column(back_end, LIBRARY), REST)
    comparisons = []
    for back_end, library, pace in _LINES:
        ours = _median_ms(samples, Column(back_end, library), pace)
        is_figure = (library, pace) == (LIBRARY, REST)
        if ours is None and not is_figure:
            continue
        what = f"delay penalty of 1 MiB, {back_end}, {library}, {pace}"
        why = missing.get(key_of(back_end), "")
        if is_figure:
            comparisons.append(
                Comparison(
                    f"{what}, average",
                    "ms",
                    paper.PENALTY_1MB_MS,
                    _mean_ms(samples, Column(back_end, library), pace),
                    "",
                    why or "the paper: averages, below 30 ms",
                )
            )
        aim = f"<= {AIMS[back_end]}" if is_figure else ""
        comparisons.append(Comparison(f"{what}, median", "ms", None, ours, aim, why))
    rows = [_row(column, pace, size, samples) for column, pace, size in _cells(samples)]
    return ExperimentResult(
        "penalty",
        "Delay penalty against chunk size, one chunk per second",
        figures,
        missing,
        comparisons,
        {"penalty": rows, "penalty-samples": [_sample_row(sample) for sample in samples]},
        [_plot(rows)],
        _measured(samples),
        _ASSUMED,
        [_SESSIONS, *protections],
        failures,
    )


_LINES = tuple(
    (back_end, library, pace)
    for pace in (REST, ALONE, AWAKE, STEADY)
    for library in (OPENSSL, PYCRYPTODOME)
    for back_end in (PROCESS, LXD)
)


def _of(samples: Sequence[Sample], column: Column, pace: str, size: int = MIB) -> list[Sample]:
    return [
        one for one in samples if (one.column, one.pace, one.payload_bytes) == (column, pace, size)
    ]


def _median_ms(samples: Sequence[Sample], column: Column, pace: str) -> float | None:
    return middle(sample.penalty_ms for sample in _of(samples, column, pace))


def _mean_ms(samples: Sequence[Sample], column: Column, pace: str) -> float | None:
    found = [sample.penalty_ms for sample in _of(samples, column, pace)]
    return fmean(found) if found else None


def _cells(samples: Sequence[Sample]) -> list[tuple[Column, str, int]]:
    found = dict.fromkeys((one.column, one.pace, one.payload_bytes) for one in samples)
    return sorted(found, key=lambda cell: (cell[0].name, cell[1], cell[2]))


def _row(column: Column, pace: str, size: int, samples: Sequence[Sample]) -> dict[str, object]:
    found = _of(samples, column, pace, size)
    row: dict[str, object] = {
        "back_end": column.back_end,
        "library": column.library,
        "pace": pace,
        "chunk_kib": size >> 10,
    }
    for part in ("penalty_ms", "processing_ms", "delivery_ms"):
        values = spread(getattr(sample, part) for sample in found)
        assert values is not None
        row |= values.columns(part)
    return row | {"penalty_ms_mean": fmean(sample.penalty_ms for sample in found)}


def _sample_row(sample: Sample) -> dict[str, object]:
    return {
        "back_end": sample.column.back_end,
        "library": sample.column.library,
        "pace": sample.pace,
        "chunk_kib": sample.payload_bytes >> 10,
        "run": sample.run,
        "penalty_ms": sample.penalty_ms,
        "processing_ms": sample.processing_ms,
        "delivery_ms": sample.delivery_ms,
    }


def _plot(rows: Sequence[Mapping[str, object]]) -> Plot:
    """Figure 4(b): delay penalty and processing over the size."""
    series = [
        Series(
            "the paper, 1 MB: below", [1000 * 1000 / 1024], [paper.PENALTY_1MB_MS], is_paper=True
        )
    ]
    for back_end in (PROCESS, LXD):
        for pace in (REST, STEADY):
            found = [
                row
                for row in rows
                if (row["back_end"], row["library"], row["pace"]) == (back_end, LIBRARY, pace)
            ]
            if not found:
                continue
            for part in ("penalty", "processing"):
                key = f"{part}_ms"
                series.append(
                    Series(
                        f"{back_end}, {pace}: {part}",
                        [_number(row["chunk_kib"]) for row in found],
                        [_number(row[key]) for row in found],
                        [_number(row[f"{key}_min"]) for row in found],
                        [_number(row[f"{key}_max"]) for row in found],
                    )
                )
    title = "Delay penalty and processing against chunk size (figure 4(b))"
    return Plot("penalty", title, "chunk, KiB", "ms, median", "line", series, y_log=True)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _measured(samples: Sequence[Sample]) -> list[str]:
    runs = {pace: {s.run for s in samples if s.pace == pace} for pace in (REST, STEADY)}
    said = [
        "Delay penalty: from a chunk's turn at the service until the whole verdict is back, as the "
        "router counts it; processing is what the VI says it spent in the service, delivery is "
        "the rest.",
        "At one chunk per second each sample is one chunk; "
        f"{runs_text(len(runs[REST]))} for each size and back-end, in turn; the first chunk of "
        "each size and VI does not count. Half a second after each the router is asked about it. "
        f"At the steady rate ({STEADY_RATE:g} chunks per second) each sample is the mean of a run; "
        f"{runs_text(len(runs[STEADY]))}.",
        f"{PLACES} Who measures is told 0.2 s after a chunk.",
        "Kept awake: the same while a program of the lowest priority keeps every core from "
        "halting.",
        "What arrived was counted, and a sample of it decrypted and compared with what was sent.",
    ]
    if any(sample.column.back_end == LXD for sample in samples):
        said.append(
            "The figure of the process back-end is of a router that has containers too: LXD and a "
            f"cloudlet's controller run beside it. Without them it is the line `{ALONE}`."
        )
    return said


_SESSIONS = "The caller's and the sinks' sessions with the router are sealed (AES-GCM)."
_ASSUMED = (
    f"AES-128-CBC by {LIBRARY}, as the paper's service has it, makes the figures; {PYCRYPTODOME}, "
    "which is ours if nobody chooses, stands beside them.",
    "The paper's 1 MB is taken for 1 MiB. Its router and node were two machines joined by 1 "
    "Gbit/s, where 1 MB takes 8 ms each way; here a veth pair or loopback joins two processes.",
)
