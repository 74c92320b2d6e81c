"""What figures say beside others: ratios, aims reached or not, numbers as people read them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_AIM = re.compile(r"\s*(<=|>=|<|>|≤|≥)\s*([0-9][0-9_]*(?:\.[0-9]+)?)")
_BAND = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*(?:\+-|±)\s*([0-9]+(?:\.[0-9]+)?)\s*%")
_WORDS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "≤": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    "≥": operator.ge,
    ">": operator.gt,
}
_NEAR = 0.1
"""Two figures that differ by no more than this share are read as the same."""
_SHORT_DIGITS = 1000

Row = Mapping[str, Any]


def ratio_of(comparison: Row) -> float | None:
    """Ours over the paper's."""
    paper, ours = comparison["paper"], comparison["ours"]
    return ours / paper if paper and ours is not None else None


def is_reached(comparison: Row) -> bool | None:
    """Tell whether the aim of a comparison is reached; None: there is none, or no figure."""
    return meets(comparison["aim"], comparison["ours"])


def meets(aim: str, ours: float | None) -> bool | None:
    """Tell whether a figure is as an aim has it, such as `<= 2.2` or `4.30 +- 10 %`; None: there is
    no aim, or no figure."""
    if ours is None:
        return None
    if band := _BAND.match(aim):
        middle = float(band[1])
        return abs(ours - middle) <= middle * float(band[2]) / 100
    if bound := _AIM.match(aim):
        return _WORDS[bound[1]](ours, float(bound[2]))
    return None


def word_of(comparison: Row) -> str:
    """Return how a comparison is to be read, in a few words."""
    if comparison["ours"] is None:
        return "not measured"
    reached = is_reached(comparison)
    if reached is not None:
        missed = "outside its aim" if _BAND.match(comparison["aim"]) else "short of its aim"
        return "aim reached" if reached else missed
    ratio = ratio_of(comparison)
    if ratio is None:
        return ""
    if abs(ratio - 1) <= _NEAR:
        return "as in the paper, within 10 %"
    return f"{number_text(ratio)} times the paper's"


def number_text(value: object) -> str:
    """Return a value as people read it: four digits that count, no more."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < _SHORT_DIGITS else f"{value:,.0f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
