"""Our side of a measurement: a receiver, a sender, and the window that the receiver counted."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.trial import Window
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.processes import Child, Children, Event, python_command
from packetcloud.testbed.traffic.priority import Priority

START_TIMEOUT_S = 20.0
SLACK_S = 30.0
"""How long over its time a run may take before it counts as failed."""
ARRIVAL_TIMEOUT_S = 30.0
"""How long chunks that a router took may take to arrive after the sender has ended."""

SEALED = "ours_sealed"
"""Name of our contender whose sessions are sealed, where `ours` goes in the open like its peers."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """What the sender sends."""

    payload_bytes: int = 1 << 20
    outstanding: int = 16
    rate: float = 0.0
    """Chunks per second; 0: all it can."""
    sids: tuple[str, ...] = ()
    volume_bytes: int = 0
    """The receiver says `volume` when so much has arrived; 0: never."""
    key_file: Path | None = None
    """The payload arrives encrypted with this service key."""
    tick_s: float = 0.0
    """Both ends say how far they are every so often; 0: never."""
    keeps_times: bool = False
    """Both ends keep when each chunk went and came."""
    is_open: bool = False
    """Both ends declare every link private, so that nothing is sealed; a router does so by its own
    configuration."""
    priority: Priority = Priority.OWN
    """Of the receiver: one that stands for another machine lets router and VI go before it."""


@dataclass(slots=True)
class Ends:
    """The two processes of one run, and where they attach."""

    children: Children
    load: Load
    timing: Timing
    sender: Child | None = None
    receiver: Child | None = None
    guid: str = ""

    def start_receiver(self, place: Namespace | None, *where: object) -> Event:
        """Start the receiver; `where` is `--listen ADDRESS` or `--connect ROUTER --expect GUID`."""
        options: list[object] = [*where, "--payload-bytes", self.load.payload_bytes]
        options += ["--warmup", self.timing.warmup, "--seconds", self.timing.seconds]
        options += ["--volume", self.load.volume_bytes]
        options += ["--check", "--tick", self.load.tick_s]
        options += ["--priority", self.load.priority.value]
        options += ["--open"] if self.load.is_open else []
        if self.load.key_file is not None:
            options += ["--key-file", self.load.key_file]
        if self.load.keeps_times:
            options += ["--arrivals", self._times("arrivals")]
        command = python_command("packetcloud.testbed.traffic.receiver", *options)
        self.receiver = self.children.start("receiver", command, place)
        ready = self.receiver.wait_event("ready", START_TIMEOUT_S)
        self.guid = ready["guid"]
        return ready

    def start_sender(self, place: Namespace | None, to: Address, expect: str) -> None:
        """Start the sender, towards the receiver through the node at `to`."""
        load = self.load
        options: list[object] = ["--connect", f"{to[0]}:{to[1]}", "--expect", expect]
        options += ["--destination", self.guid, "--payload-bytes", load.payload_bytes]
        options += ["--outstanding", load.outstanding, "--rate", load.rate]
        options += ["--tick", load.tick_s]
        options += ["--open"] if load.is_open else []
        if load.keeps_times:
            options += ["--departures", self._times("departures")]
        for sid in load.sids:
            options += ["--sid", sid]
        command = python_command("packetcloud.testbed.traffic.sender", *options)
        self.sender = self.children.start("sender", command, place)

    def wait_opened(self) -> None:
        """Wait until the warm-up is over; whoever asks others what they have counted asks now.

        Raises:
            ChildError: an end failed, or nothing arrived.
        """
        self._wait_receiver("opened")

    def wait_window(self) -> tuple[Window, int]:
        """Wait until the receiver has counted; return the window and the number of chunks in it.

        Raises:
            ChildError: an end failed, or too little arrived.
        """
        event = self._wait_receiver("window")
        window = Window(event["begin_s"], event["end_s"], event["payload_bytes"])
        return window, event["bodies"]

    def finish(self) -> tuple[Event, Event]:
        """Let the sender drain, wait for what is still on its way, end both; return their reports.

        Raises:
            ChildError: bytes arrived altered, or chunks that were taken did not arrive.
        """
        assert self.receiver is not None and self.sender is not None
        self.sender.signal(signal.SIGTERM)
        sent = self.sender.wait_event("done", START_TIMEOUT_S)
        self._wait_arrived(sent["settled"].get("accepted", 0))
        self.receiver.signal(signal.SIGTERM)
        received = self.receiver.wait_event("done", START_TIMEOUT_S)
        if received["altered"] or received["wrong_length"]:
            raise ChildError(
                f"{received['altered']} of {received['compared']} compared chunks arrived altered, "
                f"{received['wrong_length']} with a wrong length"
            )
        return sent, received

    @contextlib.contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Whoever ends early, by Ctrl-C too, does not wait for what is still on its way."""
        try:
            yield
        except BaseException:  # Ctrl-C above all: what is on its way is not waited for
            for child in (self.sender, self.receiver):
                if child is not None:
                    child.stop(grace_s=0.0)
            raise

    def _wait_receiver(self, kind: str) -> Event:
        assert self.receiver is not None and self.sender is not None
        limit_s = self.timing.warmup + self.timing.seconds + SLACK_S
        try:
            return self.receiver.wait_event(kind, limit_s)
        except ChildError as error:
            said = "" if self.sender.is_running else f"; sender: {self.sender.last_words()}"
            raise ChildError(f"{error}{said}") from error

    def _wait_arrived(self, wanted: int) -> None:
        """Wait until the receiver has `wanted` chunks, or gets no further."""
        assert self.receiver is not None
        deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
        while time.monotonic() < deadline:
            self.receiver.signal(signal.SIGUSR1)
            if self.receiver.wait_event("progress", START_TIMEOUT_S)["bodies"] >= wanted:
                return
            time.sleep(0.05)

    def delays_s(self, begin_s: float, end_s: float) -> list[float]:
        """Delay of every chunk that left within the given time; after `finish`."""
        arrivals = dict(json.loads(self._times("arrivals").read_text()))
        departures = json.loads(self._times("departures").read_text())
        return [
            arrivals[number] - left_s
            for number, left_s in departures
            if begin_s <= left_s < end_s and number in arrivals
        ]

    def _times(self, name: str) -> Path:
        return self.children.directory / f"{name}.json"
