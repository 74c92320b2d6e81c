"""Reports of cloudlets: the last of each in memory, written for all at once now and then.

A thousand cloudlets report every few seconds, and an old report is worth nothing: so a report is
no transaction. What is on disk is what a controller knows right after its start, with its age, and
what other controllers know of cloudlets that are not theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import Connection, select

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.core.cloudlets import CloudletReport
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.rows import put_all
from packetcloud.domain_controller.state.tables import REPORTS
from packetcloud.domain_controller.state.transaction import Transaction

WRITE_EVERY_S = 15.0
"""A controller that takes a cloudlet over knows what it had so long ago at most."""
SET_BACK_MS = 5000
"""No report is so much older than another one that came in before it."""
MAX_WRITTEN_COUNT = 100
"""Reports of one transaction: requests wait for it."""


class Reports:
    """The last report of each cloudlet. Used by several threads."""

    def __init__(self, connection: Connection) -> None:
        rows = connection.execute(select(REPORTS.c.document)).scalars()
        self._known = {report.cloudlet: report for report in _loaded(rows)}
        self._unwritten: set[str] = set()
        self._host_at: dict[GUID, str] = {}
        """Of each host that a report names, the cloudlet that named it last."""
        for report in self._known.values():
            self._note_hosts(None, report)
        self.host_addresses = HostAddresses(self._host_at, self._known)
        self._lock = threading.Lock()

    def put(self, report: CloudletReport) -> bool:
        """Take a report; False: it is not newer than what is known."""
        with self._lock:
            known = self._known.get(report.cloudlet)
            # One that came so long "before" came after the clock was set back.
            if known is not None and 0 < known.received_at_ms - report.received_at_ms < SET_BACK_MS:
                return False
            self._note_hosts(known, report)
            self._known[report.cloudlet] = report
            self._unwritten.add(report.cloudlet)
            return True

    def get(self, cloudlet: str) -> CloudletReport | None:
        """Return the last report of a cloudlet."""
        return self._known.get(cloudlet)

    def all(self) -> dict[str, CloudletReport]:
        """Return the last report of each cloudlet, by name."""
        with self._lock:
            return dict(self._known)

    def forget(self, cloudlet: str) -> None:
        """Forget a cloudlet that was removed."""
        with self._lock:
            known = self._known.pop(cloudlet, None)
            if known is not None:
                self._note_hosts(known, None)
            self._unwritten.discard(cloudlet)

    @property
    def unwritten_count(self) -> int:
        """How many reports are newer than what is on disk."""
        return len(self._unwritten)

    def some_unwritten(self) -> list[CloudletReport]:
        """Return reports to be written, at most `MAX_WRITTEN_COUNT`; then call `written`."""
        with self._lock:
            some = sorted(self._unwritten)[:MAX_WRITTEN_COUNT]
            return [self._known[name] for name in some]

    def written(self, reports: list[CloudletReport]) -> None:
        """Note that these are on disk; what came in since is not."""
        with self._lock:
            for report in reports:
                if self._known.get(report.cloudlet) is report:
                    self._unwritten.discard(report.cloudlet)

    def read_others(self, connection: Connection) -> None:
        """Take from disk what other controllers wrote since."""
        rows = connection.execute(select(REPORTS.c.cloudlet, REPORTS.c.at_ms)).all()
        with self._lock:
            known = {name: report.received_at_ms for name, report in self._known.items()}
        newer = [row.cloudlet for row in rows if known.get(row.cloudlet, -1) < row.at_ms]
        for start in range(0, len(newer), MAX_WRITTEN_COUNT):
            some = newer[start : start + MAX_WRITTEN_COUNT]
            query = select(REPORTS.c.document).where(REPORTS.c.cloudlet.in_(some))
            texts = connection.execute(query).scalars()
            with self._lock:
                for report in _loaded(texts):
                    now = self._known.get(report.cloudlet)
                    if now is None or now.received_at_ms < report.received_at_ms:
                        self._note_hosts(now, report)
                        self._known[report.cloudlet] = report

    def _note_hosts(self, before: CloudletReport | None, after: CloudletReport | None) -> None:
        old = before.hosts if before is not None else ()
        new = after.hosts if after is not None else ()
        if old == new:
            return  # nearly always
        cloudlet = after.cloudlet if after is not None else before.cloudlet if before else ""
        for host in set(old) - set(new):
            if self._host_at.get(host) == cloudlet:
                del self._host_at[host]
        for host in set(new) - set(old):
            self._host_at[host] = cloudlet


class HostAddresses(Mapping[GUID, NA]):
    """The NA of each host that a cloudlet reports, by its last report."""

    def __init__(self, host_at: Mapping[GUID, str], reports: Mapping[str, CloudletReport]) -> None:
        self._host_at = host_at
        self._reports = reports

    def __getitem__(self, host: GUID) -> NA:
        report = self._reports.get(self._host_at[host])
        if report is None or report.na is None:
            raise KeyError(host)
        return report.na

    def __iter__(self) -> Iterator[GUID]:
        return iter(tuple(self._host_at))

    def __len__(self) -> int:
        return len(self._host_at)


def write(transaction: Transaction, reports: list[CloudletReport]) -> None:
    """Write reports in place of those before."""
    rows = [
        {"cloudlet": report.cloudlet, "at_ms": report.received_at_ms, "document": dump(report)}
        for report in sorted(reports, key=lambda report: report.cloudlet)
    ]
    put_all(transaction.connection, REPORTS, rows)


def _loaded(texts: Iterable[str]) -> list[CloudletReport]:
    return [load(CloudletReport, text) for text in texts]
