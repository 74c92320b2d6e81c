"""The cloudlet's table as a part of the daemon: updates come in, go to disk, and then in force.

Source: docs/decisions/0013; docs/reference/cloudlet-table.md.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from pathlib import Path

from packetcloud.chunk.names import SID
from packetcloud.router import cloudlet_view
from packetcloud.router.cloudlet_dispatch import CloudletDispatch
from packetcloud.router.cloudlet_metrics import TableFigures
from packetcloud.router.cloudlet_schemas import (
    IdleAnswer,
    TableRefusal,
    TableReport,
    Update,
    UpdateAnswer,
)
from packetcloud.router.cloudlet_table import (
    CloudletTable,
    ViEntry,
)
from packetcloud.router.core import RouterCore
from packetcloud.router.errors import (
    RouterConfigError,
    TableFileError,
    TableUnavailableError,
)
from packetcloud.router.settings import RouterSettings, ServiceSettings
from packetcloud.router.storage import FolderStorage
from packetcloud.router.table_store import TABLE_NAME, TableStore

MAX_WAITERS_COUNT = 64
"""Requests that wait for a VI to be idle: more than VIs that a controller moves at a time."""
DAMAGED_NAME = "table.damaged"
_log = logging.getLogger("packetcloud.router")


class TableService:
    """The table of one router; refuses everything where the config has no `[cloudlet]`.

    Args:
        seconds: the monotonic clock that the core is driven with.
        changed: called after the core was used.
        services_changed: called with the services of another table.
        token: what whoever writes the table has to show; None: nothing.
        boot_id: of this start of the router.
    """

    def __init__(
        self,
        folder: Path | None,
        core: RouterCore,
        seconds: Callable[[], float],
        changed: Callable[[], None],
        services_changed: Callable[[tuple[ServiceSettings, ...]], None],
        token: str | None,
        boot_id: str,
    ) -> None:
        self.token = token
        self.boot_id = boot_id
        self.problem = ""
        """Why the table of before is not in force."""
        self.figures = TableFigures()
        self._folder = folder
        self._core = core
        self._seconds = seconds
        self._changed = changed
        self._services_changed = services_changed
        self._storage: FolderStorage | None = None
        self._store: TableStore | None = None
        self._writing = asyncio.Lock()
        self._coming = CloudletTable()
        """What is being written; in force as soon as it is."""
        self._waiters: set[asyncio.Event] = set()
        if core.cloudlet is not None:
            core.cloudlet.changed = self._wake_waiters

    @property
    def services(self) -> tuple[ServiceSettings, ...]:
        """Those of the table in force."""
        cloudlet = self._core.cloudlet
        entries = cloudlet.table.services.values() if cloudlet is not None else ()
        return tuple(entry.settings for entry in entries)

    def open(self) -> None:
        """Put the table of before in force. Blocks: the router does not listen yet.

        Raises:
            RouterConfigError: the folder cannot be used.
        """
        cloudlet = self._core.cloudlet
        if self._folder is None or cloudlet is None:
            return
        try:
            self._storage = FolderStorage(self._folder)
            self._store = TableStore(self._storage)
            table = self._load(self._store, self._storage)
        except OSError as error:
            raise RouterConfigError(
                f"[cloudlet] path = {str(self._folder)!r}: {error.strerror or error}; "
                "allowed: a folder that this user may write, one router's alone"
            ) from None
        table = self._without_own(table)
        self._core.install_table(table, self._seconds())
        self._coming = table
        _log.info(
            "cloudlet: table of epoch %d, version %d, %d services",
            table.epoch, table.version, len(table.services),
        )  # fmt: skip

    def close(self) -> None:
        """Give the folder back."""
        if self._storage is not None:
            self._storage.close()

    def conflict(self, settings: RouterSettings) -> str | None:
        """Return what in a config that was read again is the table's; None: nothing is."""
        listed = {entry.sid: entry for entry in self._coming.services.values()}
        names = {entry.settings.name for entry in listed.values()}
        for one in settings.services:
            if one.sid in listed or one.name in names:
                return (
                    f"[[service]] {one.name}: the cloudlet's table has its SID or its name; have "
                    "its controller take that service out first"
                )
        return None

    def authorise(self, authorization: str | None) -> None:
        """Let pass who may write the table.

        Raises:
            TableUnavailableError: somebody else.
        """
        if self.token is None:
            return
        given = (authorization or "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            text = "the table is written with the token of [cloudlet] token_file: Bearer TOKEN"
            raise TableUnavailableError(401, text)

    async def put(self, update: Update) -> UpdateAnswer:
        """Take in an update; the answer comes when what was accepted is in force and lasts.

        Raises:
            TableRefusedError: the update is refused as a whole.
            TableUnavailableError: it cannot be kept now, and is not in force.
        """
        store, _ = self._at_hand()
        async with self._writing:
            before = self._coming
            why_not = self._core.service_table.why_not_in_table
            table = before.apply(update.to_update(), why_not)
            if table is not before:
                await self._put_in_force(store, before, table)
        return UpdateAnswer.of(table)

    def report(self) -> TableReport:
        """Return the table in force, and how its services are."""
        _, cloudlet = self._at_hand()
        return cloudlet_view.table_report(cloudlet, self.boot_id, self.problem, self._seconds())

    async def idle(self, sid: SID, instance: int, timeout_s: float) -> IdleAnswer:
        """Answer when a VI that gets no more tasks has none left, or serves, or the time is over.

        Raises:
            TableUnavailableError: the table does not list it, or too many wait already.
        """
        if len(self._waiters) >= MAX_WAITERS_COUNT:
            text = f"{MAX_WAITERS_COUNT} requests wait for a VI already; try again later"
            raise TableUnavailableError(429, text)
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            ends_at = self._seconds() + timeout_s
            while True:
                answer = self._idle_now(sid, instance)
                left_s = ends_at - self._seconds()
                if answer.idle or answer.state.serves or left_s <= 0:
                    return answer
                event.clear()
                try:
                    await asyncio.wait_for(event.wait(), left_s)
                except TimeoutError:
                    return self._idle_now(sid, instance)
        finally:
            self._waiters.discard(event)

    def refusal(self, reason: str, detail: str) -> TableRefusal:
        """Count a refused request, and return what it is answered."""
        self.figures.requests_refused[reason] += 1
        table = self._core.cloudlet.table if self._core.cloudlet is not None else CloudletTable()
        return TableRefusal(
            reason=reason,
            detail=detail,
            controller=table.controller,
            epoch=table.epoch,
            version=table.version,
        )

    async def _put_in_force(
        self, store: TableStore, before: CloudletTable, table: CloudletTable
    ) -> None:
        self._coming = table
        try:
            await asyncio.to_thread(store.save, table)
        except OSError as error:
            self._coming = before
            text = f"the table cannot be written to {self._folder}: {error.strerror or error}"
            raise TableUnavailableError(503, f"{text}; make room, then send it again") from None
        for result in table.results:
            if result.reason is not None:
                self.figures.items_refused[result.reason] += 1
        self.problem = ""
        self._core.install_table(table, self._seconds())
        self._changed()
        self._services_changed(self.services)
        if table.epoch != before.epoch:
            text = "cloudlet: the table is of controller %s from now on, epoch %d"
            _log.info(text, table.controller, table.epoch)

    def _idle_now(self, sid: SID, instance: int) -> IdleAnswer:
        _, cloudlet = self._at_hand()
        entry = _entry_of(cloudlet.table, sid, instance)
        if entry is None:
            text = f"the table does not list instance {instance} of service {sid}"
            raise TableUnavailableError(404, text)
        vi = cloudlet.find(sid, instance)
        tasks = len(vi.tasks) if vi is not None else 0
        return IdleAnswer(
            idle=not entry.state.serves and not tasks,
            attached=vi is not None,
            state=entry.state,
            tasks=tasks,
            tasks_bytes=vi.tasks_bytes if vi is not None else 0,
            boot_id=self.boot_id,
            epoch=cloudlet.table.epoch,
            version=cloudlet.table.version,
        )

    def _at_hand(self) -> tuple[TableStore, CloudletDispatch]:
        if self._store is None or self._core.cloudlet is None:
            text = "this router takes no table: its config needs [cloudlet] with a path"
            raise TableUnavailableError(503, text)
        return self._store, self._core.cloudlet

    def _load(self, store: TableStore, storage: FolderStorage) -> CloudletTable:
        try:
            return store.load()
        except TableFileError as error:
            self.problem = f"{error}; started without it"
            _log.error("cloudlet: %s in %s", self.problem, self._folder)
        try:
            damaged = storage.read(TABLE_NAME, 0, storage.size(TABLE_NAME))
            storage.replace(DAMAGED_NAME, damaged)
        except OSError as error:
            _log.warning("cloudlet: no copy of the damaged table: %s", error.strerror or error)
        return CloudletTable()

    def _without_own(self, table: CloudletTable) -> CloudletTable:
        """Return the table without what the config has now; the config was changed meanwhile."""
        kept = {}
        for sid, entry in table.services.items():
            why = self._core.service_table.why_not_in_table(entry.sid, entry.settings.name)
            if why is None:
                kept[sid] = entry
            else:
                _log.warning("cloudlet: service %s is left out: %s", entry.settings.name, why[1])
        return table if len(kept) == len(table.services) else table.with_services(kept)

    def _wake_waiters(self) -> None:
        for event in self._waiters:
            event.set()


def _entry_of(table: CloudletTable, sid: SID, instance: int) -> ViEntry | None:
    service = table.services.get(sid.value)
    vis = service.vis if service is not None else ()
    return next((vi for vi in vis if vi.instance == instance), None)
