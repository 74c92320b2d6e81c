"""Quantities as people write them: `50mbit`, `15ms`, `2%`, `1MiB`; and ports: `web:80,443`."""

from __future__ import annotations

import math
import re

_RATES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_NUMBER = r"(\d+(?:\.\d+)?)"


def parse_rate(text: str) -> float:
    """Return bits per second.

    Raises:
        ValueError: says what is expected.
    """
    found = re.fullmatch(rf"{_NUMBER}\s*([kmg]?)(?:bit(?:/s)?)?", text.strip().lower())
    if found is None:
        raise ValueError("expected bits per second like 500kbit or 50mbit")
    return float(found[1]) * _RATES[found[2]]


def parse_time(text: str) -> float:
    """Return seconds.

    Raises:
        ValueError: says what is expected.
    """
    found = re.fullmatch(rf"{_NUMBER}\s*(s|ms|us)", text.strip().lower())
    if found is None:
        raise ValueError("expected a time like 15ms or 2s")
    return float(found[1]) * _TIMES[found[2]]


def parse_share(text: str) -> float:
    """Return a share of packets, 0 to 1.

    Raises:
        ValueError: says what is expected.
    """
    found = re.fullmatch(rf"{_NUMBER}\s*(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else math.inf
    if share > 1:
        raise ValueError("expected a share of packets like 2% or 0.02")
    return share


def parse_size(text: str) -> int:
    """Return bytes.

    Raises:
        ValueError: says what is expected.
    """
    found = re.fullmatch(r"(\d+)\s*([kmg]i?|)b?", text.strip().lower())
    if found is None:
        raise ValueError("expected bytes like 4096, 64KiB or 1MiB")
    return int(found[1]) * _SIZES[found[2]]


def parse_ip_service(text: object) -> str:
    """Return a node and TCP ports of it, in one word.

    Raises:
        ValueError: says what is expected.
    """
    found = re.fullmatch(r"[a-z][a-z0-9-]*:([0-9]{1,5}(?:-[0-9]{1,5})?,?)+", str(text))
    ports = [int(word) for word in re.findall(r"[0-9]+", str(text).partition(":")[2])]
    if found is None or not all(0 < port < 1 << 16 for port in ports):
        raise ValueError("expected a node and its TCP ports like web:80,443 or web:8000-8099")
    return str(text)
