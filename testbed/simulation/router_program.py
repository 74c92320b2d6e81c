"""A whole router on a simulated machine: `HopService`, `RouterShell` and `RouterCore`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packetcloud.chunk.flow_labels import KEY_BYTES
from packetcloud.chunk.header import PayloadType, decode_header
from packetcloud.chunk.hop.api import Role
from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.chunk_record import Found
from packetcloud.router.cloudlet_table import CloudletTable, TableUpdate
from packetcloud.router.core import RouterCore
from packetcloud.router.hop_service import HopService
from packetcloud.router.redial import Redial
from packetcloud.router.settings import RouterSettings
from packetcloud.router.shell import RouterShell
from packetcloud.router.spool import Spool
from packetcloud.router.table_store import TableStore
from packetcloud.router.tap import MAX_RING_BYTES, MAX_SNAP_BYTES, Capture, Point, Wanted
from packetcloud.testbed.simulation.disk import SimulatedFolder
from packetcloud.testbed.simulation.disk_worker import SimulatedDiskWorker
from packetcloud.testbed.simulation.program import Program, Site

ROUTER_PORT = 4700
SPOOL_FOLDER = Path("/spool")
TABLE_FOLDER = Path("/cloudlet")


class RouterProgram(Program):
    """A router without its management API."""

    role = Role.ROUTER

    def __init__(
        self,
        site: Site,
        settings: RouterSettings,
    ) -> None:
        super().__init__(site)
        self.settings = settings
        self.core: RouterCore | None = None
        self._shell: RouterShell | None = None
        self._tables: TableStore | None = None
        self._ended: Capture | None = None
        """The chunks of this router itself, reports, that ended here."""
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

    def note_untold(self) -> None:
        """Have the witness know of the reports of this router that ended here."""
        if self._ended is None or self.witness is None:
            return
        for sight, _ in self._ended.take(MAX_RING_BYTES):
            header = decode_header(sight.content)
            if header.payload_type == PayloadType.REPORT:
                payload = sight.content[int.from_bytes(sight.content[2:4], "big") :]
                self.witness.could_not_tell(payload, header.destination)

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
        # Beside the journal: a report that expires where it was written reaches nobody.
        self._ended = self.core.tap.begin(
            Wanted(
                points=frozenset({Point.ENDED}),
                source=self.settings.guid.hex,
                snap_bytes=MAX_SNAP_BYTES,
            ),
            lambda: None,
        )
        shell = RouterShell(reactor, self.core)
        if self.settings.spool is not None:
            folder = SimulatedFolder(self.machine.disk, SPOOL_FOLDER)
            log = ChunkLog(folder, self.settings.spool.reserve_bytes)
            found = log.open()
            spool.start_at(log.next_number)
            workers.append(SimulatedDiskWorker(process, log, shell.disk_done))
        self._shell = shell
        if self.settings.has_table:
            self._tables = TableStore(SimulatedFolder(self.machine.disk, TABLE_FOLDER))
            self.core.install_table(self._tables.load(), reactor.seconds())
        node: Any = self.make_node(process, shell, self.core.admit)
        redial = Redial(self.settings.guid, self.settings.neighbours, reactor.seconds())
        self.core.restore(found, self._wall_ms(), reactor.seconds())
        HopService(reactor, node, f"0.0.0.0:{ROUTER_PORT}", redial).startService()
        shell.changed()

    def put_table(self, update: TableUpdate) -> CloudletTable:
        """Take in an update of a cloudlet controller, as the management API does.

        Raises:
            TableRefusedError: it is refused as a whole.
        """
        core, shell, tables = self.core, self._shell, self._tables
        assert core is not None and core.cloudlet is not None, "the router runs, and takes a table"
        assert shell is not None and tables is not None, "they are made with the core"
        before = core.cloudlet.table
        table = before.apply(update, core.service_table.why_not_in_table)
        if table is not before:
            tables.save(table)
            core.install_table(table, self.machine.monotonic_s())
            shell.changed()
        return table

    def killed(self) -> None:
        super().killed()
        self._spilled_before_count = self.spilled_count
        self.core = self._ended = None

    def _wall_ms(self) -> int:
        return int(self.machine.wall_s() * 1000)
