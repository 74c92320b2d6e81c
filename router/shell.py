"""Between a hop node and the router core: adds the time, arms one timer, ends the turns."""

from __future__ import annotations

import logging
import math
from typing import Any

from packetcloud.chunk.hop.api import Body, Deferral, Neighbour, Refusal, Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.router.core import RouterCore
from packetcloud.router.disk_jobs import Result

_log = logging.getLogger(__name__)


class RouterShell:
    """The `HopReceiver` of a router's hop node.

    Args:
        reactor: its `seconds` must be monotonic.
    """

    def __init__(self, reactor: Any, core: RouterCore) -> None:
        self.core = core
        self._reactor = reactor
        self._seconds = reactor.seconds
        # At hand for the two calls per chunk, which spare themselves `_after` when it has no work.
        self._reports = core.reports
        self._wheel = core.book.wheel
        self._services = core.service_table
        self._timer: Any = None
        self._timer_at = math.inf
        self._flush_call: Any = None

    def neighbour_up(self, neighbour: Neighbour) -> None:
        _log.info("%s attached", _described(neighbour))
        self.core.neighbour_up(neighbour, self._seconds())
        self._after()

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        _log.info("%s left: %s", _described(neighbour), reason)
        self.core.neighbour_down(neighbour, self._seconds())
        self._after()

    def body_received(
        self, neighbour: Neighbour, kind: BodyKind, body: Body
    ) -> Refusal | Deferral | None:
        refusal = self.core.body_received(neighbour, kind, body, self._seconds())
        if (
            self._wheel.next_due_s < self._timer_at
            or self._services.next_due_s < self._timer_at
            or self._reports.pending
        ):
            self._after()
        return refusal

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        self.core.body_settled(neighbour, token, settlement, reason, self._seconds())
        if (
            self._wheel.next_due_s < self._timer_at
            or self._services.next_due_s < self._timer_at
            or self._reports.pending
        ):
            self._after()

    def disk_done(self, results: list[Result]) -> None:
        """Take in the answers of the disk worker, on the loop's thread."""
        self.core.disk_done(results, self._seconds())
        self._after()

    def changed(self) -> None:
        """Call after using the core from outside a hop event."""
        self._after()

    def stop(self) -> None:
        """Cancel what is scheduled."""
        for call in (self._timer, self._flush_call):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._flush_call = None
        self._timer_at = math.inf

    def _after(self) -> None:
        core = self.core
        if core.reports.pending and self._flush_call is None:
            self._flush_call = self._reactor.callLater(0, self._flush)
        due = core.next_timeout
        if due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._reactor.callLater(max(0.0, due - self._seconds()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self.core.handle_timeout(self._seconds())
        self._after()

    def _flush(self) -> None:
        self._flush_call = None
        self.core.flush_reports(self._seconds())
        self._after()


def _described(neighbour: Neighbour) -> str:
    host, port = neighbour.address
    return f"{neighbour.role.name.lower()} {neighbour.guid.short} at {host}:{port}"
