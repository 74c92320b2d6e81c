"""A router with a spool in memory: its settings, what is sent through it, and what arrives."""

from __future__ import annotations

import random
from typing import Any

from packetcloud.router.settings import RouterSettings, SpoolSettings
from tests.unit.router.router_fakes import (
    B,
    FakeNeighbour,
    FakeNetwork,
    S,
    chunk,
    service,
    settings,
)

KIB = 1024


def spooled(*, durable: bool = False, **changes: Any) -> RouterSettings:
    values = {"memory_bytes": 8 * KIB, "max_bytes": 256 * KIB, "max_flow_bytes": 128 * KIB}
    spool = SpoolSettings(reserve_bytes=4096, is_durable=durable, **(values | changes))
    return settings(service(S), detached_hold_bytes=16 * KIB, spool=spool)


def payload(number: int, size: int = KIB) -> bytes:
    return random.Random(number).randbytes(size)


def send(host: FakeNeighbour, numbers: range, *, to: Any = B, **changes: Any) -> list[Any]:
    return [
        host.chunk(chunk(destination=to, payload=payload(n), chunk_id=n, **changes))
        for n in numbers
    ]


def ids(sents: list[Any]) -> list[int]:
    return [sent.header.chunk_id.value for sent in sents]


def label_of(net: FakeNetwork) -> int:
    return next(entry.flow.label for entry in net.core.book.wheel)


def accept_with_disk(net: FakeNetwork, host: FakeNeighbour) -> list[Any]:
    """Take what comes, and let the disk turn in between."""
    taken: list[Any] = []
    while True:
        before = len(taken)
        taken += host.accept_all()
        net.disk_turns()
        if len(taken) == before and not host.unsettled:
            return taken
