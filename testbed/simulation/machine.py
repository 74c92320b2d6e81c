"""A machine of the simulated network: clocks, a disk, ports, and at most one process.

Killing the process forgets all that is in memory and closes its ports; a power cut also forgets
what the disk had not synced, and the machine boots with another monotonic clock.
"""

from __future__ import annotations

import random
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import AlreadyCalled, AlreadyCancelled

from packetcloud.testbed.simulation.disk import SimulatedDisk
from packetcloud.testbed.simulation.virtual_time import Event, VirtualTime

Address = tuple[str, int]
FIRST_PORT = 40_000
START_OF_1970_CLOCK_S = 1.7e9
TIMER_GRAIN_S = 1e-6
MOST_FAULTS_KEPT_COUNT = 16


class Machine:
    """One computer. `rng` is its own stream of random numbers."""

    def __init__(self, time: VirtualTime, rng: random.Random, name: str, ip: str) -> None:
        self.time = time
        self.rng = rng
        self.name = name
        self.ip = ip
        self.is_powered = True
        self.disk = SimulatedDisk(rng)
        self.sockets: dict[int, Socket] = {}
        self.process: Process | None = None
        self.epoch = 0
        """Counts the processes that ran here."""
        self.faults: list[str] = []
        """What processes raised where nobody caught it."""
        self._boot_s = rng.uniform(-1e6, -100.0)
        self._wall_offset_s = START_OF_1970_CLOCK_S + rng.uniform(0.0, 1e6)
        self._next_port = FIRST_PORT

    def monotonic_s(self) -> float:
        """Seconds since this machine booted."""
        return self.time.now_s - self._boot_s

    def wall_s(self) -> float:
        """What this machine takes for the seconds since 1970."""
        return self.time.now_s + self._wall_offset_s

    def step_wall_clock(self, by_s: float) -> None:
        self._wall_offset_s += by_s
        if self.process is not None:
            self.process.reactor.clock_stepped()

    def start(self) -> Process:
        """Begin a new process."""
        assert self.process is None, f"{self.name} runs already"
        self.is_powered = True
        self.epoch += 1
        self.process = Process(self)
        return self.process

    def kill(self, *, power_cut: bool) -> None:
        """End the process as SIGKILL would, or the whole machine."""
        process, self.process = self.process, None
        if process is not None:
            process.is_alive = False
        self.sockets.clear()
        if power_cut:
            self.is_powered = False
            self.disk.cut_power()
            self._boot_s = self.time.now_s - self.rng.uniform(1.0, 60.0)

    def bind(self, port: int, capacity_bytes: int, on_readable: Callable[[], None]) -> Socket:
        """Open a UDP port; 0 takes a free one.

        Raises:
            OSError: another socket has it.
        """
        if not port:
            port, self._next_port = self._next_port, self._next_port + 1
        if port in self.sockets:
            raise OSError(f"port {port} of {self.name} is in use")
        sock = self.sockets[port] = Socket((self.ip, port), capacity_bytes, on_readable)
        return sock

    def note_fault(self, text: str) -> None:
        if len(self.faults) < MOST_FAULTS_KEPT_COUNT:
            self.faults.append(text)


class Socket:
    """A bound UDP port with the kernel's receive buffer behind it."""

    def __init__(
        self, address: Address, capacity_bytes: int, on_readable: Callable[[], None]
    ) -> None:
        self.address = address
        self.inbox: deque[tuple[Address, bytes]] = deque()
        self.errors: deque[Address] = deque()
        """Addresses whose machine said that nobody listens there."""
        self.waiting_bytes = 0
        self.overflow_count = 0
        self._capacity_bytes = capacity_bytes
        self._on_readable = on_readable

    def put(self, source: Address, datagrams: list[bytes]) -> None:
        """Datagrams arrive; what finds no room is gone."""
        for datagram in datagrams:
            if self.waiting_bytes + len(datagram) > self._capacity_bytes:
                self.overflow_count += 1
                continue
            self.waiting_bytes += len(datagram)
            self.inbox.append((source, datagram))
        self._on_readable()

    def put_error(self, about: Address) -> None:
        """An ICMP error arrives."""
        self.errors.append(about)
        self._on_readable()

    def take(self) -> tuple[Address, bytes] | None:
        """Return the next datagram with where it came from."""
        if not self.inbox:
            return None
        source, datagram = self.inbox.popleft()
        self.waiting_bytes -= len(datagram)
        return source, datagram


class Process:
    """One run of a program. Events that it owns do not happen once it is dead."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.epoch = machine.epoch
        self.is_alive = True
        self.backlog: list[Event] | None = None
        """What is due while the process is stopped (SIGSTOP); None while it runs."""
        self.reactor = ProcessReactor(self)

    def pause(self) -> None:
        if self.backlog is None:
            self.backlog = []

    def resume(self) -> None:
        """Go on: all that became due meanwhile happens now, in its order."""
        due, self.backlog = self.backlog or [], None
        for event in due:
            if not event.is_over:
                event.is_over = True
                self.later(0.0, event.call)

    def later(self, delay_s: float, call: Callable[[], object]) -> Event:
        time = self.machine.time
        return time.at(time.now_s + delay_s, call, self)

    def note_fault(self, error: Exception) -> None:
        text = "".join(traceback.format_exception(error)[-6:])
        self.machine.note_fault(text)


class SimulatedCall:
    """What `callLater` returns; behaves like Twisted's."""

    def __init__(self, reactor: ProcessReactor, due_s: float, call: Callable[[], object]) -> None:
        self.due_s = due_s
        self._reactor = reactor
        self._call = call
        self._is_called = self._is_cancelled = False
        self._event: Event | None = None
        self.plan()

    def plan(self) -> None:
        """Have it called when the reactor's clock shows `due_s`."""
        if self._event is not None:
            self._event.is_over = True
        reactor = self._reactor
        delay_s = self.due_s - reactor.seconds()
        # As a real timer: never a hair too early by rounding, which would be for ever.
        delay_s = max(delay_s, TIMER_GRAIN_S) if delay_s > 0 else 0.0
        self._event = reactor.process.later(delay_s, self._fire)

    def active(self) -> bool:
        return not (self._is_called or self._is_cancelled)

    def getTime(self) -> float:
        return self.due_s

    def cancel(self) -> None:
        if self._is_called:
            raise AlreadyCalled
        if self._is_cancelled:
            raise AlreadyCancelled
        self._is_cancelled = True
        if self._event is not None:
            self._event.is_over = True
        self._reactor.forget(self)

    def _fire(self) -> None:
        self._is_called = True
        self._reactor.forget(self)
        self._call()


class ProcessReactor:
    """As much of a Twisted reactor as our programs use, on virtual time."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._calls: dict[SimulatedCall, None] = {}

    def seconds(self) -> float:
        """The monotonic clock, as `install_monotonic_clock` makes it on a real reactor."""
        return self.process.machine.monotonic_s()

    def callLater(
        self, delay: float, call: Callable[..., object], *arguments: Any, **named: Any
    ) -> SimulatedCall:
        def bound() -> object:
            return call(*arguments, **named)

        planned = SimulatedCall(self, self.seconds() + delay, bound)
        self._calls[planned] = None
        return planned

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        self.callLater(0, call, *arguments)

    def resolve(self, name: str) -> Deferred[str]:
        """All names here are addresses."""
        return succeed(name)

    def clock_stepped(self) -> None:
        """The wall clock was set: whatever is planned by `seconds` is looked at again."""
        for planned in list(self._calls):
            planned.plan()

    def forget(self, planned: SimulatedCall) -> None:
        self._calls.pop(planned, None)
