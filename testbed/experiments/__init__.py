"""Experiments: each runs by one command, and its figures stand beside those of the paper.

- `experiment` what an experiment is given, and what it gives back
- `runs`       runs experiments one after the other, and keeps what they found
- `files`      tables as CSV, plots as PNG and SVG
- `plots`      draws plots
- `reading`    what figures say beside others
- `markup`     HTML that escapes
- `report`     one HTML page about a run
- `paper`      what the paper says it measured
- `spread`     medians, extremes, slopes
- `goodput`    TCP end to end, chunks hop by hop, through the translator
- `translated` the third of these: curl, a proxy, the translator, nginx
- `four_nodes` the links of that: A - R - B and a cloudlet at R
- `response`   how fast TCP CUBIC is by the laws
- `calibration` finds links on which TCP measures what the paper measured
- `penalty`    delay penalty against chunk size
- `penalty_figures` what that makes of its samples
- `sealing`    the encrypting service, as child processes and in containers
- `workbench`  a router with services, one caller, a sink for each size
- `awake`      `python -m packetcloud.testbed.experiments.awake`: keeps a core from halting
- `load`       delay penalty against goodput, to the knee
- `load_figures` what that makes of its runs
- `scale`      goodput against the number of VIs
- `projection` from one node to a cloudlet of many
- `sequence`   1 to 8 services in a row
- `reader`     a service that only reads
- `services`   figures of bundled services by their own benchmarks

`EXPERIMENTS` names each with where it is, so that only what runs is imported; `PAPER` are those
that `packetcloud testbed run paper` runs, in this order. Source: docs/reference/testbed.md,
docs/reference/experiments.md.
"""

from __future__ import annotations

from collections.abc import Mapping

_HERE = "packetcloud.testbed.experiments"

EXPERIMENTS: Mapping[str, str] = {
    "goodput": f"{_HERE}.goodput:GOODPUT",
    "penalty": f"{_HERE}.penalty:PENALTY",
    "load": f"{_HERE}.load:LOAD",
    "scale": f"{_HERE}.scale:SCALE",
    "sequence": f"{_HERE}.sequence:SEQUENCE",
    "translator": f"{_HERE}.services:TRANSLATOR",
    "wan": f"{_HERE}.services:WAN",
    "ids": f"{_HERE}.services:IDS",
    "calibration": f"{_HERE}.calibration:CALIBRATION",
}
"""`MODULE:ATTRIBUTE` of each experiment, by name; the attribute is an `experiment.Experiment`."""
PAPER: tuple[str, ...] = tuple(name for name in EXPERIMENTS if name != "calibration")
"""Names of those that reproduce the paper."""
