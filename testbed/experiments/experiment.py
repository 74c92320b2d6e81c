"""What an experiment is: given a plan, it measures, and returns figures, tables and plots.

Whoever runs it writes the files and the report; an experiment itself writes only its raw data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """What an experiment is to do."""

    folder: Path
    """Where raw files go; it is there already, and nobody else's."""
    is_quick: bool
    """Only to see that everything works, as in CI: seconds, and the figures mean nothing."""
    seed: int
    """Of every chance."""
    back_ends: tuple[str, ...]
    """Where services run, `process` and `lxd`: those that are here and wanted."""
    tell: Callable[[str], None]
    """Told what comes now: one line before each step."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of "paper | ours"."""

    what: str
    """What is compared, as a reader would call it."""
    unit: str
    """Of both figures, such as `Mbit/s`; empty for a ratio."""
    paper: float | None
    """None: the paper says nothing about it."""
    ours: float | None
    """None: not measured; `note` says why."""
    aim: str = ""
    """What is to be reached, such as `<= 2.2` or `>= 26.14`; empty: nothing in particular."""
    note: str = ""
    """How the two figures are to be read."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot, or its bars of one colour."""

    label: str
    x: Sequence[float | str]
    """Numbers, or names of groups of bars."""
    y: Sequence[float]
    """As many as `x`."""
    low: Sequence[float] = ()
    """Lower ends of error bars, in the unit of `y`; as many, or none."""
    high: Sequence[float] = ()
    is_paper: bool = False
    """Figures of the paper, which look like nobody else's."""


@dataclass(frozen=True, slots=True)
class Plot:
    """What becomes NAME.png and NAME.svg."""

    name: str
    """Of its files: lower case letters, digits, `-`."""
    title: str
    x_label: str
    """With the unit."""
    y_label: str
    kind: Literal["line", "bar"]
    series: Sequence[Series]
    x_log: bool = False
    y_log: bool = False


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """What came out."""

    name: str
    title: str
    figures: Mapping[str, float | None]
    """By dotted keys of the JSON, such as `goodput.cubic_mbps`; None: `missing` says why."""
    missing: Mapping[str, str]
    """Key of `figures` -> why there is none."""
    comparisons: Sequence[Comparison]
    tables: Mapping[str, Sequence[Mapping[str, object]]]
    """Rows by name of the table; each is written as NAME.csv."""
    plots: Sequence[Plot]
    measured: Sequence[str]
    """Sentences for the report: what was measured here, and how."""
    assumed: Sequence[str]
    """Sentences: what was chosen or taken for granted."""
    protections: Sequence[str]
    """Sentences: what was between services and this machine while it ran."""
    failures: Sequence[str] = ()
    """Sentences: what did not work, and what makes figures worthless, such as a late emulator."""


class Experiment(Protocol):
    """Something that `packetcloud testbed run` can run."""

    name: str
    """Lower case letters, digits, `-`."""
    title: str
    """One line for people."""
    seconds: int
    """How long it takes, about."""
    quick_seconds: int
    """The same of a quick run."""

    fingerprint: str
    """Of what it measures besides our own code, such as the file of a topology; empty: nothing.
    What an earlier run found is kept only where it is the same."""

    @property
    def keys(self) -> Sequence[str]:
        """Of the figures that it is run for: in every result, null with the reason at worst."""
        ...

    def run(self, plan: ExperimentPlan) -> ExperimentResult:
        """Measure; whatever was started has ended when it returns or raises.

        Raises:
            TestbedError: it could not be run at all; the others of a run go on.
        """
        ...


@runtime_checkable
class NeedsMaking(Protocol):
    """An experiment that needs something which takes long to make and is kept, such as an image."""

    def make(self, back_ends: Sequence[str], tell: Callable[[str], None]) -> None:
        """Make it, before anything of a run is measured; whoever finds it there does nothing.

        Raises:
            PacketCloudError: it cannot be made.
        """
        ...
