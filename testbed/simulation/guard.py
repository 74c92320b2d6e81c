"""Nothing in a simulated network may ask the real world for the time or for randomness.

While a run goes, such a question by our own code raises: a seed would not run the same again.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_QUESTIONS: tuple[tuple[Any, str], ...] = (
    (time, "time"),
    (time, "monotonic"),
    (time, "time_ns"),
    (time, "monotonic_ns"),
    (time, "perf_counter_ns"),
    (os, "urandom"),
    (secrets, "token_bytes"),
    (secrets, "randbits"),
    (secrets, "randbelow"),
)
_ASKERS = ("packetcloud.chunk", "packetcloud.host", "packetcloud.router", "packetcloud.services")


class RealWorldError(AssertionError):
    """Code under simulation asked the real clock or the real source of randomness."""


@contextmanager
def forbidding_real_time() -> Iterator[None]:
    """Have such questions of our rooms raise; others, such as the logging module, are answered."""
    originals = [(module, name, getattr(module, name)) for module, name in _QUESTIONS]
    for module, name, original in originals:
        setattr(module, name, _guarded(f"{module.__name__}.{name}", original))
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def _guarded(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*arguments: Any) -> Any:
        asker = sys._getframe(1).f_globals.get("__name__", "")
        if asker.startswith(_ASKERS):
            raise RealWorldError(f"{asker} called {what} inside a simulation")
        return original(*arguments)

    return ask
