"""A whole host on a simulated machine: an `Endpoint` with an application above it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from packetcloud.chunk.hop.api import HopReceiver
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.endpoint_core import EndpointLimits
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.host.surroundings import Surroundings
from packetcloud.testbed.simulation.application import Operation, Tempo
from packetcloud.testbed.simulation.journal import NO_POWER, Entry
from packetcloud.testbed.simulation.machine import Address, Process
from packetcloud.testbed.simulation.payload import digest_of, make_payload, op_of
from packetcloud.testbed.simulation.program import Program, Site, identity_of
from packetcloud.testbed.simulation.services import arrived_as, expected_of

REOPEN_S = 1.0
"""A host that did not find its router at the start tries again, as its supervisor would."""


class HostProgram(Program):
    """A host: an endpoint, and an application that sends by a list and takes what arrives."""

    def __init__(
        self,
        site: Site,
        router: Address,
        operations: list[Operation],
        tempo: Tempo,
        limits: EndpointLimits,
        seed: str,
    ) -> None:
        super().__init__(site)
        self.endpoint: Endpoint | None = None
        self.skipped_count = 0
        """Operations for which there was no endpoint when their time came."""
        self.waiting: list[Operation] = []
        """What is to be sent as soon as there is one."""
        self._router = router
        self._operations = operations
        self._tempo = tempo
        self._limits = limits
        self._seed = seed
        self._open_ops: dict[int, tuple[Operation, int, str]] = {}

    def start(self) -> None:
        process = self.machine.start()
        self._open(process)
        now_s = self.machine.time.now_s
        for operation in self._operations:
            if operation.at_s >= now_s:
                delay_s = operation.at_s - now_s
                process.later(delay_s, functools.partial(self._submit, operation))

    def killed(self) -> None:
        super().killed()
        self.endpoint = None
        outcome = "" if self.machine.is_powered else NO_POWER
        self._line(Entry.DIED, 0, "", 0, 0, "", outcome)
        for op, (operation, chunk_id, digest) in self._open_ops.items():
            source = self.guid.short
            self._line(Entry.FORGOT, op, source, chunk_id, operation.size, digest)
        self._open_ops.clear()

    @property
    def unended_count(self) -> int:
        return len(self._open_ops) + len(self.waiting)

    def submit(self, operation: Operation) -> None:
        """Send one more chunk, now or as soon as the endpoint is open."""
        if self.endpoint is None:
            self.waiting.append(operation)
        else:
            self._submit(operation)

    def _open(self, process: Process) -> None:
        def make_node(
            reactor: Any, identity: Any, role: Any, config: Any, upper: HopReceiver, admit: Any
        ) -> Any:
            return self.make_node(process, upper, admit)

        machine = self.machine
        reactor: Any = process.reactor
        opening = Endpoint.open(
            reactor,
            self._router,
            self.identity,
            limits=self._limits,
            hop_config=self._config,
            state_file=Path("/state/window"),
            node_factory=make_node,
            surroundings=Surroundings(machine.rng.randbytes, machine.disk),
        )
        opening.addCallbacks(
            self._opened, lambda _: process.later(REOPEN_S, lambda: self._open(process)) and None
        )

    def _opened(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        endpoint.on_chunks(self._arrived)
        waiting, self.waiting = self.waiting, []
        for operation in waiting:
            self._submit(operation)

    def _submit(self, operation: Operation) -> None:
        endpoint = self.endpoint
        if endpoint is None:
            self.skipped_count += 1
            return
        payload = make_payload(operation.op, operation.size, self._seed)
        try:
            promise: Any = endpoint.send(
                identity_of(operation.destination).guid,
                payload,
                services=[identity_of(name).sid for name in operation.services],
                lifetime_s=operation.lifetime_s,
                report=operation.wants_report,
            )
        except SendQueueFullError:
            self.skipped_count += 1
            return
        chunk_id = promise.send.chunk_id
        expected = digest_of(payload + expected_of(operation))
        self._open_ops[operation.op] = operation, chunk_id, expected
        source = self.guid.short
        self._line(
            Entry.SUBMITTED, operation.op, source, chunk_id, operation.size, expected,
            f"to {operation.destination}, {operation.lifetime_s:g} s"
            + ("" if operation.wants_report else ", no report"),
        )  # fmt: skip
        promise.addCallback(functools.partial(self._ended, operation, chunk_id))

    def _ended(self, operation: Operation, chunk_id: int, result: SendResult) -> None:
        _, _, digest = self._open_ops.pop(operation.op)
        self._line(
            Entry.ENDED, operation.op, self.guid.short, chunk_id, operation.size, digest,
            f"{result.outcome.value} {result.reason_word}".strip(), result.indeterminate,
        )  # fmt: skip

    def _arrived(self, chunks: list[ReceivedChunk]) -> None:
        process = self.machine.process
        assert process is not None, "nothing arrives at the dead"
        tempo = self._tempo
        for chunk in chunks:
            op = op_of(chunk.payload)
            if op is None:
                self.machine.note_fault(f"a chunk of nobody arrived: {chunk.header}")
                chunk.release()
                continue
            if tempo.refuses(op):
                self._received(Entry.REFUSED, op, chunk)
                chunk.refuse("not wanted")
                chunk.release()
            elif tempo.defers:
                chunk.defer()
                process.later(tempo.hold_s, functools.partial(self._take_late, op, chunk))
            else:
                self._received(Entry.TAKEN, op, chunk)
                if tempo.hold_s:
                    process.later(tempo.hold_s, chunk.release)
                else:
                    chunk.release()

    def _take_late(self, op: int, chunk: ReceivedChunk) -> None:
        self._received(Entry.TAKEN, op, chunk)
        chunk.accept()
        chunk.release()

    def _received(self, entry: Entry, op: int, chunk: ReceivedChunk) -> None:
        header = chunk.header
        self._line(
            entry, op, header.source.short, header.chunk_id.value, len(chunk),
            digest_of(bytes(chunk.payload) + arrived_as(self.machine.name, header.next_sid)),
        )  # fmt: skip
