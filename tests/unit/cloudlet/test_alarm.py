"""The controller's timer, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Any, cast

from packetcloud.cloudlet.alarm import CATCH_UP_S, MUCH_TOO_LATE_S, Alarm


class Handle:
    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due, self.call, self.is_cancelled = due, call, False

    def __lt__(self, other: Handle) -> bool:
        return self.due < other.due

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """The part of a loop that an alarm uses."""

    def __init__(self) -> None:
        self.now = 100.0
        self._handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, call: Callable[..., None], *given: Any) -> Handle:
        handle = Handle(due, lambda: call(*given))
        heapq.heappush(self._handles, handle)
        return handle

    def jump(self, now: float) -> None:
        """Be at `now`, late for all that was due before."""
        self.now = now
        while self._handles and self._handles[0].due <= self.now:
            handle = heapq.heappop(self._handles)
            if not handle.is_cancelled:
                handle.call()


def alarmed() -> tuple[Clock, Alarm, list[float]]:
    clock = Clock()
    rung: list[float] = []
    loop = cast(asyncio.AbstractEventLoop, clock)
    return clock, Alarm(loop, lambda: rung.append(clock.now)), rung


def test_it_rings_when_it_is_time_once() -> None:
    clock, alarm, rung = alarmed()
    alarm.set(101.0)
    alarm.set(102.0)
    clock.jump(101.5)
    assert rung == []
    clock.jump(102.0 + MUCH_TOO_LATE_S)
    clock.jump(500.0)
    assert rung == [102.0 + MUCH_TOO_LATE_S]
    assert alarm.put_off_count == 0


def test_never_and_not_any_more() -> None:
    clock, alarm, rung = alarmed()
    alarm.set(math.inf)
    clock.jump(1e9)
    alarm.set(2e9)
    alarm.cancel()
    clock.jump(3e9)
    assert rung == []


def test_what_is_much_too_late_is_put_off_once() -> None:
    """Also when what is read meanwhile sets the same time again; and each standstill anew."""
    clock, alarm, rung = alarmed()
    alarm.set(101.0)
    clock.jump(160.0)
    assert (rung, alarm.put_off_count) == ([], 1)
    alarm.set(101.0)
    clock.jump(160.0 + CATCH_UP_S / 2)
    assert rung == []
    clock.jump(175.0)
    assert rung == [175.0], "late again, but it has been put off"
    alarm.set(180.0)
    clock.jump(190.0)
    assert (rung, alarm.put_off_count) == ([175.0], 2)
    clock.jump(190.0 + CATCH_UP_S)
    assert rung == [175.0, 190.0 + CATCH_UP_S]
