"""Our contender in `bench rules`: what a router asks of its rules, timed.

Three figures. *Table*: `ask`, the bare question, all its fields at hand. *Decision*: all that a
router does with the header of a chunk of a flow that it does not remember: it reads the header,
asks the table, orders the services, finds the way out, and makes of that a flow to remember.
*Cached*: the same behind the flow cache of a neighbour router's session, which remembers 65 536
flows.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import numpy as np

from packetcloud.chunk.flow_labels import KEY_BYTES, FlowLabels
from packetcloud.chunk.header import FIXED_BYTES, ChunkHeader, PayloadType
from packetcloud.chunk.hop.api import Neighbour, Role
from packetcloud.chunk.names import GUID, NA, SID_ZERO, ChunkId
from packetcloud.router.attachment import Attachment
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.forward import Forwarder
from packetcloud.router.planner import FlowPlanner
from packetcloud.router.reports import ReportBatch
from packetcloud.router.routes import Routes
from packetcloud.router.rule_counts import RuleCounts
from packetcloud.router.rules.table import Table
from packetcloud.router.service_table import ServiceTable
from packetcloud.router.settings import RouterNeighbour, RouterSettings, ServiceSettings
from packetcloud.router.spool import Spool
from packetcloud.router.tap import Tap
from packetcloud.testbed.traffic.rule_traffic import Names, Spread
from packetcloud.testbed.traffic.rule_writer import services

QUESTIONS = 100_000
"""In each sample of `ask`; decisions are a third as many."""
_DECISIONS = QUESTIONS // 3
_NOW_S = 1e9
_DESTINATION = slice(44, 64)
_SOURCE = GUID(b"\xa1" * 20)
_INGRESS = GUID(b"\xa2" * 20)
_BEYOND = GUID(b"\xa3" * 20)


class _NeighbourRouter:
    """A session that only has to be told apart from others."""

    guid = _INGRESS
    role = Role.ROUTER


class OurRules:
    """Asks tables of several sizes.

    Args:
        tables: by the number of rules.
        names: the destinations that the rules name; a table has the first of them.
    """

    def __init__(self, tables: Mapping[int, Table], names: Names) -> None:
        self._tables = tables
        self._names = names
        self._planner = _planner()
        self._attachments = {
            (size, spread): Attachment(cast(Neighbour, _NeighbourRouter()))
            for size in tables
            for spread in Spread
        }

    def table_s(self, size: int, picks: Names) -> float:
        """Return the seconds of CPU time for one question of the bare table."""
        ask = self._tables[size].ask
        source, sid, ingress = _SOURCE.value, SID_ZERO.value, _INGRESS.value
        kind = int(PayloadType.DATA)
        destinations = [name.tobytes() for name in picks]
        with _undisturbed():
            begin_s = time.thread_time()
            for destination in destinations:
                ask(source, destination, sid, kind, ingress, _NOW_S)
            return (time.thread_time() - begin_s) / len(destinations)

    def decision_s(self, size: int, picks: Names) -> float:
        """Return the seconds of CPU time for the decision about a flow that is not remembered."""
        decide, attachment = self._planner.decide, self._attachments[size, Spread.EVEN]
        self._planner.install(self._tables[size])
        heads = _heads(picks[:_DECISIONS])
        with _undisturbed():
            begin_s = time.thread_time()
            for head in heads:
                decide(attachment, head, _NOW_S)
            return (time.thread_time() - begin_s) / len(heads)

    def cached_s(self, size: int, spread: Spread, picks: Names) -> tuple[float, float]:
        """Return the seconds of CPU time for each chunk behind the cache, and its share of misses.

        The cache is as the chunks before have left it; see to it that there were some.
        """
        attachment, planner = self._attachments[size, spread], self._planner
        planner.install(self._tables[size])
        for known in attachment.flows.values():
            known.rules_epoch = planner.rules_epoch  # it was this table that they came from
        heads = _heads(picks)
        epoch, misses = planner.rules_epoch, 0
        with _undisturbed():
            begin_s = time.thread_time()
            for head in heads:
                # As `RouterCore` does for every chunk.
                key = head[2:8] + head[20:FIXED_BYTES]
                flow = attachment.flows.get(key)
                if (
                    flow is None
                    or flow.rules_epoch != epoch
                    or flow.until_s <= _NOW_S
                    or not flow.layout.matches(head)
                ):
                    misses += 1
                    attachment.remember(key, planner.decide(attachment, head, _NOW_S))
            used_s = time.thread_time() - begin_s
        return used_s / len(heads), misses / len(heads)

    def check(self, size: int, picks: Names) -> int:
        """Return for how many of the destinations the decision is to visit a service."""
        self._planner.install(self._tables[size])
        attachment = self._attachments[size, Spread.EVEN]
        return sum(
            len(self._planner.decide(attachment, head, _NOW_S).steps) == 1 for head in _heads(picks)
        )


def _planner() -> FlowPlanner:
    """Return what decides in a router that hosts the services and has another router behind it."""
    settings = RouterSettings(
        guid=GUID(b"\xa0" * 20),
        na=NA(1),
        services=tuple(
            ServiceSettings(sid=sid, name=f"service {number}")
            for number, sid in enumerate(services())
        ),
        neighbours=(
            RouterNeighbour(_INGRESS, "before", NA(3)),
            RouterNeighbour(_BEYOND, "beyond", NA(2)),
        ),
    )
    spool = Spool(None, lambda _: None, 1, lambda: 0)
    book = CustodyBook(settings.store_bytes, ReportBatch(), spool, Tap(lambda: 0))
    forwarder = Forwarder(settings, book, Routes(settings, _NOW_S))
    hosted = ServiceTable(settings, _NOW_S).hosted
    labels = FlowLabels(bytes(KEY_BYTES))
    return FlowPlanner(settings, forwarder, hosted, labels, RuleCounts(), lambda: _NOW_S)


def _heads(destinations: Names) -> list[bytes]:
    """Return the headers of plain chunks to these destinations."""
    header = ChunkHeader(
        source=_SOURCE,
        destination=GUID(bytes(20)),
        chunk_id=ChunkId(1),
        payload_bytes=1024,
        source_na=NA(3),
        destination_na=NA(2),
        lifetime_ms=60_000,
    ).to_bytes()
    rows = np.tile(np.frombuffer(header, np.uint8), (len(destinations), 1))
    rows[:, _DESTINATION] = destinations
    return [row.tobytes() for row in rows]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Have Python look for garbage before, not meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
