"""What figures say beside others: ratios, aims reached or not, numbers as people read them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_AIM = re.compile(r"\s*(<=|>=|<|>|≤|≥)\s*([0-9][0-9_]*(?:\.[0-9]+)?)")
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
    found = _AIM.match(comparison["aim"])
    if found is None or comparison["ours"] is None:
        return None
    reached: bool = _WORDS[found[1]](comparison["ours"], float(found[2]))
    return reached


def word_of(comparison: Row) -> str:
    """Return how a comparison is to be read, in a few words."""
    if comparison["ours"] is None:
        return "not measured"
    reached = is_reached(comparison)
    if reached is not None:
        return "aim reached" if reached else "short of its aim"
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
