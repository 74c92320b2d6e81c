"""What runs on the machines: whole routers, hosts with an application, and services.

All of it is the code of the real daemons, short of the module that opens the socket: `HopService`,
`RouterShell` and `RouterCore`; `Endpoint`; `ServiceRuntime`.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packetcloud.chunk.flow_labels import KEY_BYTES
from packetcloud.chunk.hop.api import HopConfig, HopReceiver, Role
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID, SID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.endpoint_core import EndpointLimits
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.host.surroundings import Surroundings
from packetcloud.router.chunk_log import ChunkLog, Found
from packetcloud.router.core import RouterCore
from packetcloud.router.hop_service import HopService
from packetcloud.router.redial import Redial
from packetcloud.router.settings import RouterSettings
from packetcloud.router.shell import RouterShell
from packetcloud.router.spool import Spool
from packetcloud.services.launch import ExecutionMode, LaunchSpec
from packetcloud.services.runtime import ServiceRuntime
from packetcloud.services.sdk import ChunkContext, NetworkService, ServiceChunk, Verdict
from packetcloud.testbed.simulation.disk import SimulatedFolder
from packetcloud.testbed.simulation.disk_worker import SimulatedDiskWorker
from packetcloud.testbed.simulation.hop_node import SimulatedHopNode
from packetcloud.testbed.simulation.journal import NO_POWER, Entry, Line
from packetcloud.testbed.simulation.machine import Address, Machine, Process
from packetcloud.testbed.simulation.network import Network
from packetcloud.testbed.simulation.payload import digest_of, make_payload, op_of
from packetcloud.testbed.simulation.witness import Chunk, Witness

ROUTER_PORT = 4700
SPOOL_FOLDER = Path("/spool")
REOPEN_S = 1.0
"""A host that did not find its router at the start tries again, as its supervisor would."""

LONGEST_HOLD_S = 2.0
"""An application that keeps chunks longer stands still."""

WriteLine = Callable[[Line], None]


@functools.cache
def identity_of(name: str) -> Identity:
    """Return the key of a machine: the same in every run."""
    return Identity(hashlib.sha256(b"simulated " + name.encode()).digest())


@dataclass(frozen=True, slots=True)
class Operation:
    """One chunk that an application is to send."""

    op: int
    at_s: float
    source: str
    destination: str
    size: int
    services: tuple[str, ...]
    lifetime_s: float
    wants_report: bool


@dataclass(frozen=True, slots=True)
class Tempo:
    """How fast an application takes what arrives."""

    hold_s: float = 0.0
    """It keeps each chunk so long before it gives the buffer back."""
    defers: bool = False
    """It says "taken" only then, not at once."""
    refuses_every: int = 0
    """It refuses operations whose number divides by this; 0 = none."""

    def refuses(self, op: int) -> bool:
        return bool(self.refuses_every) and op % self.refuses_every == 0

    def may_refuse(self, op: int) -> bool:
        """Tell whether the application may not take it: it refuses, or stands still too long."""
        return self.refuses(op) or self.hold_s > LONGEST_HOLD_S


class Program(ABC):
    """What a machine runs, again and again: `start` after each end."""

    role = Role.HOST

    def __init__(self, machine: Machine, network: Network, config: HopConfig, write: WriteLine):
        self.machine = machine
        self.identity = identity_of(machine.name)
        self.witness: Witness | None = None
        self.node: SimulatedHopNode | None = None
        self.joins_datagrams = True
        self.mtu_bytes = 1500
        self.has_fast_aes = True
        self._network = network
        self._config = config
        self._write = write

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


class RouterProgram(Program):
    """A router without its management API."""

    role = Role.ROUTER

    def __init__(
        self,
        machine: Machine,
        network: Network,
        config: HopConfig,
        write: WriteLine,
        settings: RouterSettings,
    ) -> None:
        super().__init__(machine, network, config, write)
        self.settings = settings
        self.core: RouterCore | None = None
        self._spilled_before_count = 0
        """Of the processes that were killed."""

    @property
    def spilled_count(self) -> int:
        """Chunks that were on disk only for a while."""
        now_count = self.core.book.spool.spilled_count if self.core is not None else 0
        return self._spilled_before_count + now_count

    def left_on_disk(self) -> list[str]:
        """Return what a router that started now would find, and the segments beyond the last."""
        if self.settings.spool is None:
            return []
        folder = SimulatedFolder(self.machine.disk.copy(), SPOOL_FOLDER)
        segments = [name for name in folder.names() if name.startswith("chunks-")]
        found = ChunkLog(folder, 0).open()
        left = [f"{len(found)} chunks on disk that nobody holds"] if found else []
        return left + ([f"{len(segments)} segments of nothing"] if len(segments) > 1 else [])

    def start(self) -> None:
        process = self.machine.start()
        reactor: Any = process.reactor
        first_chunk_id = int(self.machine.wall_s() * 1000) << 20
        label_key = self.machine.rng.randbytes(KEY_BYTES)
        found: list[Found] = []
        workers: list[SimulatedDiskWorker] = []
        spool = Spool(
            self.settings.spool,
            lambda job: workers[0].submit(job),
            self._wall_ms() << 20,
            self._wall_ms,
        )
        self.core = RouterCore(
            self.settings,
            reactor.seconds(),
            first_chunk_id,
            label_key=label_key,
            spool=spool,
            wall_s=self.machine.wall_s,
        )
        shell = RouterShell(reactor, self.core)
        if self.settings.spool is not None:
            folder = SimulatedFolder(self.machine.disk, SPOOL_FOLDER)
            log = ChunkLog(folder, self.settings.spool.reserve_bytes)
            found = log.open()
            spool.start_at(log.next_number)
            workers.append(SimulatedDiskWorker(process, log, shell.disk_done))
        node: Any = self.make_node(process, shell, self.core.admit)
        redial = Redial(self.settings.guid, self.settings.neighbours, reactor.seconds())
        self.core.restore(found, self._wall_ms(), reactor.seconds())
        HopService(reactor, node, f"0.0.0.0:{ROUTER_PORT}", redial).startService()
        shell.changed()

    def killed(self) -> None:
        super().killed()
        self._spilled_before_count = self.spilled_count
        self.core = None

    def _wall_ms(self) -> int:
        return int(self.machine.wall_s() * 1000)


class HostProgram(Program):
    """A host: an endpoint, and an application that sends by a list and takes what arrives."""

    def __init__(
        self,
        machine: Machine,
        network: Network,
        config: HopConfig,
        write: WriteLine,
        router: Address,
        operations: list[Operation],
        tempo: Tempo,
        limits: EndpointLimits,
        seed: str,
    ) -> None:
        super().__init__(machine, network, config, write)
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


PASSING = "passing"
"""The service that changes nothing but the header: it says FORWARD."""
TURNING = "turning"
"""The service that sends everything to `TURNED_TO` instead."""
TURNED_TO = "C"


def mark_of(name: str) -> bytes:
    """Return what the service of this name appends to each payload."""
    return b"" if name in (PASSING, TURNING) else f"+{name}".encode()


def expected_of(operation: Operation) -> bytes:
    """Return what a digest says of an operation beside what was sent: marks, and who takes it."""
    marks = b"".join(map(mark_of, operation.services))
    taker = TURNED_TO if TURNING in operation.services else operation.destination
    return marks + arrived_as(taker, None)


def arrived_as(taker: str, next_sid: SID | None) -> bytes:
    """Return what a digest says of who took it, and of a service that should have run before."""
    return f" at {taker}".encode() + (next_sid.value if next_sid is not None else b"")


class MarkingService(NetworkService):
    """Appends its mark to every payload."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        size = len(chunk.payload)
        output = context.output_buffer(size + len(self._mark))
        output[:size] = chunk.payload
        output[size:] = self._mark
        return Verdict.update(output)


class PassingService(NetworkService):
    """Lets everything pass."""

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        return Verdict.forward()


class TurningService(NetworkService):
    """Sends everything to another destination."""

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        return Verdict.redirect(identity_of(TURNED_TO).guid)


def service_of(name: str) -> NetworkService:
    """Return the service of this name."""
    if name == PASSING:
        return PassingService()
    return TurningService() if name == TURNING else MarkingService(mark_of(name))


class ServiceProgram(Program):
    """A virtual instance of a service: machines of one service share its key."""

    role = Role.SERVICE

    def __init__(
        self,
        machine: Machine,
        network: Network,
        config: HopConfig,
        write: WriteLine,
        router: Address,
        service: str,
    ) -> None:
        super().__init__(machine, network, config, write)
        self.identity = identity_of(service)
        self.runtime: ServiceRuntime | None = None
        self._router = router
        self._service = service

    def start(self) -> None:
        process = self.machine.start()
        spec = LaunchSpec(self._service, "1", "", "", *self._router, execution=ExecutionMode.INLINE)

        def make_node(upper: HopReceiver) -> Any:
            return self.make_node(
                process, upper, lambda guid, role: "a service takes no neighbours"
            )

        self.runtime = ServiceRuntime(
            process.reactor,
            spec,
            service_of(self._service),
            SID(self.identity.sid.value),
            make_node,
            self.machine.rng.randbytes,
            nanoseconds=lambda: int(self.machine.monotonic_s() * 1e9),
        )
        self.runtime.start()

    def killed(self) -> None:
        super().killed()
        self.runtime = None
