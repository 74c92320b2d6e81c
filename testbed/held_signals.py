"""Ctrl-C and SIGTERM wait while something is taken down: cut in two, it leaves things behind."""

from __future__ import annotations

import signal
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """What comes between `hold` and `release` is acted upon afterwards. Of the main thread.

    Python's handlers are replaced and not the thread's mask: a signal that another thread takes is
    handled in the main thread all the same.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._came: list[int] = []

    def hold(self) -> None:
        """Begin; a second call does nothing."""
        for number in _ENDING:
            if number not in self._before:
                self._before[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """End, and do what a signal that came meanwhile asks for; without `hold` do nothing."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)
        came, self._came = self._came, []
        for first in came[:1]:
            signal.raise_signal(first)

    def _note(self, number: int, _: object) -> None:
        self._came.append(number)
