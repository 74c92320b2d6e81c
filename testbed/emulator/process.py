"""Carries packets between two TUN devices: one emulated link, both directions, one process.

`python -m packetcloud.testbed.emulator.process LEFT DEVICE RIGHT DEVICE --seed N`, LEFT and RIGHT
being names of namespaces. Says `ready`; then takes one JSON object per line on standard input:

- `{"do": "change", "to_right": SHAPE, "to_left": SHAPE}`: from now on; one of both may be missing
- `{"do": "restart", "to_right": SHAPE, "to_left": SHAPE, "seed": N}`: empty, chances and sums anew
- `{"do": "report"}`: answered by the event `report`, sums since the last restart

and ends with its standard input. It runs before everybody else where it may (SCHED_FIFO), as the
hardware that it stands for would, and counts by how much it was late nevertheless.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import select
import sys
import time
from collections import Counter
from typing import Any

from packetcloud.testbed.emulator.channel import NEVER, OVERFLOW, Channel
from packetcloud.testbed.emulator.honesty import Lateness
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.emulator.tun import READ_BYTES, open_tun
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.processes import emit_event

BATCH = 32
"""Packets read from one side before the clock is looked at again: about 0.1 ms."""
LONGEST_SLEEP_S = 1.0
DIRECTIONS = ("to_right", "to_left")
_PR_SET_TIMERSLACK = 29
_STDIN = 0


class Emulator:
    """Both directions of one link.

    Args:
        left, right: descriptors of the TUN devices.
    """

    def __init__(self, left: int, right: int, seed: int) -> None:
        self._ways = {left: "to_right", right: "to_left"}
        self._exits = {"to_right": right, "to_left": left}
        self._restart(dict.fromkeys(DIRECTIONS, Shape()), seed)
        self._rest = b""

    def run(self, priority: str) -> None:
        """Carry packets until standard input ends."""
        self._priority = priority
        watched = [*self._ways, _STDIN]
        clock = time.monotonic
        while True:
            now = clock()
            wake_at = NEVER
            for way, channel in self._channels.items():
                if channel.next_due() <= now:
                    self._deliver(way, channel, now)
                wake_at = min(wake_at, channel.next_due())
            pause_s = min(max(wake_at - clock(), 0.0), LONGEST_SLEEP_S)
            ready, _, _ = select.select(watched, (), (), pause_s)
            for descriptor in ready:
                if descriptor == _STDIN:
                    if not self._take_orders():
                        return
                else:
                    self._read(descriptor)

    def _read(self, descriptor: int) -> None:
        channel = self._channels[self._ways[descriptor]]
        read, clock = os.read, time.monotonic
        for _ in range(BATCH):
            try:
                packet = read(descriptor, READ_BYTES)
            except BlockingIOError:
                return
            channel.arrive(packet, clock())

    def _deliver(self, way: str, channel: Channel, now: float) -> None:
        descriptor = self._exits[way]
        write, clock, lateness = os.write, time.monotonic, self._lateness
        for due, packet in channel.take_due(now):
            lateness.add(clock() - due)
            try:
                write(descriptor, packet)
            except OSError as error:
                self._refused[error.strerror or str(error)] += 1

    # --- orders ---------------------------------------------------------------------------------

    def _take_orders(self) -> bool:
        """Do what standard input says; False when it has ended."""
        data = os.read(_STDIN, READ_BYTES)
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self._obey(json.loads(line))
            except (TestbedError, ValueError, KeyError, TypeError) as error:
                emit_event("error", text=f"link emulator: {error}")
        return True

    def _obey(self, order: dict[str, Any]) -> None:
        shapes = {way: Shape.from_json(order[way]) for way in DIRECTIONS if way in order}
        if order["do"] == "report":
            emit_event("report", **self._report())
        elif order["do"] == "restart":
            kept = {way: channel.shape for way, channel in self._channels.items()}
            self._restart(kept | shapes, order["seed"])
            emit_event("changed")
        elif order["do"] == "change":
            now = time.monotonic()
            for way, shape in shapes.items():
                self._channels[way].change(shape, now)
            emit_event("changed")
        else:
            raise TestbedError(f"unknown order {order['do']!r}")

    def _restart(self, shapes: dict[str, Shape], seed: int) -> None:
        now = time.monotonic()
        self._channels = {way: Channel(shapes[way], f"{seed}/{way}", now) for way in DIRECTIONS}
        self._lateness = Lateness.empty()
        self._refused: Counter[str] = Counter()
        self._began_s = now
        self._cpu_s = time.process_time()
        self._seed = seed

    def _report(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._began_s
        overflow = sum(channel.sums.dropped[OVERFLOW] for channel in self._channels.values())
        return {
            "seconds": seconds,
            "seed": self._seed,
            "priority": self._priority,
            "busy_cores": (time.process_time() - self._cpu_s) / seconds if seconds else 0.0,
            "lateness": self._lateness.to_json(),
            "overruns": {"too many packets held": overflow, **self._refused},
            **{way: channel.sums.to_json() for way, channel in self._channels.items()},
            "shapes": {way: channel.shape.to_json() for way, channel in self._channels.items()},
        }


def run_first() -> str:
    """Have the kernel run us before others and wake us on the dot; return what it granted."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    # Nothing here makes cycles, and a collection is a pause.
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return "fifo"
    except OSError:
        pass
    with contextlib.suppress(OSError):
        return f"nice {os.nice(-15)}"
    return "none"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("left")
    parser.add_argument("left_device")
    parser.add_argument("right")
    parser.add_argument("right_device")
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        left = Namespace("left", options.left).run(open_tun, options.left_device)
        right = Namespace("right", options.right).run(open_tun, options.right_device)
    except OSError as error:
        emit_event("error", text=f"no TUN device: {error}")
        return 2
    emulator = Emulator(left, right, options.seed)
    priority = run_first()
    emit_event("ready", priority=priority)
    emulator.run(priority)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
