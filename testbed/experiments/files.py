"""What an experiment's folder holds besides its JSON: tables as CSV, plots as PNG and SVG.

Plots need matplotlib, which is optional; without it there are none, and the report says so.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packetcloud.testbed.experiments.plots import png_of, svg_of

Row = Mapping[str, Any]


def can_draw() -> bool:
    """Tell whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_tables(folder: Path, tables: Mapping[str, Sequence[Row]]) -> list[Path]:
    """Write each table to NAME.csv; return the files."""
    written = []
    for name, rows in tables.items():
        path = folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as target:
            writer = csv.DictWriter(target, columns_of(rows), restval="")
            writer.writeheader()
            writer.writerows(rows)
        written.append(path)
    return written


def write_plots(folder: Path, plots: Sequence[Row]) -> list[Path]:
    """Write each plot to NAME.png and NAME.svg; return the files, none without matplotlib."""
    if not can_draw():
        return []
    written = []
    for plot in plots:
        for suffix, data in (("png", png_of(plot)), ("svg", svg_of(plot).encode())):
            path = folder / f"{plot['name']}.{suffix}"
            path.write_bytes(data)
            written.append(path)
    return written


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of a table: those of all its rows, in the order of their first use."""
    return list(dict.fromkeys(key for row in rows for key in row))
