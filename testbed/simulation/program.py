"""What a machine runs: the code of a real daemon, short of the module that opens the socket."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID
from packetcloud.testbed.simulation.hop_node import SimulatedHopNode
from packetcloud.testbed.simulation.journal import Entry, Line
from packetcloud.testbed.simulation.machine import Machine, Process
from packetcloud.testbed.simulation.network import Network
from packetcloud.testbed.simulation.witness import Chunk, Witness

WriteLine = Callable[[Line], None]


@functools.cache
def identity_of(name: str) -> Identity:
    """Return the key of a machine: the same in every run."""
    return Identity(hashlib.sha256(b"simulated " + name.encode()).digest())


@dataclass(frozen=True, slots=True)
class Site:
    """Where a program runs, and who hears of what it does."""

    machine: Machine
    network: Network
    config: HopConfig
    write: WriteLine


class Program(ABC):
    """What a machine runs, again and again: `start` after each end."""

    role = Role.HOST

    def __init__(self, site: Site) -> None:
        self.machine = site.machine
        self.identity = identity_of(self.machine.name)
        self.witness: Witness | None = None
        self.node: SimulatedHopNode | None = None
        self.joins_datagrams = True
        self.mtu_bytes = 1500
        self.has_fast_aes = True
        self._network = site.network
        self._config = site.config
        self._write = site.write

    @property
    def guid(self) -> GUID:
        return self.identity.guid

    @abstractmethod
    def start(self) -> None:
        """Begin a new process."""

    def killed(self) -> None:
        """The process died: write down what died with it."""
        if self.witness is not None:
            for chunk, copies in self.witness.held.items():
                for _ in range(copies):
                    self._note(Entry.FORGOTTEN, chunk, "")
        self.witness = self.node = None

    def make_node(self, process: Process, upper: Any, admit: Any = None) -> SimulatedHopNode:
        """Return the hop node of this program, with a witness between it and `upper`."""
        self.witness = Witness(self.guid, self._note)
        self.witness.upper = upper
        self.node = SimulatedHopNode(
            process,
            self._network,
            self.identity,
            self.role,
            self._config,
            self.witness,
            admit,
            joins_datagrams=self.joins_datagrams,
            mtu_bytes=self.mtu_bytes,
            has_fast_aes=self.has_fast_aes,
            keeps_stamps=self.role is Role.ROUTER,
        )
        return self.node

    def _note(self, entry: Entry, chunk: Chunk, outcome: str) -> None:
        self._line(entry, chunk.op, chunk.source, chunk.chunk_id, 0, "", outcome)

    def _line(
        self,
        entry: Entry,
        op: int,
        source: str,
        chunk_id: int,
        size: int,
        digest: str,
        outcome: str = "",
        is_indeterminate: bool = False,
    ) -> None:
        machine = self.machine
        self._write(
            Line(
                machine.time.now_s, machine.name, machine.epoch, entry, op, source, chunk_id, size,
                digest, outcome, is_indeterminate,
            )
        )  # fmt: skip
