"""Experiments: each runs by one command, and its figures stand beside those of the paper.

- `experiment` what an experiment is given, and what it gives back
- `runs`       runs experiments one after the other, and keeps what they found
- `files`      tables as CSV, plots as PNG and SVG
- `plots`      draws plots
- `reading`    what figures say beside others
- `markup`     HTML that escapes
- `report`     one HTML page about a run

`EXPERIMENTS` names each with where it is, so that only what runs is imported; `PAPER` are those
that `packetcloud testbed run paper` runs, in this order. Source: docs/reference/testbed.md.
"""

from __future__ import annotations

from collections.abc import Mapping

EXPERIMENTS: Mapping[str, str] = {}
"""`MODULE:ATTRIBUTE` of each experiment, by name; the attribute is an `experiment.Experiment`."""
PAPER: tuple[str, ...] = ()
"""Names of those that reproduce the paper."""
