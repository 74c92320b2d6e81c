"""The monotonic clock that every timer runs on.

Twisted's `reactor.seconds` is the wall clock: a step of -2 s made a 1 s timer fire after 3 s.
Source: docs/decisions/0004; twisted/twisted#2424, #5552.
"""

from __future__ import annotations

import time
from typing import Any


def install_monotonic_clock(reactor: Any) -> None:
    """Make `reactor` measure time by `time.monotonic`. Call before anything is scheduled."""
    if reactor.seconds is not time.monotonic:
        reactor.seconds = time.monotonic
