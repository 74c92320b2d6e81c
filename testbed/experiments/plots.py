"""Draws plots of experiments by matplotlib, from the plain values that stand in `result.json`."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

_DPI = 130
_SIZE_INCHES = (6.4, 3.8)
_COLOURS = ("#d1495b", "#30638e", "#5b8e7d", "#b08968", "#6d597a", "#8e9aaf")
_PAPER_COLOUR = "#777777"
_MARGIN = 0.8
"""Share of a group's room that its bars take."""

_FEW_GROUPS_COUNT = 3

Row = Mapping[str, Any]


def png_of(plot: Row) -> bytes:
    """Return a plot as PNG."""
    target = io.BytesIO()
    _draw(plot).savefig(target, format="png", dpi=_DPI)
    return target.getvalue()


def svg_of(plot: Row) -> str:
    """Return a plot as SVG that stands in a page as it is: text in the page's own colour and font,
    no background, names of its own for what it refers to."""
    from matplotlib import rc_context

    target = io.StringIO()
    nobody = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": plot["name"]}):
        _draw(plot).savefig(target, format="svg", transparent=True, metadata=nobody)
    text = target.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text[text.index("<svg") :].replace("#000000", "currentColor")


def _draw(plot: Row) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    panel = figure.subplots()
    if plot["kind"] == "bar":
        _draw_bars(panel, plot["series"])
    else:
        _draw_lines(panel, plot["series"])
    panel.set_title(_plain(plot["title"]), fontsize=10)
    panel.set_xlabel(_plain(plot["x_label"]))
    panel.set_ylabel(_plain(plot["y_label"]))
    if plot["x_log"]:
        panel.set_xscale("log")
    if plot["y_log"]:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    if len(plot["series"]) > 1 or any(one["is_paper"] for one in plot["series"]):
        panel.legend(fontsize=8, framealpha=0)
    return figure


def _draw_lines(panel: Any, series: Sequence[Row]) -> None:
    for number, one in enumerate(series):
        colour, style = _look(number, one)
        panel.errorbar(
            one["x"],
            one["y"],
            yerr=_errors(one),
            fmt=style,
            color=colour,
            label=_plain(one["label"]),
            capsize=2,
            markersize=3,
            linewidth=1.2,
        )
    panel.grid(alpha=0.2)


def _draw_bars(panel: Any, series: Sequence[Row]) -> None:
    groups = list(dict.fromkeys(str(x) for one in series for x in one["x"]))
    width = _MARGIN / max(1, len(series))
    for number, one in enumerate(series):
        colour, _ = _look(number, one)
        shift = (number - (len(series) - 1) / 2) * width
        where = [groups.index(str(x)) + shift for x in one["x"]]
        bars = panel.bar(
            where,
            one["y"],
            width,
            yerr=_errors(one),
            label=_plain(one["label"]),
            color=colour,
            hatch="//" if one["is_paper"] else None,
            capsize=2,
        )
        panel.bar_label(bars, fmt="%.3g", fontsize=7, padding=1)
    panel.set_xticks(range(len(groups)), [_plain(group) for group in groups])
    panel.margins(y=0.12)
    if len(groups) < _FEW_GROUPS_COUNT:
        # Or bars are as wide as the whole plot.
        panel.set_xlim(-1.0, len(groups))


def _look(number: int, one: Row) -> tuple[str, str]:
    if one["is_paper"]:
        return _PAPER_COLOUR, "s--"
    return _COLOURS[number % len(_COLOURS)], "o-"


def _errors(one: Row) -> list[list[float]] | None:
    """Return how far the ends of the error bars are from the figures; None: there are none."""
    if not one["low"] or not one["high"]:
        return None
    below = [max(0.0, y - low) for y, low in zip(one["y"], one["low"], strict=True)]
    above = [max(0.0, high - y) for y, high in zip(one["y"], one["high"], strict=True)]
    return [below, above]


def _plain(text: object) -> str:
    """Return a text that matplotlib takes as it is: a dollar sign would begin a formula."""
    return str(text).replace("$", r"\$")
